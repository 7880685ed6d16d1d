"""Accuracy against the cost of training."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tutelage.report.charts.canvas import GRID, INK, MUTED, Chart, draw, single, spread
from tutelage.report.charts.standing import MARKS
from tutelage.report.reading import Row, Standing
from tutelage.report.wording import cost, duration, estimate


def cost_chart(entries: Sequence[Row]) -> Chart | None:
    """Return test accuracy over relative cost, or over seconds where no cost is known."""
    finished = [row for row in entries if row.accuracy]
    is_relative = all(row.relative_cost is not None for row in finished)
    shown = [row for row in finished if _spent(row, is_relative) is not None]
    if len(shown) < 2:
        return None
    costs = [_spent(row, is_relative) or 0.0 for row in shown]

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for row, spent in zip(shown, costs, strict=True):
            _point(axes, row, spent)
        axes.set_ylabel("test accuracy, %")
        axes.set_xlabel("training cost, as a multiple of the baseline's" if is_relative else "training time, seconds")
        axes.margins(x=0.08, y=0.08)
        _labels(axes, shown, costs, is_narrow)
        figure.legend(handles=_key(shown), loc="outside lower left", ncols=1 if is_narrow else 3, labelcolor=MUTED)

    alt = "Test accuracy against training cost. " + "; ".join(
        f"{row.label} {estimate(row.accuracy)} % for {cost(spent) if is_relative else duration(spent)}"
        for row, spent in zip(shown, costs, strict=True)
    )
    return draw("cost", alt, paint, wide=(760, 400), narrow=(360, 420))


def _spent(row: Row, is_relative: bool) -> float | None:
    return row.relative_cost if is_relative else row.seconds


def _point(axes: Axes, row: Row, spent: float) -> None:
    assert row.accuracy is not None
    mark = MARKS[row.standing]
    axes.errorbar(
        [spent],
        [100 * row.accuracy.mean],
        yerr=None if row.accuracy.std is None else [100 * row.accuracy.std],
        fmt=mark.shape,
        color=mark.colour,
        markerfacecolor=mark.fill,
        markeredgewidth=1.8,
        markersize=8,
        elinewidth=1.2,
    )


def _labels(axes: Axes, shown: Sequence[Row], costs: Sequence[float], is_narrow: bool) -> None:
    low, high = axes.get_ylim()
    heights = [100 * row.accuracy.mean for row in shown if row.accuracy]
    places = spread(heights, (0.062 if is_narrow else 0.056) * (high - low))
    for row, spent, height, place in zip(shown, costs, heights, places, strict=True):
        ink = MUTED if row.standing in {Standing.SAME, Standing.UNKNOWN} else INK
        axes.annotate(
            row.label,
            (spent, height),
            xytext=(1.03, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            color=ink,
            fontsize=10 if is_narrow else 11,
            arrowprops={"arrowstyle": "-", "color": GRID, "linewidth": 1, "shrinkA": 2, "shrinkB": 6},
            annotation_clip=False,
            zorder=1,
        )


def _key(shown: Sequence[Row]) -> list[Line2D]:
    standings = [standing for standing in Standing if any(row.standing is standing for row in shown)]
    return [
        Line2D([], [], linestyle="", marker=mark.shape, color=mark.colour, markerfacecolor=mark.fill, label=mark.meaning)
        for mark in (MARKS[standing] for standing in standings)
    ]
