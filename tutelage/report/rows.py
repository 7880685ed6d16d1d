"""The rows of a comparison: what each method reached, and where it stands against the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from statistics import fmean
from typing import Any

from tutelage.errors import UserError
from tutelage.models.spec import NetworkSpec
from tutelage.report.measured import Measured, measured_of
from tutelage.report.reading import Comparison, block, number, numbers

# Names of plain training, for comparisons whose rows do not say whether they are plain.
FIRST_PLAIN = frozenset({"supervised", "plain"})
# What the names of training losses begin with in a run's history.
LOSS = "train/"


class Standing(Enum):
    """Where a row stands against the baseline, judged by its 95 % interval alone."""

    BASELINE = "baseline"
    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; `std` is absent when there is one seed."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A paired difference to the baseline's score, the row's minus the baseline's; no interval with one seed."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def standing(self, *, higher_is_better: bool) -> Standing:
        """Return the standing that the interval alone supports."""
        if self.low is None or self.high is None:
            return Standing.UNKNOWN
        # An interval that ends at zero does not claim a difference.
        if self.low <= 0 <= self.high:
            return Standing.SAME
        return Standing.BETTER if (self.low > 0) == higher_is_better else Standing.WORSE


@dataclass(frozen=True)
class Member:
    """A network of a row beside the deployed one: a peer, an exit, or several of them together.

    Attributes:
        network: Its architecture; None for a prediction without a network of its own.
    """

    name: str
    network: str | None
    parameters: float | None
    multiply_adds: float | None
    best: Mapping[str, Estimate]
    last: Mapping[str, Estimate]


@dataclass(frozen=True)
class Row:
    """One method with its options, summed up over its seeds; its numbers are the deployed network's.

    Attributes:
        reference: Label of the row that this one is compared with; rows that train another network have their own.
        is_primary: Whether this is the comparison's baseline.
        is_plain: Whether it is plain training on the targets.
        measured: How it is judged; the same for all rows.
        losses: The training losses of the deployed network in the last epoch, means over its runs.
        deployed: Which of its networks is the deployed one, where it has several.
        network: Architecture of the deployed network.
        members: Its other networks.
    """

    label: str
    method: str
    title: str
    command: str
    error: str | None
    reference: str | None
    is_primary: bool
    is_plain: bool
    measured: Measured
    parameters: float | None
    multiply_adds: float | None
    best: Mapping[str, Estimate]
    last: Mapping[str, Estimate]
    paired_best: Difference | None
    paired_last: Difference | None
    losses: Mapping[str, float]
    seconds: float | None
    relative_cost: float | None
    runs: tuple[Mapping[str, Any], ...]
    deployed: str | None
    network: str | None
    members: tuple[Member, ...]

    @property
    def score(self) -> Estimate | None:
        """What it reached at its best epoch, by the metric that rows are compared by."""
        return self.best.get(self.measured.score)

    @property
    def is_finished(self) -> bool:
        """Whether there is a result to show: its score, or, where nothing was measured, any run."""
        return self.score is not None or (not self.measured.split and bool(self.runs))

    @property
    def seeds(self) -> int:
        """How many seeds its numbers come from."""
        return self.score.n if self.score else len(self.runs)

    @property
    def is_baseline(self) -> bool:
        """Whether rows are compared with this one."""
        return self.is_primary or self.label == self.reference

    @property
    def standing(self) -> Standing:
        """Where it stands against the baseline."""
        if self.is_baseline:
            return Standing.BASELINE
        gap, metric = self.paired_best, self.measured.metric
        return gap.standing(higher_is_better=metric.higher_is_better) if gap else Standing.UNKNOWN

    @property
    def gain(self) -> float:
        """How much better than the baseline it is; above zero is better for every metric."""
        gap = self.paired_best.mean if self.paired_best else 0.0
        return gap if self.measured.metric.higher_is_better else -gap


def rows(comparison: Comparison) -> list[Row]:
    """Return the rows of a comparison: the baseline first, the others in the order they were asked for."""
    entries = [block(entry) for entry in comparison.get("rows") or []]
    baseline = _baseline_index(entries, comparison.get("baseline"))
    primary = None if baseline is None else str(entries[baseline].get("label"))
    measured = measured_of(comparison)
    read = [_row(entry, index == baseline, primary, measured) for index, entry in enumerate(entries)]
    # Sorting is stable, so the others keep their order.
    return sorted(read, key=lambda row: not row.is_primary)


def baseline_of(entries: Sequence[Row]) -> Row | None:
    """Return the comparison's baseline row when it is finished."""
    return next((row for row in entries if row.is_primary and row.is_finished), None)


