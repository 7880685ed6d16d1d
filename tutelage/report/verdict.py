"""The finding of a comparison in one sober sentence."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.report.reading import Comparison, Difference, Row, Standing, baseline_of, rows
from tutelage.report.wording import estimate, interval, percent, points, several


def verdict(comparison: Comparison) -> str:
    """Return what a comparison found, claiming no more than its intervals support.

    Args:
        comparison: A comparison of version 1.
    """
    entries = rows(comparison)
    finished = [row for row in entries if row.accuracy]
    if not finished:
        return "No run has finished, so there is nothing to compare."
    baseline = baseline_of(entries)
    compared = [row for row in finished if row.paired_best]
    if baseline is None or not compared:
        return _alone(finished)
    base = "the plain student" if baseline.method in {"supervised", "plain"} else called(baseline, entries)
    judged = [row for row in compared if row.standing is not Standing.UNKNOWN]
    if not judged:
        return _one_seed(compared, entries, base)
    winners = sorted((row for row in judged if row.standing is Standing.BETTER), key=_gain, reverse=True)
    losers = [row for row in judged if row.standing is Standing.WORSE]
    if winners:
        return _won(winners, judged, entries, base)
    return _drawn(judged, losers, entries, base)


def called(row: Row, entries: Sequence[Row]) -> str:
    """Return the title of a row, with its label where several rows share the title."""
    shared = sum(other.title == row.title for other in entries) > 1
    return f"{row.title} ({row.label})" if shared and row.title != row.label else row.title


def _gain(row: Row) -> float:
    return row.paired_best.mean if row.paired_best else 0.0


def _seeds(compared: Sequence[Row]) -> str:
    amounts = sorted({row.paired_best.n for row in compared if row.paired_best})
    return several(amounts[0], "seed") if len(amounts) == 1 else f"{amounts[0]} to {amounts[-1]} seeds"


def _alone(finished: Sequence[Row]) -> str:
    best = max(finished, key=lambda row: row.accuracy.mean if row.accuracy else 0.0)
    reached = best.accuracy
    assert reached is not None
    if len(finished) > 1:
        return f"{called(best, finished)} reached the highest mean, {percent(reached.mean)} % test accuracy; no baseline"
    over = "one seed" if reached.n == 1 else several(reached.n, "seed")
    return f"{called(best, finished)} reached {estimate(reached)} % test accuracy ({over})"


def _one_seed(compared: Sequence[Row], entries: Sequence[Row], base: str) -> str:
    top = max(compared, key=_gain)
    found = f"{called(top, entries)} ended {points(_gain(top))} points from {base}"
    return f"One seed cannot tell a difference from noise: {found}"


def _won(winners: Sequence[Row], judged: Sequence[Row], entries: Sequence[Row], base: str) -> str:
    top = winners[0]
    gain = f"{called(top, entries)} {points(_gain(top))} points over {base} ({_range(top.paired_best)})"
    if len(judged) == 1:
        return gain
    more = len(winners) - 1
    others = f"{more} of {several(len(judged) - 1, 'other row')}" if more else "no other row"
    return f"{gain}; {others} beat it beyond noise"


def _drawn(judged: Sequence[Row], losers: Sequence[Row], entries: Sequence[Row], base: str) -> str:
    if len(judged) == 1:
        row = judged[0]
        verb = "fell below" if losers else "did not beat"
        found = f"{points(_gain(row))} points, {_range(row.paired_best)}"
        return f"{called(row, entries)} {verb} {base}{'' if losers else ' beyond noise'} ({found})"
    below = f"; {len(losers)} fell below it" if losers else ""
    return f"No method beat {base} beyond noise ({several(len(judged), 'row')}, {_seeds(judged)}){below}"


def _range(difference: Difference | None) -> str:
    assert difference is not None
    return f"95 % interval {interval(difference)}, {several(difference.n, 'seed')}"
