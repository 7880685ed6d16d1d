"""The finding of a comparison in one sober sentence, and what qualifies it."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.data.task import Metric
from tutelage.report.reading import Comparison
from tutelage.report.rows import Difference, Row, Standing, baseline_of, rows
from tutelage.report.wording import (
    as_shown,
    direction,
    estimate,
    interval,
    listed,
    magnitude,
    of_difference,
    reached,
    several,
    signed,
)


def verdict(comparison: Comparison) -> str:
    """Return what a comparison found, claiming no more than its intervals support.

    Args:
        comparison: A comparison of version 1.

    Returns:
        One sentence without its full stop.
    """
    entries = rows(comparison)
    finished = [row for row in entries if row.is_finished]
    if not finished:
        return "No run has finished, so there is nothing to compare"
    if not finished[0].measured.split:
        return f"{several(len(finished), 'row')} finished, but nothing was measured that could be compared"
    baseline = baseline_of(entries)
    # Only what was compared with the main baseline: the sentence names one.
    compared = [row for row in finished if row.paired_best and baseline and row.reference == baseline.label]
    if baseline is None or not compared:
        return _alone(finished)
    base, judged = _base(baseline, entries), _judged(entries)
    winners = _winners(judged)
    # One seed gives no interval, and so nothing is judged.
    if not judged:
        return _unclear(max(compared, key=_gain), entries, base)
    if not winners:
        return _drawn(judged, entries, base)
    top = winners[0]
    return f"{called(top, entries)} beat {base} by {_size(top)}{_of_what(top)} ({_basis(top)})"


def qualifications(comparison: Comparison) -> list[str]:
    """Return the sentences that belong beside the verdict: the last epoch, the other rows, how many were compared.

    Args:
        comparison: A comparison of version 1.
    """
    entries = rows(comparison)
    judged = _judged(entries)
    winners = _winners(judged)
    said = []
    # Where no epoch was chosen, the verdict is about the last one.
    top = winners[0] if winners and winners[0].measured.chosen_on else None
    if top and top.paired_last and top.paired_last.low is not None:
        found = _with_interval(top.paired_last, top.measured.metric)
        said.append(f"At the last epoch the difference is {found}.")
    # One comparison needs no word about the others.
    if len(judged) > 1:
        baseline = next(row for row in entries if row.is_primary)
        said.append(_others(judged, winners, _base(baseline, entries)))
    for row in entries:
        if row.paired_best and not row.is_baseline and row not in judged and row.standing is not Standing.UNKNOWN:
            found = _with_interval(row.paired_best, row.measured.metric)
            said.append(f"{called(row, entries)} is compared with {row.reference}: {found}.")
    if len(judged) > 1:
        said.append(f"The intervals are not corrected for {len(judged)} comparisons.")
    return said


def called(row: Row, entries: Sequence[Row]) -> str:
    """Return the title of a row, with its options where several rows share the title."""
    shared = sum(other.title == row.title for other in entries) > 1
    # The options tell rows of one title apart.
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
    return row.gain


def _base(baseline: Row, entries: Sequence[Row]) -> str:
    return "the plain student" if baseline.is_plain else called(baseline, entries)


def _seeds(judged: Sequence[Row]) -> str:
    amounts = sorted({row.paired_best.n for row in judged if row.paired_best})
    return several(amounts[0], "seed") if len(amounts) == 1 else f"{amounts[0]} to {amounts[-1]} seeds"


def _alone(finished: Sequence[Row]) -> str:
    """Return the sentence for rows that are not compared: the best mean, or the only one."""
    best = max(finished, key=_level)
    measured, score = best.measured, best.score
    assert score is not None
    if len(finished) > 1:
        found = reached(as_shown(score.mean, measured.metric), measured)
        which = "highest" if measured.metric.higher_is_better else "lowest"
        return f"{called(best, finished)} has the {which} mean, {found}, with no baseline"
    seeds = "one seed" if score.n == 1 else several(score.n, "seed")
    found = reached(estimate(score, measured.metric), measured)
    return f"{called(best, finished)} reached {found} ({listed(direction(measured.metric), seeds)})"


def _level(row: Row) -> float:
    """Return a row's mean with the sign that makes higher better for every metric."""
    mean = row.score.mean if row.score else 0.0
    return mean if row.measured.metric.higher_is_better else -mean


