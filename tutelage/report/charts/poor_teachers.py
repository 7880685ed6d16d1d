"""The score of the student over that of its teacher, for teachers that were stopped early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tutelage.report.charts.canvas import BLUE, INK, MUTED, Chart, draw, single
from tutelage.report.measured import Measured, measured_of
from tutelage.report.reading import Comparison, block, number, numbers, teacher_of
from tutelage.report.rows import Row
from tutelage.report.wording import as_value, listed, sentence

Point = tuple[float, list[float]]


def teacher_charts(comparison: Comparison, entries: Sequence[Row], baseline: Row | None) -> list[tuple[str, Chart]]:
    """Return one chart for every method with a curve, with the method's name.

    Without curves in the comparison, a method with several rows that noted their teachers makes one.
    """
    found = []
    measured = measured_of(comparison)
    for index, (method, points) in enumerate((block(comparison.get("curves")) or _noted(entries)).items()):
        curve = _points(points or [], measured)
        if curve:
            found.append((str(method), _chart(index, str(method), curve, baseline, measured)))
    return found


def _noted(entries: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in entries:
        primary = row.measured.primary
        teachers = [level for run in row.runs if (level := teacher_of(run, primary)) is not None]
        students = [block(run.get("best")).get(row.measured.score) for run in row.runs]
        if teachers and row.score:
            point = {f"teacher_{primary}": sum(teachers) / len(teachers), f"student_{primary}": students}
            found.setdefault(row.method, []).append(point)
    # One point makes no curve.
    return {method: points for method, points in found.items() if len(points) > 1}


def _points(entries: Sequence[Mapping[str, Any]], measured: Measured) -> list[Point]:
    found, scale = [], measured.metric.scale
    for entry in entries:
        teacher = number(block(entry).get(f"teacher_{measured.primary}"))
        students = [level for level in numbers(block(entry).get(f"student_{measured.primary}")) if math.isfinite(level)]
        if teacher is not None and students:
            found.append((scale * teacher, [scale * level for level in students]))
    # From the poorest teacher to the best, as the line is drawn.
    return sorted(found)


def _chart(index: int, method: str, curve: Sequence[Point], baseline: Row | None, measured: Measured) -> Chart:
    metric = measured.metric

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        if baseline is not None and baseline.score is not None:
            _baseline(axes, baseline, is_narrow)
        teachers = [teacher for teacher, _ in curve]
        means = [sum(students) / len(students) for _, students in curve]
        for teacher, students in curve:
            # Every seed beside the mean of them.
            axes.plot([teacher] * len(students), students, "o", color=BLUE, alpha=0.4, markersize=4)
        axes.plot(teachers, means, "-o", color=BLUE, linewidth=1.9, markersize=7)
        axes.set_xlabel(listed(f"the teacher's own {metric.title}", metric.shown_unit))
        axes.set_ylabel(listed(f"student's {metric.title}", metric.shown_unit))
        axes.margins(y=0.12)

    said = "; ".join(
        f"teacher {as_value(teacher / metric.scale, metric)}, "
        f"student {as_value(sum(students) / len(students) / metric.scale, metric)}"
        for teacher, students in curve
    )
    level = baseline.score.mean if baseline and baseline.score else None
    reference = "" if level is None else f" Baseline {as_value(level, metric)}."
    alt = f"{sentence(metric.title)} of the student over that of the teacher for {method}: {said}.{reference}"
    return draw(f"teachers{index}", alt, paint, wide=(900, 350), narrow=(360, 300))


def _baseline(axes: Axes, baseline: Row, is_narrow: bool) -> None:
    assert baseline.score is not None
    scale = baseline.measured.metric.scale
    level, spread = scale * baseline.score.mean, scale * (baseline.score.std or 0.0)
    axes.axhspan(level - spread, level + spread, color=MUTED, alpha=0.14, linewidth=0)
    axes.axhline(level, color=INK, linewidth=1.3, linestyle="--")
    text = "baseline" if is_narrow else f"{baseline.label} (baseline)"
    axes.text(0.995, level, text, transform=axes.get_yaxis_transform(), va="bottom", ha="right", color=INK, fontsize=11)
