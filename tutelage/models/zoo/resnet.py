"""Residual networks for small images: the 6n+2 family, and the ImageNet shapes with a 3x3 stem.

Facts: three stages of n basic blocks, widths 16/32/64 (He et al. 2016); `x4` quadruples the stages but only doubles the
stem. Maps are read after the block's last ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from tutelage.errors import UserError
from tutelage.models.zoo.staged import Staged, kaiming_fan_out
from tutelage.models.zoo.units import conv_norm
from tutelage.system.values import Count


class Residual(nn.Module):
    """`relu(body(x) + shortcut(x))`, where the shortcut is a projection if the shape changes."""

    def __init__(self, body: nn.Module, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        # The paper's option B: a projection only where the identity has another shape.
        same = stride == 1 and in_channels == out_channels
        self.body = body
        self.shortcut = (
            nn.Identity() if same else conv_norm(in_channels, out_channels, 1, stride=stride, activation=None)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the block's map."""
        return relu(self.body(inputs) + self.shortcut(inputs))


def basic(in_channels: int, width: int, stride: int) -> Residual:
    """Return the block of two 3x3 convolutions."""
    body = nn.Sequential(conv_norm(in_channels, width, 3, stride=stride), conv_norm(width, width, 3, activation=None))
    return Residual(body, in_channels, width, stride)


def bottleneck(in_channels: int, width: int, stride: int) -> Residual:
    """Return the block of a 1x1, a 3x3 and a 1x1 convolution that leaves with four times its width."""
    body = nn.Sequential(
        conv_norm(in_channels, width, 1),
        conv_norm(width, width, 3, stride=stride),
        conv_norm(width, 4 * width, 1, activation=None),
    )
    return Residual(body, in_channels, 4 * width, stride)


def residual_network(
    num_classes: int,
    *,
    in_channels: int = 3,
    block: Callable[[int, int, int], Residual] = basic,
    expansion: int = 1,
    stem: int,
    widths: Sequence[int],
    depths: Sequence[int],
    initialize: Callable[[nn.Module], None] | None = kaiming_fan_out,
) -> Staged:
    """Return a residual network; every stage but the first halves the map.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        block: Called with input channels, width and stride.
        expansion: A block's output channels per width.
        stem: Channels of the stem.
        widths: Width of each stage.
        depths: Blocks of each stage.
        initialize: The convolutions' initialisation; None for PyTorch's own.
    """
    channels, stages = stem, []
    for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks = []
        for position in range(depth):
            # Only the first block of a stage halves the map, and the first stage keeps the stem's size.
            blocks.append(block(channels, width, 2 if number and not position else 1))
            channels = width * expansion
        stages.append(nn.Sequential(*blocks))
    classifier = nn.Linear(channels, num_classes)
    return Staged(conv_norm(in_channels, stem, 3), stages, classifier, initialize=initialize)


def cifar_resnet(
    num_classes: Count, *, in_channels: Count = 3, depth: Count = 20, stem: Count = 16, width: Count = 16
) -> Staged:
    """Return the 6n+2 network of the CIFAR experiments.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        depth: Layers with weights, 6n+2.
        stem: Channels of the stem.
        width: Channels of the first stage; the others have two and four times as many.
    """
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"The depth of a CIFAR ResNet is 6n+2 (8, 14, 20, ...), not {depth}")
    blocks = (depth - 2) // 6
    return residual_network(
        num_classes,
        in_channels=in_channels,
        stem=stem,
        widths=(width, 2 * width, 4 * width),
        depths=(blocks, blocks, blocks),
    )


def resnet_by_stage(
    num_classes: Count,
    *,
    in_channels: Count = 3,
    stage1: Count = 3,
    stage2: Count = 3,
    stage3: Count = 3,
    stem: Count = 16,
    width: Count = 16,
) -> Staged:
    """Return a CIFAR ResNet whose stages may have different numbers of blocks; with n in each it is that of depth 6n+2.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        stage1: Blocks of the first stage.
        stage2: Blocks of the second stage.
        stage3: Blocks of the third stage.
        stem: Channels of the stem.
        width: Channels of the first stage; the others have two and four times as many.
    """
    return residual_network(
        num_classes,
        in_channels=in_channels,
        stem=stem,
        widths=(width, 2 * width, 4 * width),
        depths=(stage1, stage2, stage3),
    )


resnet8 = partial(cifar_resnet, depth=8)
resnet14 = partial(cifar_resnet, depth=14)
resnet20 = partial(cifar_resnet, depth=20)
resnet32 = partial(cifar_resnet, depth=32)
resnet44 = partial(cifar_resnet, depth=44)
resnet56 = partial(cifar_resnet, depth=56)
resnet110 = partial(cifar_resnet, depth=110)
resnet8x4 = partial(cifar_resnet, depth=8, stem=32, width=64)
resnet32x4 = partial(cifar_resnet, depth=32, stem=32, width=64)


def wide_stem_resnet(num_classes: Count, *, in_channels: Count = 3, depth: Count = 18, kaiming: bool = True) -> Staged:
    """Return an ImageNet residual network for small images: 3x3 stem of stride 1, no max-pool.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        depth: 18 (basic blocks), 50 or 101 (bottlenecks).
        kaiming: Whether convolutions start Kaiming-normal over their outputs, or as PyTorch does.
    """
    depths = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
    if depth not in depths:
        raise UserError(f"The depth of this ResNet is one of {', '.join(map(str, depths))}, not {depth}")
    return residual_network(
        num_classes,
        in_channels=in_channels,
        block=basic if depth == 18 else bottleneck,
        expansion=1 if depth == 18 else 4,
        stem=64,
        widths=(64, 128, 256, 512),
        depths=depths[depth],
        initialize=kaiming_fan_out if kaiming else None,
    )


resnet50_cifar = partial(wide_stem_resnet, depth=50)
tfkd_resnet18 = partial(wide_stem_resnet, depth=18, kaiming=False)
tfkd_resnet50 = partial(wide_stem_resnet, depth=50, kaiming=False)
tfkd_resnet101 = partial(wide_stem_resnet, depth=101, kaiming=False)