def _unclear(row: Row, entries: Sequence[Row], base: str) -> str:
    gap = row.paired_best.mean if row.paired_best else 0.0
    side = f"{'above' if gap >= 0 else 'below'} {base}{_of_what(row)}"
    reminder = direction(row.measured.metric)
    side += f" ({reminder})" if reminder else ""
    return f"{called(row, entries)} ended {_size(row)} {side}, but one seed cannot tell that from noise"


def _drawn(judged: Sequence[Row], entries: Sequence[Row], base: str) -> str:
    """Return the sentence for rows none of which is better than the baseline."""
    if len(judged) > 1:
        return f"No method beat {base} beyond noise ({len(judged)} compared, {_seeds(judged)})"
    row = judged[0]
    metric, gap = row.measured.metric, row.paired_best
    assert gap is not None
    if row.standing is Standing.WORSE:
        verb, side = ("fell", "below") if metric.higher_is_better else ("ended", "above")
        return f"{called(row, entries)} {verb} {_size(row)} {side} {base}{_of_what(row)} ({_basis(row)})"
    found = f"{of_difference(signed(gap.mean, metric), metric)}{_of_what(row)}"
    return f"{called(row, entries)} did not beat {base} beyond noise ({found}, {_basis(row)})"


def _others(judged: Sequence[Row], winners: Sequence[Row], base: str) -> str:
    worse = sum(row.standing is Standing.WORSE for row in judged)
    level = len(judged) - worse - len(winners)
    parts = []
    if len(winners) > 1:
        parts.append(f"{len(winners) - 1} also beat {base}")
    if level:
        parts.append(f"{level} showed no difference beyond noise")
    if worse:
        # To fall below sounds like a success where lower is better.
        verb = "fell below" if judged[0].measured.metric.higher_is_better else "did worse than"
        parts.append(f"{worse} {verb} {'it' if len(winners) > 1 else base}")
    if winners and len(judged) == 2:
        return f"The other method {parts[0].removeprefix('1 ')}."
    lead = f"Of the {len(judged) - 1} other methods, " if winners else f"Of the {len(judged)} methods, "
    return f"{lead}{', '.join(parts)}."


def _size(row: Row) -> str:
    """Return how far a row is from the baseline, without a sign, such as `2.10 points`."""
    metric = row.measured.metric
    return of_difference(magnitude(row.gain, metric), metric)


def _of_what(row: Row) -> str:
    """Return what differs, such as ` in test RMSE`; points of a share need no such word."""
    metric = row.measured.metric
    return "" if metric.unit == "share" and metric.higher_is_better else f" in {row.measured.title}"


def _basis(row: Row) -> str:
    """Return what a claim rests on: a reminder where lower is better, the interval and the number of seeds."""
    gap, metric = row.paired_best, row.measured.metric
    assert gap is not None
    assert gap.low is not None
    assert gap.high is not None
    # Without signs, because the sentence says which way. An interval around zero keeps them.
    if gap.low > 0:
        ends = f"{magnitude(gap.low, metric)} to {magnitude(gap.high, metric)}"
    elif gap.high < 0:
        ends = f"{magnitude(gap.high, metric)} to {magnitude(gap.low, metric)}"
    else:
        ends = interval(gap, metric)
    return listed(direction(metric), f"95 % interval {ends}", several(gap.n, "seed"))


def _with_interval(gap: Difference, metric: Metric) -> str:
    return f"{of_difference(signed(gap.mean, metric), metric)} ({interval(gap, metric)})"
