"""MobileNetV2 (Sandler et al. 2018) as two families of papers write it for small images.

Facts: both keep the 1x1 expansion in the first block, where the original has none. The distillation tables' network is
half as wide, with plain ReLU and a stem of stride 2, and is read after block groups 1, 2, 4 and 6; Tf-KD's has ReLU6,
biases in all convolutions and a 1x1 stem with padding. Maps are linear bottlenecks: they may be negative.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from tutelage.models.zoo.staged import Staged, kaiming_fan_out
from tutelage.models.zoo.units import conv_norm
from tutelage.system.values import Count, Range


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project linearly; plus the input where the shape allows."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, expand: int, bias: bool, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        inner = in_channels * expand
        self.body = nn.Sequential(
            conv_norm(in_channels, inner, 1, bias=bias, activation=activation),
            conv_norm(inner, inner, 3, stride=stride, groups=inner, bias=bias, activation=activation),
            # Linear, because a ReLU would lose information in so few channels (the paper's section 3.2).
            conv_norm(inner, out_channels, 1, bias=bias, activation=None),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the block's map."""
        outputs: Tensor = self.body(inputs)
        return inputs + outputs if self.residual else outputs


def inverted_group(
    in_channels: int,
    out_channels: int,
    depth: int,
    *,
    stride: int,
    expand: int = 6,
    bias: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Return a group of inverted residuals, the first of which changes the shape."""
    blocks = []
    for position in range(depth):
        step, channels = (stride, in_channels) if position == 0 else (1, out_channels)
        block = InvertedResidual(channels, out_channels, stride=step, expand=expand, bias=bias, activation=activation)
        blocks.append(block)
    return nn.Sequential(*blocks)


# A lower factor would leave the narrowest layer, of 16 channels, with none.
Width = Annotated[float, Range(least=1 / 16)]


def mobilenetv2(num_classes: Count, *, in_channels: Count = 3, width: Width = 0.5) -> Staged:
    """Return the MobileNetV2 of the distillation tables.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        width: Factor on all channels but the last 1280.
    """
    stem, a, b, c, d, e, f, g = (int(channels * width) for channels in (32, 16, 24, 32, 64, 96, 160, 320))
    stages = [
        nn.Sequential(inverted_group(stem, a, 1, stride=1, expand=1), inverted_group(a, b, 2, stride=1)),
        inverted_group(b, c, 3, stride=2),
        nn.Sequential(inverted_group(c, d, 4, stride=2), inverted_group(d, e, 3, stride=1)),
        nn.Sequential(inverted_group(e, f, 3, stride=2), inverted_group(f, g, 1, stride=1)),
    ]
    return Staged(
        conv_norm(in_channels, stem, 3, stride=2),
        stages,
        nn.Linear(1280, num_classes),
        tail=conv_norm(g, 1280, 1),
        initialize=kaiming_fan_out,
    )


def tfkd_mobilenetv2(num_classes: Count, *, in_channels: Count = 3) -> Staged:
    """Return the MobileNetV2 of the Tf-KD paper; its 1x1 convolution of the pooled map is a linear layer here.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
    """
    # One row per group: expansion, channels, blocks, stride of the first block.
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1))
    stem = nn.Sequential(nn.Conv2d(in_channels, 32, 1, padding=1), nn.BatchNorm2d(32), nn.ReLU6())
    channels, stages = 32, []
    for expand, width, depth, stride in table:
        group = inverted_group(channels, width, depth, stride=stride, expand=expand, bias=True, activation=nn.ReLU6)
        stages.append(group)
        channels = width
    tail = conv_norm(channels, 1280, 1, bias=True, activation=nn.ReLU6)
    return Staged(stem, stages, nn.Linear(1280, num_classes), tail=tail)
