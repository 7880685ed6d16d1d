"""Evolution: which networks of a space are examined, given what was found so far."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tutelage.searching.examining import Result
from tutelage.searching.space import Genes, Space

Examine = Callable[[Sequence[Genes]], Sequence[Result]]

# How often a new candidate is tried for by chance before the space counts as nearly exhausted.
_TRIES = 100
# Spaces up to this size are gone through in order once chance finds nothing new.
_SMALL = 10_000
# After so many candidates without a single score, or without a new one, the search ends.
PATIENCE = 200


@dataclass
class Evolution:
    """A population of the best networks so far, whose mutated children are examined next.

    The course depends on the seed and on the results alone, not on where or when a candidate is examined.

    Attributes:
        space: The space.
        chance: Where random numbers come from.
        candidates: How many networks are to be scored.
        population: How many of the best are parents.
        children: How many candidates are examined before the parents are chosen anew.
        mutations: The most options in which a child differs from its parent.
        results: What was found, in order.
    """

    space: Space
    chance: random.Random
    candidates: int
    population: int
    children: int
    mutations: int
    results: list[tuple[Genes, Result]] = field(default_factory=list)
    _seen: set[Genes] = field(default_factory=set)

    @property
    def scored(self) -> list[tuple[Genes, Result]]:
        """The candidates that have a score."""
        return [found for found in self.results if found[1].score is not None]

    def run(self, examine: Examine) -> None:
        """Examine candidates until enough are scored, none is left, or nothing new is found for long.

        Args:
            examine: Returns the results of some candidates, in order.
        """
        # The smallest network first: if even that is over the limits, others hardly are not.
        wanted: Sequence[Genes] = [self.space.smallest()]
        since = 0
        while wanted:
            self._seen.update(wanted)
            found = examine(wanted)
            self.results += zip(wanted, found, strict=True)
            since = 0 if any(each.score is not None for each in found) else since + len(found)
            missing = self.candidates - len(self.scored)
            if missing <= 0 or since >= PATIENCE:
                return
            wanted = self._next(min(self.children, missing))

    def _next(self, count: int) -> list[Genes]:
        """Return new candidates, fewer than asked for if the space has no more."""
        chosen: dict[Genes, None] = {}
        parents = self._parents()
        for _ in range(count):
            genes = self._new(parents, chosen)
            if genes is None:
                break
            chosen[genes] = None
        if len(chosen) < count and self.space.size <= _SMALL:
            left = (genes for genes in self.space.all() if genes not in self._seen and genes not in chosen)
            chosen |= dict.fromkeys(islice(left, count - len(chosen)))
        return list(chosen)

    def _parents(self) -> list[Genes]:
        # Sorting is stable, so that of equal scores the earlier one is first.
        best = sorted(self.scored, key=lambda found: -found[1].value)[: self.population]
        return [genes for genes, _ in best]

    def _new(self, parents: Sequence[Genes], chosen: dict[Genes, None]) -> Genes | None:
        """Return a candidate that was not examined: any one at first, then a child; None if chance finds none."""
        # While few meet the limits, every second one comes from those that do: they are near others.
        breeds = len(self.scored) >= self.population or (parents and self.chance.random() < 0.5)
        for attempt in range(_TRIES):
            if breeds and attempt < _TRIES // 2:
                genes = self.space.mutated(self.chance.choice(parents), self.chance, most=self.mutations)
            else:
                genes = self.space.any(self.chance)
            if genes not in self._seen and genes not in chosen:
                return genes
        return None
