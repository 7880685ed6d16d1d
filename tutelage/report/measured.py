"""How the rows of a comparison are judged: its task's metrics, and the split on which they were measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tutelage.data.task import Metric, task_named
from tutelage.report.reading import Comparison, block, number

# The task of comparisons that were made before tasks had names.
FIRST_TASK = "classification"
TEST, VALIDATION = "test", "validation"
# The letters of a title that do not make its column wider than its numbers do.
NARROW = 14
FIELDS = frozenset(field.name for field in fields(Metric))


@dataclass(frozen=True)
class Measured:
    """How the rows of a comparison are judged, and what else was measured.

    Attributes:
        task: The name of the task.
        primary: The name of the metric that rows are compared by.
        metrics: Every metric of the task, by name.
        split: The split whose scores are shown: `test`, or validation data where there are no test data. Empty where
            runs have finished and the primary metric was not measured.
        chosen_on: The validation data whose score chose the epoch; empty where there are none.
        shown: The names of the other metrics that have a column.
        outputs: The words for one number of an answer, and for several.
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
        """The metric that rows are compared by; called `score` for a task that measures nothing."""
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
    def head(self) -> str:
        """What is shown, at the head of a column: the short name takes the place of a long title."""
        name = self.metric.title if len(self.metric.title) <= NARROW else self.metric.short or self.metric.title
        return f"{self.split} {name}"

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
    means = _means(rows)
    measured = _splits(means, primary, metrics)
    # Where no run has finished, nothing tells what would have been measured.
    is_open = bool(primary) and not any(row.get("runs") for row in rows)
    split = TEST if TEST in measured or is_open else _validation(measured)
    return Measured(
        task=str(task.get("name") or ""),
        primary=primary,
        metrics=_fitted(metrics, means),
        split=split,
        chosen_on=_validation(_splits([*means, *_noted(rows)], primary, metrics)),
        # A metric without a short name has no column.
        shown=tuple(n for n, metric in metrics.items() if n != primary and metric.short and f"{split}_{n}" in means),
        outputs=_outputs(task.get("outputs")),
    )


def _metric(name: str, values: Mapping[str, Any]) -> Metric:
    # A later version may store more about a metric.
    known = {key: value for key, value in values.items() if key in FIELDS}
    return Metric(**{"title": name.replace("_", " "), **known})


def _outputs(value: object) -> tuple[str, str]:
    names = [str(name) for name in value] if isinstance(value, list) else []
    return (names[0], names[1]) if len(names) == 2 else ("output", "outputs")


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the means that the rows' summaries hold, members' included, by the score's name."""
    found: dict[str, list[float]] = {}
    for row in rows:
        summary = block(row.get("summary"))
        members = summary.get("members")
        # Members too, because a column must be wide enough for their digits.
        for holder in (summary, *(members if isinstance(members, list) else ())):
            for name, entry in block(block(holder).get("best")).items():
                if (mean := number(block(entry).get("mean"))) is not None:
                    found.setdefault(str(name), []).append(mean)
    return found


def _noted(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the names of the scores of single runs, at the end and by epoch."""
    for row in rows:
        for run in row.get("runs") or []:
            yield from (*block(block(run).get("best")), *block(block(run).get("history")))


def _of(score: str, metrics: Mapping[str, Metric]) -> str:
    """Return the name of a score's metric: the longest, so that `test_top5_accuracy` is a top5_accuracy."""
    return max((name for name in metrics if score.endswith(f"_{name}")), key=len, default="")


def _splits(scores: Iterable[str], primary: str, metrics: Mapping[str, Metric]) -> set[str]:
    """Return the splits that have a score of the primary metric."""
    return {score.removesuffix(f"_{primary}") for score in scores if primary and _of(score, metrics) == primary}


def _validation(splits: Collection[str]) -> str:
    """Return the validation split among some, the main one where there are several."""
    # `validation` sorts before `validation-mismatched`.
    return min((split for split in splits if split.partition("-")[0] == VALIDATION), default="")


def _fitted(metrics: Mapping[str, Metric], means: Mapping[str, Sequence[float]]) -> dict[str, Metric]:
    """Return the metrics with the digits that their values need."""
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for score, found in means.items():
        if name := _of(score, metrics):
            values[name] += found
    return {name: metric.fitted(values[name]) for name, metric in metrics.items()}
