"""Branches: the layers between a map inside a network and an exit's own classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from torch import Tensor, nn

from tutelage.features.maps import resize
from tutelage.features.padding import mean_over_places, through
from tutelage.models.zoo.resnet import Residual
from tutelage.models.zoo.staged import kaiming_fan_out
from tutelage.models.zoo.units import conv_norm

Kind = Literal["bottleneck", "residual"]
Size = tuple[int, int, int]

# Residual networks with more channels than this at their end are made of bottleneck blocks.
_WIDEST_BASIC = 512


class Answer(NamedTuple):
    """An exit's answer: its logits `[batch, class]`, and the input of its classifier, `[batch, channel]`."""

    logits: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class BranchPlan:
    """The facts from which a branch is built.

    Attributes:
        kind: `bottleneck` or `residual`; see the functions with these names.
        path: Channels, height and width of the map that it reads, and of the end of each later stage.
        width: Channels of its embedding.
        relu: Whether the branch ends in a ReLU.
        num_classes: Number of classes.
        separable: Whether its convolutions over several places work on one channel each, with a 1x1 convolution after
            them. In a network of separable convolutions, a dense branch would cost more than the later stages.
    """

    kind: Kind
    path: tuple[Size, ...]
    width: int
    relu: bool
    num_classes: int
    separable: bool = False


class Branch(nn.Module):
    """A body of layers, the mean of its map over the places, and a classifier of that mean.

    Args:
        plan: The facts from which it is built.
    """

    def __init__(self, plan: BranchPlan) -> None:
        super().__init__()
        # The plan is plain data: a saved exit is built from it again.
        build = bottleneck if plan.kind == "bottleneck" else residual
        self.body = build(plan.path, plan.width, relu=plan.relu, separable=plan.separable)
        self.classifier = nn.Linear(plan.width, plan.num_classes)
        self.body.apply(kaiming_fan_out)

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Answer:
        """Return the answer to a map `[batch, channel, height, width]`.

        Args:
            maps: The map.
            mask: Its places that are not padding, `[batch, 1, height, width]`.

        Raises:
            UserError: If there is padding, and the branch changes the size of the map.
        """
        embedding = mean_over_places(through(self.body, maps, mask), mask)
        return Answer(self.classifier(embedding), embedding)


def bottleneck(path: Sequence[Size], width: int, *, relu: bool, separable: bool = False) -> nn.Sequential:
    """Return BYOT's branch: a 1x1 convolution, one whose kernel is as large as its stride, and a 1x1 convolution.

    The second convolution brings the map to the size of the deepest one. If the sizes do not divide, the map is first
    pooled to the nearest multiple. All three have a bias, as in the released code.

    Args:
        path: Channels, height and width of the map that it reads, and of the end of each later stage.
        width: Channels at the end; a quarter of them inside.
        relu: Whether it ends in a ReLU.
        separable: Whether the branch's large convolutions work on one channel each, followed by a 1x1 convolution.
    """
    (channels, *size), (_, *deepest) = path[0], path[-1]
    # As large as its stride, so that each place of the map is read once.
    kernel = (max(1, size[0] // deepest[0]), max(1, size[1] // deepest[1]))
    # The stride must divide the size; a map that is smaller than the deepest one keeps its own size.
    multiple = (kernel[0] * min(size[0], deepest[0]), kernel[1] * min(size[1], deepest[1]))
    inner = max(1, width // 4)
    layers: list[nn.Module] = [] if tuple(size) == multiple else [_Resized(multiple)]
    layers += [nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner), nn.ReLU()]
    layers += [nn.Conv2d(inner, inner, kernel, stride=kernel, groups=inner if separable else 1)]
    layers += [nn.BatchNorm2d(inner), nn.ReLU()]
    layers += [nn.Conv2d(inner, width, 1), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def residual(path: Sequence[Size], width: int, *, relu: bool, separable: bool = False) -> nn.Sequential:
    """Return MSD's branch: for each later stage one residual block with its channels and its stride.

    The blocks are those of a ResNet: two 3x3 convolutions, or a bottleneck where the last stage has more than 512
    channels. If no stride leads from one size to the next, the map is pooled first. A 1x1 convolution follows if the
    embedding has another width than the last stage, or may be negative.

    Args:
        path: Channels, height and width of the map that it reads, and of the end of each later stage.
        width: Channels at the end.
        relu: Whether it ends in a ReLU.
        separable: Whether the branch's large convolutions work on one channel each, followed by a 1x1 convolution.
    """
    layers: list[nn.Module] = []
    for (before, *size), (after, *target) in pairwise(path):
        stride = _stride(size, target)
        if stride is None:
            layers.append(_Resized((target[0], target[1])))
        # By the width of the last stage, so that all blocks of a branch are of one kind.
        block = _bottleneck_block if path[-1][0] > _WIDEST_BASIC else _basic_block
        layers.append(Residual(block(before, after, stride or 1, separable), before, after, stride or 1))
    if not layers or path[-1][0] != width or not relu:
        layers.append(conv_norm(path[-1][0], width, 1, activation=nn.ReLU if relu else None))
    return nn.Sequential(*layers)


class _Resized(nn.Module):
    """Resizes maps to one size."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps at that size, pooled where they are larger."""
        return resize(maps, self.size)


def _stride(size: Sequence[int], target: Sequence[int]) -> int | None:
    """Return the stride of a padded convolution that leads from one size to another; None if there is none."""
    # A padded convolution leaves the side divided by the stride, rounded up.
    strides = range(1, max(size) + 1)
    return next((s for s in strides if [math.ceil(side / s) for side in size] == list(target)), None)


def _basic_block(before: int, after: int, stride: int, separable: bool) -> nn.Sequential:
    if not separable:
        return nn.Sequential(conv_norm(before, after, 3, stride=stride), conv_norm(after, after, 3, activation=None))
    return nn.Sequential(
        *(conv_norm(before, before, 3, stride=stride, groups=before), conv_norm(before, after, 1)),
        *(conv_norm(after, after, 3, groups=after), conv_norm(after, after, 1, activation=None)),
    )


def _bottleneck_block(before: int, after: int, stride: int, separable: bool) -> nn.Sequential:
    inner = max(1, after // 4)
    return nn.Sequential(
        conv_norm(before, inner, 1),
        conv_norm(inner, inner, 3, stride=stride, groups=inner if separable else 1),
        conv_norm(inner, after, 1, activation=None),
    )
