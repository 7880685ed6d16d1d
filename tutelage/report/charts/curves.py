"""The curves that recipes note of themselves: the test score over something that they count, such as queries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from tutelage.report.charts.canvas import INK, Chart, draw, single
from tutelage.report.charts.learning import LETTERS, LINES, Curve, end_labels, limits, stroke
from tutelage.report.reading import block, number
from tutelage.report.rows import Row
from tutelage.report.sections import Panel, Section
from tutelage.report.wording import as_value, condensed, listed, sentence


def curve_sections(entries: Sequence[Row]) -> list[Section]:
    """Return a section for each thing over which rows noted their scores; none if no row did.

    Args:
        entries: The rows of a comparison.
    """
    names = dict.fromkeys(str(each.get("over")) for row in entries for run in row.runs for each in _noted(run))
    return [_section(over, curves) for over in names if (curves := [c for row in entries if (c := _curve(row, over))])]


def _noted(run: object) -> list[dict[str, object]]:
    return [dict(block(each)) for each in block(run).get("curves") or []]


def _curve(row: Row, over: str) -> Curve | None:
    """Return a row's mean score over what it counted, with the range of its runs."""
    found: dict[float, list[float]] = {}
    for each in (each for run in row.runs for each in _noted(run) if each.get("over") == over):
        for point in each.get("values") or []:  # type: ignore[attr-defined]
            place, score = (number(value) for value in point)
            if place is not None and score is not None:
                found.setdefault(place, []).append(score * row.measured.metric.scale)
    if not found:
        return None
    places = sorted(found)
    mean, low, high = (np.array([reduce(found[place]) for place in places]) for reduce in (np.mean, np.min, np.max))
    return Curve(row.label, row, np.array(places), mean, low, high)


def _section(over: str, curves: Sequence[Curve]) -> Section:
    measured = curves[0].row.measured
    title = f"{sentence(f'test {measured.metric.title}')} over {over}"
    return Section(
        id=f"over-{over}",
        name=f"Over {over}",
        title=title,
        lede=f"Each point is a network that was trained on what was known after so many {over}: the mean of the seeds, "
        "with their range as a band. A curve that is higher at the same place makes more of them.",
        panels=[Panel(_chart(over, title, curves))],
    )


def _chart(over: str, title: str, curves: Sequence[Curve]) -> Chart:
    # The baseline looks the same in every chart.
    others = cycle(LINES)
    looks = [(INK, "-") if line.row.is_primary else next(others) for line in curves]
    measured = curves[0].row.measured

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for line, (colour, style) in zip(curves, looks, strict=True):
            stroke(axes, line, colour, style)
        # The few places at which there is a network.
        for line, (colour, _) in zip(curves, looks, strict=True):
            axes.plot(line.epoch, line.mean, "o", color=colour, markersize=4)
        axes.set_ylim(*limits(curves))
        axes.set_xlabel(over)
        axes.set_ylabel(listed(f"test {measured.metric.title}", measured.metric.shown_unit))
        if is_narrow:
            labels = [condensed(line.label, LETTERS) for line in curves]
            axes.legend([axes.lines[n] for n in range(len(curves))], labels, loc="lower right")
        else:
            end_labels(axes, curves, [colour for colour, _ in looks])

    said = "; ".join(
        f"{line.label} has {as_value(line.end / measured.metric.scale, measured.metric)} at {line.epoch[-1]:,.0f}"
        for line in curves
    )
    return draw(f"over-{over}", f"{title}. {said}", paint, wide=(900, 380), narrow=(360, 320))
