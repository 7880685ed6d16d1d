"""Exits that answer from a map or from tokens, and are thrown away after the training."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.core.pairing import AUTO, taps
from tutelage.features.anatomy import Tap
from tutelage.features.order import is_stem
from tutelage.features.padding import mean_over_places
from tutelage.features.trace import Trace

# Tokens are merged as long as this many are left on each side of their grid.
_GRID = 7
_HEADS = 4


def places(found: Sequence[Tap], trace: Trace, exits: str) -> tuple[Tap, ...]:
    """Return the layers behind which the exits are, from the first to the last.

    Args:
        found: The ends of the student's stages.
        trace: The student's trace.
        exits: `auto`, or layers by name, joined by `+`.

    Raises:
        UserError: If a layer does not exist, or cannot be a map.
    """
    if exits == AUTO:
        # The first resolution may be the stem's, which has not computed anything yet that could be classified.
        return tuple(tap for tap in found if not is_stem(trace, tap.layer)) or tuple(found[-1:])
    names = [name.strip() for name in re.split(r"[+,]", exits)]
    named = taps(trace.model, names, trace, who="student").values()
    return tuple(sorted(named, key=lambda tap: trace.when(tap.layer)))


def exit_behind(tap: Tap, later: int, width: int, num_classes: int) -> nn.Module:
    """Return the exit behind a layer.

    Args:
        tap: The layer.
        later: How many stages end behind it.
        width: Channels that the classifier of a map reads.
        num_classes: Number of classes.
    """
    if tap.layout.kind == "tokens":
        return TokenExit(tap, later, num_classes)
    return MapExit(tap, later, width, num_classes)


class MapExit(nn.Module):
    """Separable convolutions at stride 2, the mean over the places, and a classifier.

    Args:
        tap: The layer, whose output is a map or a vector.
        later: How many stages end behind it, each of which takes one block.
        width: Channels that the classifier reads.
        num_classes: Number of classes.
    """

    def __init__(self, tap: Tap, later: int, width: int, num_classes: int) -> None:
        super().__init__()
        self._tap = tap
        # Channels double with each block, and the last block brings them to the width of the classifier.
        widths = [*(tap.channels * 2**step for step in range(max(1, later))), width]
        last = [nn.Conv2d(tap.channels, width, 1)] if later == 0 else []
        self.body = nn.Sequential(*(separable(*widths[step : step + 2]) for step in range(later)), *last)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, feature: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits `[batch, class]`.

        Args:
            feature: The layer's output.
            mask: None; padded inputs have no maps.
        """
        logits: Tensor = self.classifier(self.body(self._tap.layout.to_map(feature)).mean((2, 3)))
        return logits


class TokenExit(nn.Module):
    """Merged tokens, transformer blocks, and a classifier of the class token or of the mean.

    Args:
        tap: The layer, whose output is tokens.
        later: How many stages end behind it, each of which takes one block.
        num_classes: Number of classes.
    """

    def __init__(self, tap: Tap, later: int, num_classes: int) -> None:
        super().__init__()
        self._tap, channels = tap, tap.channels
        self.merging = nn.Sequential(*(Merging(channels) for _ in range(mergings(tap.size))))
        # Any width must divide into heads.
        heads = math.gcd(channels, _HEADS)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                channels, heads, 4 * channels, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(max(1, later))
        )
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, feature: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits `[batch, class]`.

        Args:
            feature: The layer's output, `[batch, token, channel]`.
            mask: Which tokens are not padding, `[batch, 1, 1, token]`.
        """
        # Class token and registers have no place in the grid, and so are not merged.
        first = feature[:, : self._tap.layout.prefix]
        grid = self.merging(self._tap.layout.to_map(feature))
        tokens = torch.cat([first, grid.flatten(2).transpose(1, 2)], 1)
        padding = None if mask is None else ~mask.flatten(1)
        for block in self.blocks:
            tokens = block(tokens, src_key_padding_mask=padding)
        # The class token comes first; where there is none, the mean over the tokens is read.
        read = tokens[:, 0] if first.shape[1] else mean_over_places(tokens.transpose(1, 2)[:, :, None], mask)
        logits: Tensor = self.classifier(read)
        return logits


class Merging(nn.Module):
    """Makes one token of each 2x2: side by side, normalised, and brought back to their width.

    Args:
        channels: Channels of a token.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(4 * channels), nn.Linear(4 * channels, channels, bias=False), nn.GELU()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return `[batch, channel, height / 2, width / 2]`."""
        # `pixel_unshuffle` puts the four neighbours side by side as channels.
        merged: Tensor = self.layers(nn.functional.pixel_unshuffle(maps, 2).movedim(1, 3))
        return merged.movedim(3, 1)


def mergings(size: tuple[int, int]) -> int:
    """Return how often 2x2 tokens are merged: while both sides are even, and keep seven tokens or more."""
    count = 0
    while all(side % 2 ** (count + 1) == 0 and side // 2 ** (count + 1) >= _GRID for side in size):
        count += 1
    return count


def separable(channels: int, wider: int) -> nn.Sequential:
    """Return two separable convolutions; the first halves height and width.

    Args:
        channels: Channels of the map.
        wider: Channels at the end.
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False),
        nn.Conv2d(channels, wider, 1, bias=False),
        nn.BatchNorm2d(wider),
        nn.ReLU(),
    )
