"""The forest plot: every row's paired difference to the baseline with its interval and its single seeds."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tutelage.report.charts.canvas import GRID, INK, MUTED, Chart, draw, single
from tutelage.report.charts.standing import MARKS
from tutelage.report.reading import Difference, Row, block, number, reference_of
from tutelage.report.wording import condensed, interval, points

LETTERS = 40


def forest_chart(entries: Sequence[Row]) -> Chart | None:
    """Return the forest plot, best row on top, or nothing when there is no difference to show."""
    pairs = [(row, row.paired_best) for row in entries if row.paired_best]
    shown = sorted(((row, gap) for row, gap in pairs if gap), key=lambda pair: pair[1].mean)
    if not shown:
        return None

    primary = next((row.label for row in entries if row.is_primary), None)

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for height, (row, gap) in enumerate(shown):
            _line(axes, height, row, gap, reference_of(row, entries))
        _frame(axes, shown, primary, is_narrow)

    alt = "Differences in test accuracy to the baseline, in points. " + "; ".join(
        f"{row.label} {points(gap.mean)}" + (f" ({interval(gap)})" if interval(gap) else "") for row, gap in shown[::-1]
    )
    wide, narrow = (900, 56 + 34 * len(shown)), (360, 56 + 46 * len(shown))
    return draw("forest", alt, paint, wide=wide, narrow=narrow)


def seed_differences(row: Row, baseline: Row) -> list[float]:
    """Return the difference in test accuracy of every seed that both rows ran."""
    base = {run.get("seed"): number(block(run.get("best")).get("test_accuracy")) for run in baseline.runs}
    found = []
    for run in row.runs:
        here, there = number(block(run.get("best")).get("test_accuracy")), base.get(run.get("seed"))
        if here is not None and there is not None:
            found.append(here - there)
    return found


def _line(axes: Axes, height: int, row: Row, gap: Difference, baseline: Row | None) -> None:
    mark = MARKS[row.standing]
    if gap.low is not None and gap.high is not None:
        axes.plot([100 * gap.low, 100 * gap.high], [height, height], color=mark.colour, linewidth=2.2, zorder=3)
    singles = [100 * value for value in seed_differences(row, baseline)] if baseline else []
    if len(singles) > 1:
        below = [height - 0.24] * len(singles)
        axes.plot(singles, below, "|", color=MUTED, markersize=6, markeredgewidth=1.1, zorder=2)
    axes.plot(
        [100 * gap.mean],
        [height],
        mark.shape,
        color=mark.colour,
        markerfacecolor=mark.fill,
        markeredgewidth=1.8,
        markersize=8,
        zorder=4,
    )


def _frame(axes: Axes, shown: Sequence[tuple[Row, Difference]], primary: str | None, is_narrow: bool) -> None:
    axes.axvline(0, color=INK, linewidth=1.1, zorder=1)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.6, len(shown) - (0.2 if is_narrow else 0.4))
    axes.set_xlabel("difference in test accuracy, points")
    names = [_name(row, primary) for row, _ in shown]
    for height, (row, gap) in enumerate(shown):
        text = points(gap.mean) + (f"  ({interval(gap)})" if interval(gap) else "")
        ink = MUTED if MARKS[row.standing].colour == MUTED else INK
        if is_narrow:
            place = axes.get_yaxis_transform()
            axes.text(0, height + 0.34, names[height], transform=place, color=ink, fontsize=12, in_layout=False)
            axes.text(1, height + 0.34, points(gap.mean), transform=place, color=ink, ha="right", in_layout=False)
        else:
            place = axes.get_yaxis_transform()
            axes.text(1.02, height, text, transform=place, va="center", color=ink)
    if is_narrow:
        axes.set_yticks([])
    else:
        axes.set_yticks(range(len(shown)), names)
        axes.tick_params(axis="y", labelcolor=INK)
    axes.tick_params(axis="x", color=GRID)


def _name(row: Row, primary: str | None) -> str:
    against = "" if row.reference == primary else f" (to {condensed(row.reference or '', LETTERS // 2)})"
    return condensed(row.label, LETTERS - len(against)) + against
