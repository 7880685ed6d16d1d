"""How the renderings write numbers: per cent, points, times and counts."""

from __future__ import annotations

from tutelage.report.reading import Difference, Estimate

MINUS = "\u2212"
ABSENT = "\u2013"


def percent(fraction: float | None, *, digits: int = 2) -> str:
    """Return a fraction as per cent without the sign, such as `61.20`."""
    return ABSENT if fraction is None else f"{100 * fraction:.{digits}f}".replace("-", MINUS)


def points(fraction: float, *, digits: int = 2) -> str:
    """Return a signed difference in percentage points, such as `+2.10`."""
    text = f"{100 * fraction:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", MINUS)


def magnitude(fraction: float, *, digits: int = 2) -> str:
    """Return the size of a difference in percentage points without its sign."""
    return f"{abs(100 * fraction):.{digits}f}"


def estimate(value: Estimate | None) -> str:
    """Return a mean in per cent with its standard deviation over seeds, if there is one."""
    if value is None:
        return ABSENT
    return percent(value.mean) if value.std is None else f"{percent(value.mean)} \u00b1 {percent(value.std)}"


def interval(value: Difference) -> str:
    """Return the interval of a difference in points, or nothing when one seed gives none."""
    if value.low is None or value.high is None:
        return ""
    return f"{points(value.low)} to {points(value.high)}"


def decimal(value: float | None, *, digits: int = 3) -> str:
    """Return a plain number with fixed decimals."""
    return ABSENT if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """Return a time span with a unit that suits it."""
    if seconds is None:
        return ABSENT
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def cost(relative: float | None) -> str:
    """Return a cost as a multiple of the baseline's."""
    return ABSENT if relative is None else f"{relative:.2f}\u00d7"


def count(value: float | None) -> str:
    """Return a large count with a unit prefix, such as `11.2 M`."""
    if value is None:
        return ABSENT
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"


def shortened(text: str, most: int) -> str:
    """Return a text for a place that holds few letters, its end left out where it is longer."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def condensed(text: str, most: int) -> str:
    """Return a text with its middle left out where it is longer: rows that differ often differ at the end."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}\u2026{text[len(text) - end :]}"


def several(amount: int, noun: str) -> str:
    """Return an amount with its noun in the right number, such as `3 seeds`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"
