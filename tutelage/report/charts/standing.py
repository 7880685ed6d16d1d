<<<<<<< HEAD
"""How the charts mark a row's standing: by colour, shape and filling at once, since not all readers see each."""
=======
"""How the charts mark a row's standing: by colour, shape and filling, so that no one of them carries it alone."""
>>>>>>> 57d0cdd (Reports of other tasks are tested: an error of which lower is better, other shares, and nothing measured; digits fit values of any size)

from __future__ import annotations

from dataclasses import dataclass

from tutelage.report.charts.canvas import BLUE, INK, MUTED, PAPER, VERMILLION
from tutelage.report.rows import Standing


@dataclass(frozen=True)
class Mark:
    """A marker: its colour, its matplotlib shape and what fills it."""

    colour: str
    shape: str
    fill: str
    meaning: str


MARKS = {
    Standing.BASELINE: Mark(INK, "s", INK, "baseline"),
    Standing.BETTER: Mark(BLUE, "^", BLUE, "better than the baseline"),
    Standing.WORSE: Mark(VERMILLION, "v", VERMILLION, "worse than the baseline"),
    Standing.SAME: Mark(MUTED, "o", PAPER, "no difference beyond noise"),
    Standing.UNKNOWN: Mark(MUTED, "D", PAPER, "one seed, no interval"),
}
