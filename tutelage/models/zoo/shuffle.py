"""ShuffleNet V1 (Zhang et al. 2018, three groups) and V2 (Ma et al. 2018, x1) for small images.

Facts: stems of stride 1 with 24 channels; V1 has a ReLU after its depthwise batch norm; V2 has a 1x1 convolution to
1024 channels between the last map and the classifier. Tf-KD's V2 has a 3x3 stem without activation, biases in all
convolutions, and squeezes at the end of a down-sampling branch where the other does at its start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from tutelage.models.zoo.staged import Staged
from tutelage.models.zoo.units import conv_norm
from tutelage.system.values import Count


class ChannelShuffle(nn.Module):
    """Deal the channels of each group round to all groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the map with its channels in the new order."""
        batch, _, height, width = inputs.shape
        grouped = inputs.reshape(batch, self.groups, -1, height, width)
        return grouped.transpose(1, 2).flatten(1, 2)


class GroupedUnit(nn.Module):
    """V1's unit: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; stride 2 appends to the pooled input."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, first_groups: int, groups: int) -> None:
        super().__init__()
        # A unit of stride 2 appends to its pooled input, so its body makes only the other channels.
        added = out_channels - in_channels if stride == 2 else out_channels
        inner = added // 4
        self.body = nn.Sequential(
            conv_norm(in_channels, inner, 1, groups=first_groups),
            ChannelShuffle(first_groups),
            conv_norm(inner, inner, 3, stride=stride, groups=inner),
            conv_norm(inner, added, 1, groups=groups, activation=None),
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the unit's map."""
        outputs: Tensor = self.body(inputs)
        return relu(inputs + outputs if self.pool is None else torch.cat([outputs, self.pool(inputs)], dim=1))


def shufflev1(num_classes: Count, *, in_channels: Count = 3, groups: Count = 3) -> Staged:
    """Return ShuffleNet V1.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        groups: Groups of the 1x1 convolutions. The widths are those of the paper for three groups.
    """
    channels, stages = 24, []
    for width, depth in ((240, 4), (480, 8), (960, 4)):
        units = []
        for position in range(depth):
            # As in the paper, the very first 1x1 convolution has no groups: its 24 input channels are too few.
            first = 1 if channels == 24 else groups
            units.append(GroupedUnit(channels, width, stride=1 if position else 2, first_groups=first, groups=groups))
            channels = width
        stages.append(nn.Sequential(*units))
    return Staged(conv_norm(in_channels, 24, 1), stages, nn.Linear(channels, num_classes))


class SplitUnit(nn.Module):
    """V2's unit: one half of the channels passes, the other is filtered, then both are shuffled."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        half = channels // 2
        self.body = filtering_branch(half, half, half, stride=1, bias=bias)
        self.shuffle = ChannelShuffle(2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the unit's map."""
        kept, filtered = inputs.chunk(2, dim=1)
        outputs: Tensor = self.shuffle(torch.cat([kept, self.body(filtered)], dim=1))
        return outputs


class DownUnit(nn.Module):
    """V2's unit of stride 2: both branches see all channels and each gives half of the output's."""

    def __init__(self, in_channels: int, out_channels: int, *, inner: int, bias: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.left = nn.Sequential(
            conv_norm(in_channels, in_channels, 3, stride=2, groups=in_channels, bias=bias, activation=None),
            conv_norm(in_channels, half, 1, bias=bias),
        )
        self.right = filtering_branch(in_channels, inner, half, stride=2, bias=bias)
        self.shuffle = ChannelShuffle(2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the unit's map."""
        outputs: Tensor = self.shuffle(torch.cat([self.left(inputs), self.right(inputs)], dim=1))
        return outputs


def filtering_branch(in_channels: int, inner: int, out_channels: int, *, stride: int, bias: bool) -> nn.Sequential:
    """Return V2's branch: 1x1, depthwise 3x3 without activation, 1x1."""
    return nn.Sequential(
        conv_norm(in_channels, inner, 1, bias=bias),
        conv_norm(inner, inner, 3, stride=stride, groups=inner, bias=bias, activation=None),
        conv_norm(inner, out_channels, 1, bias=bias),
    )


def _split_network(num_classes: int, stem: nn.Module, *, squeeze_first: bool, bias: bool) -> Staged:
    channels, stages = 24, []
    for width, depth in ((116, 3), (232, 7), (464, 3)):
        down = DownUnit(channels, width, inner=width // 2 if squeeze_first else channels, bias=bias)
        # The unit of stride 2 comes first and is not counted in the depth.
        stages.append(nn.Sequential(down, *(SplitUnit(width, bias=bias) for _ in range(depth))))
        channels = width
    return Staged(stem, stages, nn.Linear(1024, num_classes), tail=conv_norm(channels, 1024, 1, bias=bias))


def shufflev2(num_classes: Count, *, in_channels: Count = 3) -> Staged:
    """Return the ShuffleNet V2 of the distillation tables.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
    """
    return _split_network(num_classes, conv_norm(in_channels, 24, 1), squeeze_first=True, bias=False)


def tfkd_shufflenetv2(num_classes: Count, *, in_channels: Count = 3) -> Staged:
    """Return the ShuffleNet V2 of the Tf-KD paper.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
    """
    stem = conv_norm(in_channels, 24, 3, bias=True, activation=None)
    return _split_network(num_classes, stem, squeeze_first=False, bias=True)
