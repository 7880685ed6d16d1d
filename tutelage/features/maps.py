"""Features as maps: outputs of any layer as `[batch, channel, height, width]`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import UserError
from tutelage.features.padding import padded

# A vision transformer puts a class token and up to four registers before its patches; some add one more.
_MOST_PREFIX_TOKENS = 8


@dataclass(frozen=True)
class MapLayout:
    """How a layer's output is laid out. This decides how it becomes a map.

    Attributes:
        kind: `map` is `[batch, channel, height, width]`; `channels-last` has the channels last; `tokens` is
            `[batch, token, channel]`; `vector` is `[batch, channel]`, a map of one place.
        prefix: Number of tokens before the patches: class token and registers, which have no place on the map.
        aspect: Height over width of the grid of tokens; None for a sequence, which becomes one row.
    """

    kind: Literal["map", "channels-last", "tokens", "vector"]
    prefix: int = 0
    aspect: float | None = None

    @classmethod
    def of(cls, shape: Sequence[int], image_size: tuple[int, int] | None) -> MapLayout:
        """Return the layout of an output.

        Args:
            shape: Its shape, batch first.
            image_size: Height and width of the images it comes from; None if the inputs are not images.

        Raises:
            UserError: If it is neither a map nor tokens nor a vector.
        """
        aspect = None if image_size is None else image_size[0] / image_size[1]
        match len(shape):
            case 2:
                return cls("vector")
            case 3:
                return cls("tokens", 0 if aspect is None else _prefix(shape[1], aspect), aspect)
            case 4:
                _, one, two, three = shape
                # Height and width are the two neighbours whose ratio is nearer to the image's. A tie counts as channels
                # first, the usual order.
                behind = aspect is not None and _misfit(one, two, aspect) < _misfit(two, three, aspect)
                return cls("channels-last" if behind else "map")
        raise UserError(f"An output of shape {list(shape)} is neither a map, nor tokens, nor a vector per sample.")

    def to_map(self, feature: Tensor) -> Tensor:
        """Return the output as a map `[batch, channel, height, width]`, without a copy where that is possible."""
        match self.kind:
            case "map":
                return feature
            case "channels-last":
                return feature.permute(0, 3, 1, 2)
            case "vector":
                return feature[:, :, None, None]
        places = feature[:, self.prefix :]
        height = 1 if self.aspect is None else _grid(places.shape[1], self.aspect)
        batch, tokens, channels = places.shape
        return places.transpose(1, 2).reshape(batch, channels, height, tokens // height)

    def mask(self, feature: Tensor, valid: Tensor | None) -> Tensor | None:
        """Return which places of the map are not padding, `[batch, 1, height, width]`; None if no place is padding.

        Args:
            feature: The output.
            valid: Which tokens of the inputs are not padding, `[batch, token]`; None if no token is padding.

        Raises:
            UserError: If the output has places, but not one for each token.
        """
        if valid is None or self.kind == "vector":
            return None
        if self.kind != "tokens" or valid.shape != feature.shape[:2]:
            raise padded(
                f"an output of shape {list(feature.shape)} does not have one place for each token of a mask "
                f"{list(valid.shape)}"
            )
        # Masks of tokenizers are whole numbers.
        return (valid != 0)[:, None, None, :]


def pool_to_smaller(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return two maps at the smaller height and the smaller width of the two, by average pooling.

    Args:
        one: `[batch, channel, height, width]`.
        other: `[batch, channel, height, width]`, with its own sizes.
    """
    size = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return resize(one, size), resize(other, size)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps at a size: pooled by their mean where they are larger, interpolated where they are smaller.

    Args:
        maps: `[batch, channel, height, width]`.
        size: Height and width.
    """
    pooled = (min(size[0], maps.shape[2]), min(size[1], maps.shape[3]))
    # Pooled first: interpolation to a smaller size would skip places.
    if tuple(maps.shape[2:]) != pooled:
        maps = F.adaptive_avg_pool2d(maps, pooled)
    return maps if pooled == size else F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _prefix(tokens: int, aspect: float) -> int:
    """Return the number of tokens before the patches: the smallest whose rest fits the image's aspect best."""
    prefixes = range(min(_MOST_PREFIX_TOKENS, tokens - 1) + 1)
    # Rounded, so that nearly equal fits count as equal and the smaller prefix wins.
    return min(prefixes, key=lambda prefix: (round(_best(tokens - prefix, aspect)[0], 3), prefix))


# Asked for in every forward pass, and the factors of a number of tokens do not change.
@cache
def _grid(places: int, aspect: float) -> int:
    """Return the height of the grid."""
    return _best(places, aspect)[1]


def _best(places: int, aspect: float) -> tuple[float, int]:
    heights = (height for height in range(1, places + 1) if places % height == 0)
    return min((_misfit(height, places // height, aspect), height) for height in heights)


def _misfit(height: int, width: int, aspect: float) -> float:
    # A logarithm, so that twice too tall and twice too wide count the same.
    return abs(math.log(height / width / aspect))
