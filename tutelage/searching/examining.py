"""What is done with each candidate: it is built, measured, compared with the limits, and scored."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.models.copies import sized
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalization
from tutelage.models.spec import NetworkSpec
from tutelage.models.user_code import told
from tutelage.searching.candidate import Candidate
from tutelage.searching.limits import Limits
from tutelage.searching.scoring import Score
from tutelage.system.chance import starting_at
from tutelage.system.digests import seed_of

Outcome = Literal["scored", "over the limits", "not built", "not comparable"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a candidate.

    Attributes:
        network: Its spec.
        outcome: Whether it was scored, or why not.
        reason: Why it was not scored, in words; empty if it was.
        score: Its score; None if it has none.
        terms: The terms of the score, by name.
        parameters: Its parameters; None if it was not built.
        multiply_adds: Its multiply-adds for one sample; None if no limit asked for them, because counting takes a pass.
        seconds: How long all of this took.
        passes: How much of that the score took, which is mostly passes over the batch.
    """

    network: str
    outcome: Outcome
    reason: str = ""
    score: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)
    parameters: int | None = None
    multiply_adds: int | None = None
    seconds: float = 0.0
    passes: float = 0.0

    @property
    def value(self) -> float:
        """Its score, for comparison; that of a candidate without one is below all others."""
        return -math.inf if self.score is None else self.score


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """Examines candidates, each in the same way, in this process or in another.

    Attributes:
        scores: The score, once for each draw of the weights, each of which has learned from the teacher's draw.
        batch: The batch.
        limits: The limits.
        num_classes: Classes of the data.
        in_channels: Channels of the data.
        statistics: Input statistics of the data; None for inputs that are not images.
        seed: Seed of the candidates' weights.
        device: Where they run; the batch is there already.
    """

    scores: tuple[Score, ...]
    batch: Batch
    limits: Limits
    num_classes: int
    in_channels: int
    statistics: Normalization | None
    seed: int
    device: str = "cpu"

    def examine(self, spec: NetworkSpec) -> Result:
        """Return what becomes of a candidate.

        Args:
            spec: The network.
        """
        began = time.perf_counter()
        found: dict[str, Any] = {"network": str(spec)}
        try:
            candidate = self._candidate(spec, 0)
        except UserError as error:
            return Result(**found, outcome="not built", reason=str(error), seconds=time.perf_counter() - began)
        found["parameters"] = candidate.parameters
        broken = self.limits.broken_by(candidate)
        if "multiply_adds" in self.limits.ranges:
            found["multiply_adds"] = candidate.multiply_adds
        if broken is not None:
            return Result(**found, outcome="over the limits", reason=broken, seconds=time.perf_counter() - began)
        passed = time.perf_counter()
        try:
            found["terms"] = self._terms(spec, candidate)
        except UserError as error:
            return Result(**found, outcome="not comparable", reason=str(error), seconds=time.perf_counter() - began)
        now = time.perf_counter()
        found |= {"seconds": now - began, "passes": now - passed}
        total = self.scores[0].total(found["terms"])
        if not math.isfinite(total):
            # Such as activations that overflow in a very deep network without normalisation.
            return Result(**found | {"terms": {}}, outcome="not comparable", reason="its score is not a finite number")
        return Result(**found, outcome="scored", score=total)

    def multiply_adds(self, spec: NetworkSpec) -> int:
        """Return the multiply-adds of a candidate for one sample.

        Args:
            spec: The network.
        """
        return self._candidate(spec, 0).multiply_adds

    def _terms(self, spec: NetworkSpec, first: Candidate) -> dict[str, float]:
        """Return the mean of each term over the draws of the weights."""
        drawn = [
            score.terms(first if draw == 0 else self._candidate(spec, draw)) for draw, score in enumerate(self.scores)
        ]
        return {name: sum(terms[name] for terms in drawn) / len(drawn) for name in drawn[0]}

    def _candidate(self, spec: NetworkSpec, draw: int) -> Candidate:
        with starting_at(seed_of(self.seed, f"candidate/{draw}")):
            network: nn.Module = load_network(
                spec, num_classes=self.num_classes, in_channels=self.in_channels, normalization=self.statistics
            )
            # Before it moves, so that a seed means the same weights everywhere.
            network = sized(network.cpu(), self.batch.to("cpu").inputs).to(self.device)
        try:
            return Candidate.of(network, self.batch)
        except UserError:
            raise
        except Exception as error:
            # A network of a user, or an unlucky option, may fail on its first inputs with an error of any class.
            raise UserError(f"it cannot take the data's inputs: {told(error)}") from error
