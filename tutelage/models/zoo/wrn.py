"""Wide residual networks (Zagoruyko and Komodakis 2016), depth 6n+4, pre-activation.

Facts: the stem has neither batch norm nor ReLU; maps are read raw, before batch norm, and may be strongly negative; the
projection shortcut is a 1x1 convolution of the activated input; batch norm and ReLU follow the last map, so the
classifier does not see the pooled last map.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from tutelage.errors import UserError
from tutelage.models.zoo.staged import Staged, kaiming_fan_out
from tutelage.system.values import Count, Share


class PreactivationBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, with dropout between them if wanted, plus the input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        same = stride == 1 and in_channels == out_channels
        self.projection = None if same else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the block's raw map."""
        # The projection reads the activated input, the identity shortcut the raw one.
        active = relu(self.norm1(inputs))
        shortcut: Tensor = inputs if self.projection is None else self.projection(active)
        residual: Tensor = self.conv2(self.dropout(relu(self.norm2(self.conv1(active)))))
        return shortcut + residual


def wrn(
    num_classes: Count, *, in_channels: Count = 3, depth: Count = 16, widen: Count = 1, dropout: Share = 0.0
) -> Staged:
    """Return a wide residual network.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        depth: Layers with weights, 6n+4.
        widen: Factor on the stages' 16/32/64 channels.
        dropout: Probability that an element between the two convolutions of a block is dropped, from 0 to below 1.
    """
    if depth < 10 or (depth - 4) % 6:
        raise UserError(f"The depth of a wide ResNet is 6n+4 (10, 16, 22, ...), not {depth}")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout={dropout} must be from 0 (none) to below 1.")
    channels, stages = 16, []
    for number, width in enumerate((16 * widen, 32 * widen, 64 * widen)):
        blocks = []
        for position in range((depth - 4) // 6):
            blocks.append(PreactivationBlock(channels, width, 2 if number and not position else 1, dropout))
            channels = width
        stages.append(nn.Sequential(*blocks))
    return Staged(
        nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
        stages,
        nn.Linear(channels, num_classes),
        tail=nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()),
        initialize=kaiming_fan_out,
    )


wrn_16_1 = partial(wrn, depth=16, widen=1)
wrn_16_2 = partial(wrn, depth=16, widen=2)
wrn_40_1 = partial(wrn, depth=40, widen=1)
wrn_40_2 = partial(wrn, depth=40, widen=2)
