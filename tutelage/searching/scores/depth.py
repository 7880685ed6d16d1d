"""The number of layers as a score."""

from __future__ import annotations

from torch import nn

from tutelage.searching.candidate import Candidate
from tutelage.searching.scoring import Score, register_score


@register_score("depth")
class Depth(Score):
    """Counts the convolutions and linear layers of a network, those of its shortcuts included."""

    def __init__(self) -> None:
        super().__init__({"layers": 1.0})

    def terms(self, candidate: Candidate) -> dict[str, float]:
        """Return the number of layers."""
        kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
        return {"layers": float(sum(isinstance(layer, kinds) for layer in candidate.network.modules()))}
