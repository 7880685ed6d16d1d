"""The accuracy curves: validation accuracy over epochs, the mean of the seeds with their range as a band."""

from __future__ import annotations

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
from tutelage.report.reading import Row, block, numbers, reference_of
from tutelage.report.wording import percent

OVERLAID = 5
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
    """One row's validation accuracy in per cent over epochs."""

    label: str
    row: Row
    epoch: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def curve(row: Row) -> Curve | None:
    """Return the accuracy curve of a row, or nothing when no run kept a history."""
    histories = [block(run.get("history")) for run in row.runs]
    lines = [(numbers(h.get("epoch")), numbers(h.get("validation_accuracy"))) for h in histories]
    lines = [(epochs, values) for epochs, values in lines if values]
    if not lines:
        return None
    length = max(len(values) for _, values in lines)
    values = np.full((len(lines), length), np.nan)
    for index, (_, line) in enumerate(lines):
        values[index, : len(line)] = line
    longest = next(epochs for epochs, line in lines if len(line) == length)
    epoch = np.array(longest if len(longest) == length else range(1, length + 1), dtype=float)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(All-NaN|empty slice)")
        mean, low, high = (100 * reduce(values, axis=0) for reduce in (np.nanmean, np.nanmin, np.nanmax))
    return Curve(row.label, row, epoch, mean, low, high)


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
        panels.append((line.label, _panel(index, line, against, _limits(curves))))
    return panels


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    # The climb of the first epochs is alike in all rows; with it in view the differences at the end are not.
    low = float(min(np.nanmin(line.low[len(line.low) // 4 :]) for line in curves))
    high = float(max(np.nanmax(line.high) for line in curves))
    room = max(0.04 * (high - low), 0.5)
    return low - room, high + room


def _stroke(axes: Axes, line: Curve, colour: str, style: object, width: float = 1.9) -> None:
    axes.fill_between(line.epoch, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(line.epoch, line.mean, color=colour, linestyle=style, linewidth=width)
    if len(line.epoch) == 1:
        axes.plot(line.epoch, line.mean, "o", color=colour, markersize=5)


def _summary(line: Curve) -> str:
    return f"{line.label} ends at {percent(float(line.mean[-1]) / 100)} %"


def _overlaid(curves: Sequence[Curve]) -> Chart:
    others = iter(LINES)
    looks = [(INK, "-") if line.row.is_primary else next(others) for line in curves]

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for line, (colour, style) in zip(curves, looks, strict=True):
            _stroke(axes, line, colour, style)
        axes.set_ylim(*_limits(curves))
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy, %")
        if is_narrow:
            axes.legend(axes.lines[: len(curves)], [line.label for line in curves], loc="lower right")
        else:
            _end_labels(axes, curves, [colour for colour, _ in looks])

    alt = "Validation accuracy over epochs. " + "; ".join(_summary(line) for line in curves)
    return draw("learning", alt, paint, wide=(900, 380), narrow=(360, 320))


def _end_labels(axes: Axes, curves: Sequence[Curve], colours: Sequence[str]) -> None:
    low, high = axes.get_ylim()
    ends = [float(line.mean[np.isfinite(line.mean)][-1]) for line in curves]
    axes.margins(x=0.01)
    for line, colour, end, place in zip(curves, colours, ends, spread(ends, 0.052 * (high - low)), strict=True):
        axes.annotate(
            line.label,
            (line.epoch[-1], end),
            xytext=(1.05, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.2, "shrinkA": 2, "shrinkB": 3},
            annotation_clip=False,
        )


def _panel(index: int, line: Curve, baseline: Curve | None, limits: tuple[float, float]) -> Chart:
    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        if baseline is not None:
            _stroke(axes, baseline, MUTED, "--", 1.4)
        _stroke(axes, line, BLUE, "-")
        axes.set_ylim(*limits)
        axes.set_xlabel("epoch")

    against = f"; {_summary(baseline)}" if baseline else ""
    return draw(
        f"learning{index}", f"Validation accuracy over epochs. {_summary(line)}{against}", paint, wide=(330, 190)
    )
