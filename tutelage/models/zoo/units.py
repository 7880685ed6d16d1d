"""The unit that nearly all convolutional networks are built from: convolution, batch norm, activation."""

from __future__ import annotations

from torch import nn


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution with half padding, batch norm, and an activation that is never in place.

    An in-place activation would overwrite the batch norm's output after a hook has read it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel, in pixels.
        stride: Step of the kernel, in pixels.
        groups: Groups of the convolution.
        bias: Whether the convolution has a bias of its own.
        activation: The activation's class, or None for a linear unit.
    """
    # Half padding keeps the size of a map at stride 1. By default without a bias, which the batch norm would subtract.
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias
    )
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(out_channels)]
    if activation is not None:
        layers.append(activation())
    return nn.Sequential(*layers)
