"""DenseNet-121 (Huang et al. 2017) for small images, as in the Tf-KD paper.

Facts: 3x3 stem, blocks of 6/12/24/16 layers, growth 32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.models.zoo.staged import Staged
from tutelage.system.values import Count


class DenseLayer(nn.Module):
    """Append `growth` channels, computed from all channels so far."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            # The bottleneck of DenseNet-B: a 1x1 convolution to 4 k channels before the 3x3, where k is the growth.
            nn.Conv2d(in_channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the input with the new channels behind it."""
        return torch.cat([inputs, self.body(inputs)], dim=1)


def tfkd_densenet121(
    num_classes: Count, *, in_channels: Count = 3, growth: Count = 32, depths: Sequence[Count] = (6, 12, 24, 16)
) -> Staged:
    """Return the DenseNet of the Tf-KD paper.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        growth: Channels that each layer appends.
        depths: Layers of each dense block; a transition halves channels and map between blocks.
    """
    channels = 2 * growth
    stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    stages = []
    for number, depth in enumerate(depths):
        layers: list[nn.Module] = []
        # A transition stands at the beginning of a stage, so that a stage ends with its last dense layer.
        if number:
            # The compression of DenseNet-C, with the paper's factor of one half.
            half = channels // 2
            convolution = nn.Conv2d(channels, half, 1, bias=False)
            layers += [nn.BatchNorm2d(channels), convolution, nn.AvgPool2d(2)]
            channels = half
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        stages.append(nn.Sequential(*layers))
    tail = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
    return Staged(stem, stages, nn.Linear(channels, num_classes), tail=tail)
