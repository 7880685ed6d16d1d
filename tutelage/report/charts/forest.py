"""The forest plot: every row's paired difference to the baseline with its interval and its single seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tutelage.report.charts.canvas import GRID, INK, MUTED, Chart, draw, single
from tutelage.report.charts.standing import MARKS
from tutelage.report.measured import Measured
from tutelage.report.reading import block, number
from tutelage.report.rows import Difference, Row, reference_of
from tutelage.report.wording import condensed, direction, interval, listed, signed

# The most letters of a label.
LETTERS = 40


def forest_chart(entries: Sequence[Row]) -> Chart | None:
    """Return the forest plot, best row on top, or nothing when there is no difference to show."""
    pairs = [(row, row.paired_best) for row in entries if row.paired_best]
    # Heights count from below, so the best row comes last.
    shown = sorted(((row, gap) for row, gap in pairs if gap), key=lambda pair: pair[0].gain)
    if not shown:
        return None

    primary = next((row.label for row in entries if row.is_primary), None)
    measured = shown[0][0].measured

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for height, (row, gap) in enumerate(shown):
            _line(axes, height, row, gap, reference_of(row, entries))
        _frame(axes, shown, primary, measured, is_narrow)

    unit = measured.metric.difference_unit
    head = listed(f"Differences in {measured.title} to the baseline", f"in {unit}" if unit else "")
    said = "; ".join(f"{row.label} {_written(gap, measured, ' ')}" for row, gap in shown[::-1])
    alt = f"{listed(head, direction(measured.metric))}. {said}"
    wide, narrow = (900, 56 + 34 * len(shown)), (360, 56 + 46 * len(shown))
    return draw("forest", alt, paint, wide=wide, narrow=narrow)


def seed_differences(row: Row, baseline: Row) -> list[float]:
    """Return the difference to the baseline of every seed that both rows ran."""
    score = row.measured.score
    base = {run.get("seed"): number(block(run.get("best")).get(score)) for run in baseline.runs}
    found = []
    for run in row.runs:
        here, there = number(block(run.get("best")).get(score)), base.get(run.get("seed"))
        if here is not None and there is not None:
            found.append(here - there)
    return found


def _line(axes: Axes, height: int, row: Row, gap: Difference, baseline: Row | None) -> None:
    mark, scale = MARKS[row.standing], row.measured.metric.scale
    if gap.low is not None and gap.high is not None:
        axes.plot([scale * gap.low, scale * gap.high], [height, height], color=mark.colour, linewidth=2.2, zorder=3)
    singles = [scale * value for value in seed_differences(row, baseline)] if baseline else []
    # A single seed is the mean itself.
    if len(singles) > 1:
        # Beneath the interval, which would hide them.
        below = [height - 0.24] * len(singles)
        axes.plot(singles, below, "|", color=MUTED, markersize=6, markeredgewidth=1.1, zorder=2)
    axes.plot(
        [scale * gap.mean],
        [height],
        mark.shape,
        color=mark.colour,
        markerfacecolor=mark.fill,
        markeredgewidth=1.8,
        markersize=8,
        zorder=4,
    )


def _frame(
    axes: Axes, shown: Sequence[tuple[Row, Difference]], primary: str | None, measured: Measured, is_narrow: bool
) -> None:
    axes.axvline(0, color=INK, linewidth=1.1, zorder=1)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.6, len(shown) - (0.2 if is_narrow else 0.4))
    axes.set_xlabel(_axis(measured, is_narrow))
    names = [_name(row, primary) for row, _ in shown]
    for height, (row, gap) in enumerate(shown):
        # Across in shares of the axes, upwards in rows.
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform()}
        place["color"] = MUTED if MARKS[row.standing].colour == MUTED else INK
        # A narrow chart has no room beside the axes: names and numbers stand above the interval.
        if is_narrow:
            place["in_layout"] = False
            axes.text(0, height + 0.34, names[height], fontsize=12, **place)
            axes.text(1, height + 0.34, signed(gap.mean, measured.metric), ha="right", **place)
        else:
            axes.text(1.02, height, _written(gap, measured, "  "), va="center", **place)
    if is_narrow:
        axes.locator_params(axis="x", nbins=5)
        axes.set_yticks([])
    else:
        axes.set_yticks(range(len(shown)), names)
        axes.tick_params(axis="y", labelcolor=INK)
    axes.tick_params(axis="x", color=GRID)


def _axis(measured: Measured, is_narrow: bool) -> str:
    metric = measured.metric
    said = listed(f"difference in {measured.title}", metric.difference_unit)
    if metric.higher_is_better:
        return said
    return ("\n" if is_narrow else " ").join((said, f"({direction(metric)}, to the left)"))


def _written(gap: Difference, measured: Measured, apart: str) -> str:
    span = interval(gap, measured.metric)
    return signed(gap.mean, measured.metric) + (f"{apart}({span})" if span else "")


def _name(row: Row, primary: str | None) -> str:
    # A row that is compared with another row than the baseline says so.
    against = "" if row.reference == primary else f" (to {condensed(row.reference or '', LETTERS // 2)})"
    return condensed(row.label, LETTERS - len(against)) + against
