"""How far two rankings agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two rankings: 1 for the same order, 0 for none in common, -1 for the opposite one.

    Args:
        one: A number for each item.
        other: A number for each item, in the same order.

    Returns:
        None if one of them puts all items at the same rank.
    """
    return _statistic("kendalltau", one, other)


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's rho of two rankings, the correlation of the ranks.

    Args:
        one: A number for each item.
        other: A number for each item, in the same order.

    Returns:
        None if one of them puts all items at the same rank.
    """
    return _statistic("spearmanr", one, other)


def _statistic(name: Literal["kendalltau", "spearmanr"], one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    # Imported late: commands that rank nothing do not wait for scipy.
    from scipy import stats

    return float(getattr(stats, name)(one, other).statistic)
