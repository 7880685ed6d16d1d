"""What each row reached against what its training cost."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tutelage.report.charts.canvas import INK, MUTED, Chart, draw, single
from tutelage.report.charts.labels import label_points
from tutelage.report.charts.standing import MARKS
from tutelage.report.rows import Row, Standing
from tutelage.report.wording import condensed, cost, duration, estimate, listed, sentence, with_unit

# The most letters of a label.
LETTERS = 32


def cost_chart(entries: Sequence[Row]) -> Chart | None:
    """Return what rows reached over relative cost, or over seconds where no cost is known."""
    # A cost relative to another baseline belongs on another scale.
    primary = next((row.label for row in entries if row.is_primary), None)
    finished = [row for row in entries if row.score and row.reference == primary]
    # One axis has one unit, so a single row without a relative cost makes all of them seconds.
    is_relative = all(row.relative_cost is not None for row in finished)
    shown = [row for row in finished if _spent(row, is_relative) is not None]
    # One point alone compares nothing.
    if len(shown) < 2:
        return None
    costs = [_spent(row, is_relative) or 0.0 for row in shown]
    measured = shown[0].measured
    metric = measured.metric

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for row, spent in zip(shown, costs, strict=True):
            _point(axes, row, spent)
        axes.set_ylabel(listed(measured.title, metric.shown_unit))
        axes.set_xlabel("training cost, as a multiple of the baseline's" if is_relative else "training time, seconds")
        axes.margins(x=0.12, y=0.08)
        figure.legend(handles=_key(shown), loc="outside upper left", ncols=2 if is_narrow else 4, labelcolor=MUTED)
        _labels(figure, axes, shown, costs, is_narrow)

    alt = f"{sentence(metric.title)} against training cost. " + "; ".join(
        f"{row.label} {with_unit(estimate(row.score, metric), metric)} for "
        f"{cost(spent) if is_relative else duration(spent)}"
        for row, spent in zip(shown, costs, strict=True)
    )
    return draw("cost", alt, paint, wide=(900, 430), narrow=(360, 430))


def _spent(row: Row, is_relative: bool) -> float | None:
    return row.relative_cost if is_relative else row.seconds


def _point(axes: Axes, row: Row, spent: float) -> None:
    assert row.score is not None
    mark, scale = MARKS[row.standing], row.measured.metric.scale
    axes.errorbar(
        [spent],
        [scale * row.score.mean],
        yerr=None if row.score.std is None else [scale * row.score.std],
        fmt=mark.shape,
        color=mark.colour,
        markerfacecolor=mark.fill,
        markeredgewidth=1.8,
        markersize=8,
        elinewidth=1.2,
    )


def _labels(figure: Figure, axes: Axes, shown: Sequence[Row], costs: Sequence[float], is_narrow: bool) -> None:
    scale = shown[0].measured.metric.scale
    places = [(spent, scale * row.score.mean) for row, spent in zip(shown, costs, strict=True) if row.score]
    reach = [scale * (row.score.std or 0.0) for row in shown if row.score]
    # Rows without a clear difference are labelled in a muted colour.
    inks = [MUTED if row.standing in {Standing.SAME, Standing.UNKNOWN} else INK for row in shown]
    names = [condensed(row.label, LETTERS) for row in shown]
    label_points(figure, axes, places, names, inks, reach=reach, size=11 if is_narrow else 12)


def _key(shown: Sequence[Row]) -> list[Line2D]:
    # The key explains only the marks that are there.
    standings = [standing for standing in Standing if any(row.standing is standing for row in shown)]
    return [
        Line2D(
            [], [], linestyle="", marker=mark.shape, color=mark.colour, markerfacecolor=mark.fill, label=mark.meaning
        )
        for mark in (MARKS[standing] for standing in standings)
    ]
