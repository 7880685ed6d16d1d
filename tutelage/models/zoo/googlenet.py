"""GoogLeNet (Szegedy et al. 2015) with batch norm for small images, as in the Tf-KD paper.

Facts: each 5x5 convolution is two of 3x3; Dropout2d of 0.4 acts on the pooled map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.models.zoo.staged import Staged
from tutelage.models.zoo.units import conv_norm
from tutelage.system.values import Count

# One row per inception unit: 1x1 | 3x3 squeeze, 3x3 | 5x5 squeeze, 5x5 | pooled.
_STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class Inception(nn.Module):
    """Four branches of different reach, side by side."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, squeeze3, three, squeeze5, five, pooled = widths
        self.branches = nn.ModuleList(
            [
                conv_norm(in_channels, one, 1, bias=True),
                nn.Sequential(conv_norm(in_channels, squeeze3, 1, bias=True), conv_norm(squeeze3, three, 3, bias=True)),
                nn.Sequential(
                    conv_norm(in_channels, squeeze5, 1, bias=True),
                    conv_norm(squeeze5, five, 3, bias=True),
                    conv_norm(five, five, 3, bias=True),
                ),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_norm(in_channels, pooled, 1, bias=True)),
            ]
        )
        self.out_channels = one + three + five + pooled

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the branches' maps, one after the other."""
        return torch.cat([branch(inputs) for branch in self.branches], dim=1)


def tfkd_googlenet(num_classes: Count, *, in_channels: Count = 3) -> Staged:
    """Return the GoogLeNet of the Tf-KD paper.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
    """
    stem = conv_norm(in_channels, 192, 3, bias=True)
    channels, stages = 192, []
    for number, rows in enumerate(_STAGES):
        # A pool opens a stage, so that a stage ends with the last map of its size.
        layers: list[nn.Module] = [nn.MaxPool2d(3, stride=2, padding=1)] if number else []
        for widths in rows:
            unit = Inception(channels, widths)
            channels = unit.out_channels
            layers.append(unit)
        stages.append(nn.Sequential(*layers))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout2d(0.4))
    return Staged(stem, stages, nn.Linear(channels, num_classes), pool=pool)
