"""The small interval bars inside the table: one shared scale, one bar per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.data.task import Metric
from tutelage.report.rows import Difference, Row

# In the units of the SVG: its width, and what is left free at either end.
WIDTH = 150.0
EDGE = 8.0


@dataclass(frozen=True)
class Bar:
    """The horizontal places of one bar, in the units of its SVG."""

    mean: float
    low: float | None
    high: float | None
    standing: str


@dataclass(frozen=True)
class Scale:
    """The shared scale: where zero lies and which marks the table's head shows.

    Attributes:
        low: The difference at its left end.
        high: The difference at its right end.
        metric: What differs.
    """

    low: float
    high: float
    metric: Metric

    def place(self, difference: float) -> float:
        """Return the horizontal place of a difference, held inside the bar."""
        # What lies beyond the scale is drawn at its end.
        share = (min(max(difference, self.low), self.high) - self.low) / (self.high - self.low)
        return round(EDGE + (WIDTH - 2 * EDGE) * share, 2)

    @property
    def zero(self) -> float:
        """Return the place of no difference."""
        return self.place(0.0)

    @property
    def marks(self) -> list[tuple[float, str]]:
        """Return the places and texts of the marks: a round step to either side of zero."""
        scale = self.metric.scale
        reach = scale * max(-self.low, self.high)
        power = 10.0 ** math.floor(math.log10(reach))
        # The largest of 1, 2 and 5 times a power of ten that fits in.
        step = next((power * lead for lead in (5, 2, 1) if power * lead <= reach), power)
        # A side that does not reach as far has no mark.
        values = [value for value in (-step, 0.0, step) if self.low <= value / scale <= self.high]
        return [(self.place(value / scale), f"{value:+g}".replace("-", "\u2212") if value else "0") for value in values]

    def bar(self, row: Row) -> Bar | None:
        """Return the bar of a row, or nothing where it has no difference."""
        gap = row.paired_best
        if gap is None:
            return None
        low, high = (None if end is None else self.place(end) for end in (gap.low, gap.high))
        return Bar(self.place(gap.mean), low, high, row.standing.value)


def scale_of(entries: Sequence[Row]) -> Scale | None:
    """Return the scale that holds every interval of the rows, or nothing when there is none."""
    gaps = [row.paired_best for row in entries if row.paired_best]
    if not gaps:
        return None
    # Zero is always in sight, because it is the baseline.
    ends = [0.0, *(end for gap in gaps for end in _ends(gap))]
    low, high = min(ends), max(ends)
    metric = entries[0].measured.metric
    # Ten of the smallest steps that the table shows.
    room = max(0.05 * (high - low), 10 * 10.0**-metric.digits / metric.scale)
    return Scale(low - room, high + room, metric)


def _ends(gap: Difference) -> tuple[float, ...]:
    return tuple(end for end in (gap.mean, gap.low, gap.high) if end is not None)
