"""The number of multiply-adds as a score."""

from __future__ import annotations

from tutelage.searching.candidate import Candidate
from tutelage.searching.scoring import Score, register_score


@register_score("multiply-adds")
class MultiplyAdds(Score):
    """Counts the multiplications, each with its addition, of a network's answer to one sample."""

    def __init__(self) -> None:
        super().__init__({"multiply_adds": 1.0})

    def terms(self, candidate: Candidate) -> dict[str, float]:
        """Return the number of multiply-adds."""
        return {"multiply_adds": float(candidate.multiply_adds)}
