"""The number of parameters as a score."""

from __future__ import annotations

from tutelage.searching.candidate import Candidate
from tutelage.searching.scoring import Score, register_score


@register_score("parameters")
class Parameters(Score):
    """Counts the parameters of a network: the baseline that every other score must beat."""

    def __init__(self) -> None:
        super().__init__({"parameters": 1.0})

    def terms(self, candidate: Candidate) -> dict[str, float]:
        """Return the number of parameters."""
        return {"parameters": float(candidate.parameters)}