def reference_of(row: Row, entries: Sequence[Row]) -> Row | None:
    """Return the row that a row is compared with, when it is another one and is finished."""
    return next(
        (other for other in entries if other.label == row.reference and other.is_finished and other != row), None
    )


def _baseline_index(entries: Sequence[Mapping[str, Any]], name: object) -> int | None:
    # By label first, because several rows may share a method.
    for key in ("label", "method"):
        for index, entry in enumerate(entries):
            if name is not None and entry.get(key) == name:
                return index
    return None


def _row(entry: Mapping[str, Any], is_primary: bool, primary: str | None, measured: Measured) -> Row:
    summary = block(entry.get("summary"))
    # A row is not compared with itself.
    paired = {} if is_primary else block(summary.get("paired"))
    method = str(entry.get("method") or "")
    label = str(entry.get("label") or method)
    error = entry.get("error")
    if not error and not entry.get("runs"):
        error = "no run finished"
    runs = tuple(block(run) for run in entry.get("runs") or [])
    return Row(
        label=label,
        method=method,
        title=str(entry.get("title") or label),
        command=str(entry.get("command") or ""),
        error=str(error) if error else None,
        reference=str(entry["baseline"]) if entry.get("baseline") else primary,
        is_primary=is_primary,
        is_plain=bool(entry.get("plain", method in FIRST_PLAIN)),
        measured=measured,
        parameters=number(entry.get("parameters")),
        multiply_adds=number(entry.get("multiply_adds")),
        best=_estimates(summary.get("best")),
        last=_estimates(summary.get("last")),
        paired_best=_difference(paired.get("best")),
        paired_last=_difference(paired.get("last")),
        losses=_losses(runs),
        seconds=number(block(summary.get("seconds")).get("mean")),
        relative_cost=number(summary.get("relative_cost")),
        runs=runs,
        deployed=_text(entry.get("deployed")),
        network=_network(entry.get("network")),
        members=_members(summary.get("members")),
    )


def _losses(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each loss in the last epoch; losses that bear the name of another network are left out."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for key, values in block(run.get("history")).items():
            name = str(key).removeprefix(LOSS)
            ended = numbers(values)[-1:]
            if str(key).startswith(LOSS) and "/" not in name and ended and isfinite(ended[0]):
                found.setdefault(name, []).append(ended[0])
    return {name: fmean(values) for name, values in found.items()}


def _members(value: object) -> tuple[Member, ...]:
    entries = value if isinstance(value, list) else []
    return tuple(
        Member(
            name=_text(entry.get("name")) or "unnamed",
            network=_network(entry.get("spec")),
            parameters=number(entry.get("parameters")),
            multiply_adds=number(entry.get("multiply_adds")),
            best=_estimates(entry.get("best")),
            last=_estimates(entry.get("last")),
        )
        for entry in map(block, entries)
    )


def _text(value: object) -> str | None:
    return str(value) if value else None


def _network(value: object) -> str | None:
    """Return the name of a network; one that was cut from another is called after it and the layer of the cut."""
    text = _text(value)
    # Only networks that were cut or extended here have such specs; other names are shown as they are.
    if text is None or not text.startswith("tutelage."):
        return text
    try:
        options = NetworkSpec.parse(text).options
    except UserError:
        return text
    names = [str(options[key]) for key in ("student", "layer") if key in options]
    return " up to ".join(names) or text


def _estimates(value: object) -> dict[str, Estimate]:
    found = {}
    for key, entry in block(value).items():
        mean = number(block(entry).get("mean"))
        if mean is not None:
            n = int(number(entry.get("n")) or 1)
            # One seed has no spread.
            found[key] = Estimate(mean, number(entry.get("std")) if n > 1 else None, n)
    return found


def _difference(value: object) -> Difference | None:
    entry = block(value)
    mean = number(entry.get("mean"))
    if mean is None:
        return None
    n = int(number(entry.get("n")) or 1)
    low, high = (number(entry.get(key)) if n > 1 else None for key in ("low", "high"))
    return Difference(mean, low, high, n)
