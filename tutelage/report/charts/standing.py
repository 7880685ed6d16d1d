"""How the charts mark a row's standing: by colour, shape and filling, so that no one of them carries it alone."""

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
