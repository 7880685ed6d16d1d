"""How the student fares as its teacher gets better: the curve of distillation from poor teachers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tutelage.report.charts.canvas import BLUE, INK, MUTED, Chart, draw, single
from tutelage.report.reading import Comparison, Row, block, number, numbers
from tutelage.report.wording import percent

Point = tuple[float, list[float]]


def teacher_charts(comparison: Comparison, entries: Sequence[Row], baseline: Row | None) -> list[tuple[str, Chart]]:
    """Return one chart for every method with a curve, with the method's name.

    A comparison that keeps no curves has them all the same where several rows of a method noted their teachers.
    """
    found = []
    for index, (method, points) in enumerate((block(comparison.get("curves")) or _noted(entries)).items()):
        curve = _points(points or [])
        if curve:
            found.append((str(method), _chart(index, str(method), curve, baseline)))
    return found


def _noted(entries: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in entries:
        teachers = [value for run in row.runs if (value := number(run.get("teacher_accuracy"))) is not None]
        students = [block(run.get("best")).get(row.metric) for run in row.runs]
        if teachers and row.accuracy:
            point = {"teacher_accuracy": sum(teachers) / len(teachers), "student_accuracy": students}
            found.setdefault(row.method, []).append(point)
    return {method: points for method, points in found.items() if len(points) > 1}


def _points(entries: Sequence[Mapping[str, Any]]) -> list[Point]:
    found = []
    for entry in entries:
        teacher = number(block(entry).get("teacher_accuracy"))
        students = [value for value in numbers(block(entry).get("student_accuracy")) if math.isfinite(value)]
        if teacher is not None and students:
            found.append((100 * teacher, [100 * value for value in students]))
    return sorted(found)


def _chart(index: int, method: str, curve: Sequence[Point], baseline: Row | None) -> Chart:
    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        if baseline is not None and baseline.accuracy is not None:
            _baseline(axes, baseline, is_narrow)
        teachers = [teacher for teacher, _ in curve]
        means = [sum(students) / len(students) for _, students in curve]
        for teacher, students in curve:
            axes.plot([teacher] * len(students), students, "o", color=BLUE, alpha=0.4, markersize=4)
        axes.plot(teachers, means, "-o", color=BLUE, linewidth=1.9, markersize=7)
        axes.set_xlabel("the teacher's own accuracy, %")
        axes.set_ylabel("student's accuracy, %")
        axes.margins(y=0.12)

    said = "; ".join(f"teacher {t:.2f} %, student {sum(s) / len(s):.2f} %" for t, s in curve)
    reference = f" Baseline {percent(baseline.accuracy.mean)} %." if baseline and baseline.accuracy else ""
    alt = f"Student accuracy over teacher accuracy for {method}: {said}.{reference}"
    return draw(f"teachers{index}", alt, paint, wide=(900, 350), narrow=(360, 300))


def _baseline(axes: Axes, baseline: Row, is_narrow: bool) -> None:
    assert baseline.accuracy is not None
    level, spread = 100 * baseline.accuracy.mean, 100 * (baseline.accuracy.std or 0.0)
    axes.axhspan(level - spread, level + spread, color=MUTED, alpha=0.14, linewidth=0)
    axes.axhline(level, color=INK, linewidth=1.3, linestyle="--")
    text = "baseline" if is_narrow else f"{baseline.label} (baseline)"
    axes.text(0.995, level, text, transform=axes.get_yaxis_transform(), va="bottom", ha="right", color=INK, fontsize=11)
