"""The finding of a comparison in one sober sentence, and what qualifies it."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.report.reading import Comparison, Difference, Row, Standing, baseline_of, rows
from tutelage.report.wording import estimate, interval, magnitude, percent, points, several


def verdict(comparison: Comparison) -> str:
    """Return what a comparison found, claiming no more than its intervals support.

    Args:
        comparison: A comparison of version 1.

    Returns:
        One sentence without its full stop.
    """
    entries = rows(comparison)
    finished = [row for row in entries if row.accuracy]
    if not finished:
        return "No run has finished, so there is nothing to compare"
    baseline = baseline_of(entries)
    compared = [row for row in finished if row.paired_best and baseline and row.reference == baseline.label]
    if baseline is None or not compared:
        return _alone(finished)
    judged = _judged(entries)
    winners = _winners(judged)
    if not judged:
        top = max(compared, key=_gain)
        side = "above" if _gain(top) >= 0 else "below"
        ended = f"{called(top, entries)} ended {magnitude(_gain(top))} points {side} {_base(baseline, entries)}"
        return f"{ended}, but one seed cannot tell that from noise"
    if winners:
        top = winners[0]
        beat = f"{called(top, entries)} beat {_base(baseline, entries)} by {magnitude(_gain(top))} points"
        return f"{beat} ({_range(top.paired_best)})"
    return _drawn(judged, entries, _base(baseline, entries))


def qualifications(comparison: Comparison) -> list[str]:
    """Return the sentences that belong beside the verdict: the last epoch, the other rows, how many were compared.

    Args:
        comparison: A comparison of version 1.
    """
    entries = rows(comparison)
    judged = _judged(entries)
    winners = _winners(judged)
    said = []
    if winners and winners[0].paired_last and winners[0].paired_last.low is not None:
        last = winners[0].paired_last
        said.append(f"At the last epoch the difference is {points(last.mean)} points ({interval(last)}).")
    if len(judged) > 1:
        baseline = next(row for row in entries if row.is_primary)
        said.append(_others(judged, winners, _base(baseline, entries)))
    for row in entries:
        if row.paired_best and not row.is_baseline and row not in judged and row.standing is not Standing.UNKNOWN:
            found = f"{points(_gain(row))} points ({interval(row.paired_best)})"
            said.append(f"{called(row, entries)} is compared with {row.reference}: {found}.")
    if len(judged) > 1:
        said.append(f"The intervals are not corrected for {len(judged)} comparisons.")
    return said


def called(row: Row, entries: Sequence[Row]) -> str:
    """Return the title of a row, with its options where several rows share the title."""
    shared = sum(other.title == row.title for other in entries) > 1
    if not shared or row.title == row.label:
        return row.title
    options = row.label.partition(":")[2] or row.label
    return f"{row.title} ({options.replace('=', ' ').replace('_', ' ').replace(',', ', ')})"


def _judged(entries: Sequence[Row]) -> list[Row]:
    primary = next((row.label for row in entries if row.is_primary), None)
    clear = {Standing.BETTER, Standing.WORSE, Standing.SAME}
    return [row for row in entries if row.standing in clear and row.reference == primary]


def _winners(judged: Sequence[Row]) -> list[Row]:
    return sorted((row for row in judged if row.standing is Standing.BETTER), key=_gain, reverse=True)


def _gain(row: Row) -> float:
    return row.paired_best.mean if row.paired_best else 0.0


def _base(baseline: Row, entries: Sequence[Row]) -> str:
    return "the plain student" if baseline.method in {"supervised", "plain"} else called(baseline, entries)


def _seeds(judged: Sequence[Row]) -> str:
    amounts = sorted({row.paired_best.n for row in judged if row.paired_best})
    return several(amounts[0], "seed") if len(amounts) == 1 else f"{amounts[0]} to {amounts[-1]} seeds"


def _alone(finished: Sequence[Row]) -> str:
    best = max(finished, key=lambda row: row.accuracy.mean if row.accuracy else 0.0)
    reached = best.accuracy
    assert reached is not None
    if len(finished) > 1:
        return (
            f"{called(best, finished)} has the highest mean, {percent(reached.mean)} % {_kind(best)}, with no baseline"
        )
    over = "one seed" if reached.n == 1 else several(reached.n, "seed")
    return f"{called(best, finished)} reached {estimate(reached)} % {_kind(best)} ({over})"


def _kind(row: Row) -> str:
    return row.metric.replace("_", " ")


def _drawn(judged: Sequence[Row], entries: Sequence[Row], base: str) -> str:
    if len(judged) > 1:
        return f"No method beat {base} beyond noise ({len(judged)} compared, {_seeds(judged)})"
    row = judged[0]
    if row.standing is Standing.WORSE:
        return f"{called(row, entries)} fell {magnitude(_gain(row))} points below {base} ({_range(row.paired_best)})"
    found = f"{points(_gain(row))} points, {_range(row.paired_best)}"
    return f"{called(row, entries)} did not beat {base} beyond noise ({found})"


def _others(judged: Sequence[Row], winners: Sequence[Row], base: str) -> str:
    below = sum(row.standing is Standing.WORSE for row in judged)
    level = len(judged) - below - len(winners)
    parts = []
    if len(winners) > 1:
        parts.append(f"{len(winners) - 1} also beat {base}")
    if level:
        parts.append(f"{level} showed no difference beyond noise")
    if below:
        parts.append(f"{below} fell below {'it' if len(winners) > 1 else base}")
    if winners and len(judged) == 2:
        return f"The other method {parts[0].removeprefix('1 ')}."
    lead = f"Of the {len(judged) - 1} other methods, " if winners else f"Of the {len(judged)} methods, "
    return f"{lead}{', '.join(parts)}."


def _range(difference: Difference | None) -> str:
    assert difference is not None
    assert difference.low is not None
    assert difference.high is not None
    if difference.low > 0:
        ends = f"{magnitude(difference.low)} to {magnitude(difference.high)}"
    elif difference.high < 0:
        ends = f"{magnitude(difference.high)} to {magnitude(difference.low)}"
    else:
        ends = interval(difference)
    return f"95 % interval {ends}, {several(difference.n, 'seed')}"
