"""Mean, spread and paired differences over seeds.

Not `scipy.stats.ttest_rel`, although it gives the same interval: it warns if all differences are equal, and importing
`scipy.stats` takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, sample standard deviation (None for one value) and number of values."""
    return {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else None, "n": len(values)}


def paired_difference(values: Sequence[float], baseline: Sequence[float], *, level: float = 0.95) -> dict[str, Any]:
    r"""Return the mean difference of pairs and its confidence interval, $\bar d \pm t_{n-1} s_d / \sqrt{n}$.

    Args:
        values: One value for each seed.
        baseline: The baseline's values for the same seeds, in the same order.
        level: Coverage of the interval.

    Raises:
        ValueError: If the lengths differ.
    """
    differences = [value - base for value, base in zip(values, baseline, strict=True)]
    mean, count = fmean(differences), len(differences)
    # One pair has no spread.
    if count < 2:
        return {"mean": mean, "low": None, "high": None, "n": count}
    from scipy.special import stdtrit

    # The two-sided quantile of Student's t.
    half = float(stdtrit(count - 1, (1 + level) / 2)) * stdev(differences) / math.sqrt(count)
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": count}
