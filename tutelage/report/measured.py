"""What the rows of a comparison are judged by: its task's metrics, and the split on which they were measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tutelage.data.task import Metric, task_named
from tutelage.report.reading import Comparison, block, number

# What every comparison was of before it named its task.
FIRST_TASK = "classification"
TEST, VALIDATION = "test", "validation"
FIELDS = frozenset(field.name for field in fields(Metric))


@dataclass(frozen=True)
class Measured:
    """What the rows of a comparison are judged by, and what else was measured.

    Attributes:
        task: The name of the task.
        primary: The name of the metric that rows are compared by.
        metrics: Every metric of the task, by name.
        split: The split whose scores are shown: `test`, or validation data where there are no test data. Empty where
            runs have finished and the primary metric was not measured.
        chosen_on: The validation data whose score chose the epoch; empty where there are none.
        shown: The names of the other metrics that have a column.
        outputs: What one of the numbers of an answer is called, and what several are.
    """

    task: str
    primary: str
    metrics: Mapping[str, Metric]
    split: str
    chosen_on: str
    shown: tuple[str, ...]
    outputs: tuple[str, str]

    @property
    def metric(self) -> Metric:
        """The metric that rows are compared by; a nameless one for a task that measures nothing."""
        return self.metrics.get(self.primary) or Metric(title="score")

    @property
    def score(self) -> str:
        """The name of the score that rows are compared by, such as `test_accuracy`."""
        return f"{self.split}_{self.primary}"

    @property
    def title(self) -> str:
        """What is shown, such as `test accuracy`."""
        return f"{self.split} {self.metric.title}"

    @property
    def choosing_score(self) -> str:
        """The name of the score that chose the epoch, such as `validation_accuracy`."""
        return f"{self.chosen_on or VALIDATION}_{self.primary}"

    @property
    def choosing_title(self) -> str:
        """What chose the epoch, such as `validation accuracy`."""
        return f"{self.chosen_on or VALIDATION} {self.metric.title}"

    @property
    def is_tested(self) -> bool:
        """Whether the scores are of test data."""
        return self.split == TEST

    @property
    def others(self) -> tuple[tuple[str, Metric], ...]:
        """The other scores that have a column, by name, with their metrics."""
        return tuple((f"{self.split}_{name}", self.metrics[name]) for name in self.shown)


def measured_of(comparison: Comparison) -> Measured:
    """Return what the rows of a comparison are judged by.

    Args:
        comparison: A comparison of version 1; one that names no task is of classification.
    """
    task = block(comparison.get("task")) or task_named(FIRST_TASK).describe()
    primary = str(task.get("primary") or "")
    metrics = {str(name): _metric(str(name), block(values)) for name, values in block(task.get("metrics")).items()}
    rows = [block(row) for row in comparison.get("rows") or []]
    summed = set(_summed(rows))
    measured = [split for name in sorted(summed) if (split := _split(name, primary, metrics))]
    watched = [split for name in sorted({*summed, *_noted(rows)}) if (split := _split(name, primary, metrics))]
    # Where no run has finished, nothing tells what would have been measured.
    is_open = bool(primary) and not any(row.get("runs") for row in rows)
    split = TEST if TEST in measured or is_open else _validation(measured)
    return Measured(
        task=str(task.get("name") or ""),
        primary=primary,
        metrics=metrics,
        split=split,
        chosen_on=_validation(watched),
        # A metric without a short name has no column.
        outputs=_outputs(task.get("outputs")),
        shown=tuple(n for n, metric in metrics.items() if n != primary and metric.short and f"{split}_{n}" in summed),
    )


def _metric(name: str, values: Mapping[str, Any]) -> Metric:
    known = {key: value for key, value in values.items() if key in FIELDS}
    return Metric(**{"title": name.replace("_", " "), **known})


def _outputs(value: object) -> tuple[str, str]:
    names = [str(name) for name in value] if isinstance(value, list) else []
    return (names[0], names[1]) if len(names) == 2 else ("output", "outputs")


def _split(score: str, primary: str, metrics: Mapping[str, Metric]) -> str:
    """Return the split of a score of the primary metric; nothing for a score of another metric."""
    # The longest name that fits is the metric's: `test_top5_accuracy` is no accuracy on a split `test_top5`.
    metric = max((name for name in metrics if score.endswith(f"_{name}")), key=len, default="")
    return score.removesuffix(f"_{primary}") if metric and metric == primary else ""


def _validation(splits: Sequence[str]) -> str:
    """Return the validation split among some, the main one where there are several."""
    return min((split for split in splits if split.partition("-")[0] == VALIDATION), default="")


def _summed(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the names of the scores that the rows' summaries hold, members' included."""
    for row in rows:
        summary = block(row.get("summary"))
        members = summary.get("members")
        for holder in (summary, *(members if isinstance(members, list) else ())):
            means = block(block(holder).get("best"))
            yield from (name for name, entry in means.items() if number(block(entry).get("mean")) is not None)


def _noted(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the names of the scores that single runs noted, at the end or by epoch."""
    for row in rows:
        for run in row.get("runs") or []:
            yield from (*block(block(run).get("best")), *block(block(run).get("history")))
