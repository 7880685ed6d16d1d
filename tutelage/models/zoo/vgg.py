"""VGG networks with batch norm and a single linear classifier (Simonyan and Zisserman 2015, as used for CIFAR).

Facts: five blocks of 64/128/256/512/512 channels; 2x2 max-pools after the first three, and a fourth only for images of
64 pixels and more. Maps are read before the pool, after the block's last ReLU.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from tutelage.models.zoo.staged import Staged, kaiming_fan_out
from tutelage.models.zoo.units import conv_norm
from tutelage.system.values import Count


class PoolLargeMaps(nn.Module):
    """A 2x2 max-pool that acts only on maps of at least 8x8, which only large images have at this depth."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the map, halved if it is large."""
        return max_pool2d(inputs, 2) if min(inputs.shape[-2:]) >= 8 else inputs


Depths = tuple[Count, Count, Count, Count, Count]


def vgg(num_classes: Count, *, in_channels: Count = 3, depths: Depths = (1, 1, 1, 1, 1)) -> Staged:
    """Return a VGG network.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        depths: Convolutions of each of the five blocks.
    """
    # Each pool opens a block rather than closes one, so that maps are read before the pool.
    pools = (None, nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(2), PoolLargeMaps())
    channels, blocks = in_channels, []
    for pool, width, depth in zip(pools, (64, 128, 256, 512, 512), depths, strict=True):
        layers: list[nn.Module] = [] if pool is None else [pool]
        for _ in range(depth):
            # The bias is redundant before batch norm, but VGG networks have it.
            layers.append(conv_norm(channels, width, 3, bias=True))
            channels = width
        blocks.append(nn.Sequential(*layers))
    return Staged(blocks[0], blocks[1:], nn.Linear(channels, num_classes), initialize=kaiming_fan_out)


vgg8 = partial(vgg, depths=(1, 1, 1, 1, 1))
vgg11 = partial(vgg, depths=(1, 1, 2, 2, 2))
vgg13 = partial(vgg, depths=(2, 2, 2, 2, 2))
vgg16 = partial(vgg, depths=(2, 2, 3, 3, 3))
vgg19 = partial(vgg, depths=(2, 2, 4, 4, 4))
