"""Reading a comparison: the typed view of `comparison.json` that every rendering shares."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.models.spec import NetworkSpec

Comparison = Mapping[str, Any]
VERSION = 1


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
    """A paired difference in test accuracy to the baseline, as a fraction; no interval with one seed."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def standing(self) -> Standing:
        """Return the standing that the interval alone supports."""
        if self.low is None or self.high is None:
            return Standing.UNKNOWN
        if self.low > 0:
            return Standing.BETTER
        return Standing.WORSE if self.high < 0 else Standing.SAME


@dataclass(frozen=True)
class Member:
    """A network of a row beside the deployed one: a peer, an exit, or several of them together.

    Attributes:
        network: Its architecture; None where it is no network of its own.
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
        metric: What its accuracy is: `test_accuracy`, or `validation_accuracy` where there are no test data.
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
    metric: str
    parameters: float | None
    multiply_adds: float | None
    best: Mapping[str, Estimate]
    last: Mapping[str, Estimate]
    paired_best: Difference | None
    paired_last: Difference | None
    seconds: float | None
    images_per_second: float | None
    relative_cost: float | None
    runs: tuple[Mapping[str, Any], ...]
    deployed: str | None
    network: str | None
    members: tuple[Member, ...]

    @property
    def accuracy(self) -> Estimate | None:
        """Return the accuracy at the epoch with the best validation accuracy."""
        return self.best.get(self.metric)

    @property
    def is_baseline(self) -> bool:
        """Return whether rows are compared with this one."""
        return self.is_primary or self.label == self.reference

    @property
    def standing(self) -> Standing:
        """Return where this row stands against the baseline."""
        if self.is_baseline:
            return Standing.BASELINE
        return self.paired_best.standing if self.paired_best else Standing.UNKNOWN


def load(comparison: Comparison | str | Path) -> Comparison:
    """Return a comparison from memory or from its JSON file.

    Args:
        comparison: The comparison itself, or the path of a `comparison.json`.

    Raises:
        UserError: If the file cannot be read or has another version.
    """
    if isinstance(comparison, str | Path):
        path = Path(comparison)
        try:
            comparison = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read the comparison {path}: {error}. Pass a comparison.json.") from error
    if not isinstance(comparison, Mapping) or comparison.get("version") != VERSION:
        found = comparison.get("version") if isinstance(comparison, Mapping) else type(comparison).__name__
        raise UserError(f"This report reads comparisons of version {VERSION}, not {found}. Run the comparison again.")
    return comparison


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def block(value: object) -> Mapping[str, Any]:
    """Return a mapping, or an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def numbers(value: object) -> list[float]:
    """Return a sequence of numbers with NaN where one is missing, or nothing for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [math.nan if (item := number(entry)) is None else item for entry in value]


def rows(comparison: Comparison) -> list[Row]:
    """Return the rows of a comparison: the baseline first, the others in the order they were asked for."""
    entries = [block(entry) for entry in comparison.get("rows") or []]
    baseline = _baseline_index(entries, comparison.get("baseline"))
    primary = None if baseline is None else str(entries[baseline].get("label"))
    tested = [entry for entry in entries if "test_accuracy" in block(block(entry.get("summary")).get("best"))]
    metric = "test_accuracy" if tested else "validation_accuracy"
    read = [_row(entry, index == baseline, primary, metric) for index, entry in enumerate(entries)]
    return sorted(read, key=lambda row: not row.is_primary)


def baseline_of(entries: Sequence[Row]) -> Row | None:
    """Return the comparison's baseline row when it has a result."""
    return next((row for row in entries if row.is_primary and row.accuracy), None)


def reference_of(row: Row, entries: Sequence[Row]) -> Row | None:
    """Return the row that a row is compared with, when it is another one and has a result."""
    return next((other for other in entries if other.label == row.reference and other.accuracy and other != row), None)


def _baseline_index(entries: Sequence[Mapping[str, Any]], name: object) -> int | None:
    for key in ("label", "method"):
        for index, entry in enumerate(entries):
            if name is not None and entry.get(key) == name:
                return index
    return None


def _row(entry: Mapping[str, Any], is_primary: bool, primary: str | None, metric: str) -> Row:
    summary = block(entry.get("summary"))
    paired = {} if is_primary else block(summary.get("paired"))
    method = str(entry.get("method") or "")
    label = str(entry.get("label") or method)
    error = entry.get("error")
    if not error and not entry.get("runs"):
        error = "no run finished"
    return Row(
        label=label,
        method=method,
        title=str(entry.get("title") or label),
        command=str(entry.get("command") or ""),
        error=str(error) if error else None,
        reference=str(entry["baseline"]) if entry.get("baseline") else primary,
        is_primary=is_primary,
        metric=metric,
        parameters=number(entry.get("parameters")),
        multiply_adds=number(entry.get("multiply_adds")),
        best=_estimates(summary.get("best")),
        last=_estimates(summary.get("last")),
        paired_best=_difference(paired.get("best")),
        paired_last=_difference(paired.get("last")),
        seconds=number(block(summary.get("seconds")).get("mean")),
        images_per_second=number(block(summary.get("images_per_second")).get("mean")),
        relative_cost=number(summary.get("relative_cost")),
        runs=tuple(block(run) for run in entry.get("runs") or []),
        deployed=_text(entry.get("deployed")),
        network=_network(entry.get("network")),
        members=_members(summary.get("members")),
    )


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
    """Return the name of a network; of one that was cut or grafted from another, that one's and where."""
    text = _text(value)
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
