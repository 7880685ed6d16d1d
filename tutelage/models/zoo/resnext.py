"""ResNeXt-29 (Xie et al. 2017), 8 groups of 64 channels, as in the Tf-KD paper."""

from __future__ import annotations

from torch import nn

from tutelage.models.zoo.resnet import Residual
from tutelage.models.zoo.staged import Staged, kaiming_fan_out
from tutelage.models.zoo.units import conv_norm
from tutelage.system.values import Count


def grouped_bottleneck(in_channels: int, inner: int, out_channels: int, *, stride: int, groups: int) -> Residual:
    """Return the bottleneck whose 3x3 convolution works in groups."""
    body = nn.Sequential(
        conv_norm(in_channels, inner, 1),
        conv_norm(inner, inner, 3, stride=stride, groups=groups),
        conv_norm(inner, out_channels, 1, activation=None),
    )
    return Residual(body, in_channels, out_channels, stride)


def tfkd_resnext29(num_classes: Count, *, in_channels: Count = 3, groups: Count = 8, group_width: Count = 64) -> Staged:
    """Return the ResNeXt of the Tf-KD paper.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        groups: Groups of the 3x3 convolutions.
        group_width: Channels of a group in the first stage; doubled in each later one.
    """
    channels, stages = 64, []
    for number, width in enumerate((256, 512, 1024)):
        blocks = []
        for position in range(3):
            inner = groups * group_width * 2**number
            stride = 2 if number and not position else 1
            blocks.append(grouped_bottleneck(channels, inner, width, stride=stride, groups=groups))
            channels = width
        stages.append(nn.Sequential(*blocks))
    classifier = nn.Linear(channels, num_classes)
    return Staged(conv_norm(in_channels, 64, 3), stages, classifier, initialize=kaiming_fan_out)
