"""The learning curves: the validation score over epochs, the mean of the seeds with their range as a band."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tutelage.report.charts.canvas import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Chart,
    draw,
    single,
    spread,
)
from tutelage.report.reading import block, numbers
from tutelage.report.rows import Row, reference_of
from tutelage.report.wording import as_value, condensed, listed, sentence

Values = NDArray[np.float64]
# The most curves in one chart; `LINES` must have as many looks.
OVERLAID = 5
LETTERS = 32
# Colours and dashes, so that the curves differ without colour as well.
LINES = (
    (BLUE, "-"),
    (VERMILLION, "--"),
    (GREEN, "-."),
    (ORANGE, (0, (1, 1.2))),
    (PURPLE, (0, (5, 1, 1, 1, 1, 1))),
    (SKY, "-"),
)


@dataclass(frozen=True)
class Curve:
    """The validation score of a row, or of one of its members, over epochs, in the unit that is shown."""

    label: str
    row: Row
    epoch: Values
    mean: Values
    low: Values
    high: Values

    @property
    def end(self) -> float:
        """Return the mean of the last epoch that has one."""
        return float(self.mean[np.isfinite(self.mean)][-1])


def curve(row: Row, member: str | None = None) -> Curve | None:
    """Return the curve of a row or of its named member, or nothing when no run kept it."""
    score, scale = row.measured.choosing_score, row.measured.metric.scale
    histories = [block(run.get("history")) for run in row.runs]
    key = score if member is None else f"{score}/{member}"
    lines = [(numbers(h.get("epoch")), numbers(h.get(key))) for h in histories]
    lines = [(epochs, values) for epochs, values in lines if any(map(math.isfinite, values))]
    if not lines:
        return None
    length = max(len(values) for _, values in lines)
    # Runs may have ended early: an epoch that a run did not reach does not count.
    values = np.full((len(lines), length), np.nan)
    for index, (_, line) in enumerate(lines):
        values[index, : len(line)] = line
    longest = next(epochs for epochs, line in lines if len(line) == length)
    # The numbers that the longest run kept for its epochs, or a plain count.
    epoch = np.array(longest if len(longest) == length else range(1, length + 1), dtype=float)
    with warnings.catch_warnings():
        # An epoch of which no run has a score is left blank.
        warnings.filterwarnings("ignore", message=".*(All-NaN|empty slice)")
        mean, low, high = (scale * reduce(values, axis=0) for reduce in (np.nanmean, np.nanmin, np.nanmax))
    return Curve(row.label if member is None else member, row, epoch, mean, low, high)


def learning_charts(entries: Sequence[Row]) -> list[tuple[str, Chart]]:
    """Return one chart with all rows where they are few, otherwise one per row against the baseline.

    Returns:
        The charts with their captions; the single chart's caption is empty.
    """
    curves = [found for row in entries if (found := curve(row))]
    if not curves:
        return []
    if len(curves) <= OVERLAID:
        return [("", _overlaid(curves))]
    by_label = {line.label: line for line in curves}
    panels = []
    for index, line in enumerate(line for line in curves if not line.row.is_baseline):
        reference = reference_of(line.row, entries)
        against = by_label.get(reference.label) if reference else None
        panels.append((line.label, _panel(index, line, against, limits(curves))))
    return panels


def limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the vertical limits that hold the curves and leave out the climb, or the fall, of the first epochs."""
    # The first epochs are alike in all rows; with them in view the differences at the end are not.
    metric = curves[0].row.measured.metric
    lows, highs = _finite([line.low for line in curves]), _finite([line.high for line in curves])
    if metric.higher_is_better:
        lows = _finite([line.low[len(line.low) // 4 :] for line in curves], otherwise=lows)
    else:
        highs = _finite([line.high[len(line.high) // 4 :] for line in curves], otherwise=highs)
    low, high = float(lows.min()), float(highs.max())
    if metric.unit != "share":
        # An error has no upper end: the spike of one row would flatten all others.
        tenth, ninetieth = np.quantile(_finite([line.mean for line in curves]), (0.1, 0.9))
        # At most twice the distance between the two quantiles beyond either of them.
        low = max(low, float(3 * tenth - 2 * ninetieth))
        high = min(high, float(3 * ninetieth - 2 * tenth))
    # At least fifty of the smallest steps that the tables show, so that noise does not look large.
    room = max(0.04 * (high - low), 50 * 10.0**-metric.digits)
    return low - room, high + room


def _finite(parts: Sequence[Values], *, otherwise: Values | None = None) -> Values:
    values = np.concatenate(parts)
    found = values[np.isfinite(values)]
    return found if len(found) or otherwise is None else otherwise


def stroke(axes: Axes, line: Curve, colour: str, style: object, width: float = 1.9) -> None:
    """Draw a curve with its band."""
    axes.fill_between(line.epoch, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(line.epoch, line.mean, color=colour, linestyle=style, linewidth=width)
    # A line through one point would not be seen.
    if len(line.epoch) == 1:
        axes.plot(line.epoch, line.mean, "o", color=colour, markersize=5)


def summary(line: Curve) -> str:
    """Return where a curve ends, in words."""
    metric = line.row.measured.metric
    return f"{line.label} ends at {as_value(line.end / metric.scale, metric)}"


def _overlaid(curves: Sequence[Curve]) -> Chart:
    others = iter(LINES)
    # The baseline looks the same in every report.
    looks = [(INK, "-") if line.row.is_primary else next(others) for line in curves]
    measured = curves[0].row.measured

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for line, (colour, style) in zip(curves, looks, strict=True):
            stroke(axes, line, colour, style)
        axes.set_ylim(*limits(curves))
        axes.set_xlabel("epoch")
        axes.set_ylabel(listed(measured.choosing_title, measured.metric.shown_unit))
        if is_narrow:
            axes.legend(
                axes.lines[: len(curves)], [condensed(line.label, LETTERS) for line in curves], loc="lower right"
            )
        else:
            end_labels(axes, curves, [colour for colour, _ in looks])

    alt = f"{sentence(measured.choosing_title)} over epochs. " + "; ".join(summary(line) for line in curves)
    return draw("learning", alt, paint, wide=(900, 380), narrow=(360, 320))


def end_labels(axes: Axes, curves: Sequence[Curve], colours: Sequence[str], *, share: float = 0.052) -> None:
    """Write every curve's label at its end.

    Args:
        axes: Where the curves were drawn; its limits must be final.
        curves: The curves.
        colours: Their colours.
        share: The share of the axes' height that a label takes.
    """
    low, high = axes.get_ylim()
    ends = [line.end for line in curves]
    # Curves end near the edge, where their labels stand.
    axes.margins(x=0.01)
    for line, colour, end, place in zip(curves, colours, ends, spread(ends, share * (high - low)), strict=True):
        axes.annotate(
            condensed(line.label, LETTERS),
            (line.epoch[-1], end),
            xytext=(1.05, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.2, "shrinkA": 2, "shrinkB": 3},
            annotation_clip=False,
        )


def _panel(index: int, line: Curve, baseline: Curve | None, span: tuple[float, float]) -> Chart:
    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        if baseline is not None:
            stroke(axes, baseline, MUTED, "--", 1.4)
        stroke(axes, line, BLUE, "-")
        axes.set_ylim(*span)
        axes.set_xlabel("epoch")

    against = f"; {summary(baseline)}" if baseline else ""
    alt = f"{sentence(line.row.measured.choosing_title)} over epochs. {summary(line)}{against}"
    return draw(f"learning{index}", alt, paint, wide=(330, 190))
