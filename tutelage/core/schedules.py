"""Weights and temperatures as functions of `Progress`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tutelage.core.method import Progress
from tutelage.errors import UserError

Schedule = Callable[[Progress], float]


def constant(value: float) -> Schedule:
    """Return a schedule that always gives `value`."""
    return lambda progress: value


def linear(start: float, end: float, *, until: float = 1.0) -> Schedule:
    r"""Return a straight line from `start` to `end`. It reaches `end` at the share `until` of the run and stays there.

    Raises:
        UserError: If `until` is not in (0, 1].
    """
    _check_share(until)
    return lambda progress: start + (end - start) * min(1.0, progress.fraction / until)


def cosine(start: float, end: float, *, until: float = 1.0) -> Schedule:
    r"""Return $e + (s - e)(1 + \cos \pi f)/2$: half a cosine from `start` to `end`, which it reaches at `until`.

    Raises:
        UserError: If `until` is not in (0, 1].
    """
    _check_share(until)

    def value(progress: Progress) -> float:
        fraction = min(1.0, progress.fraction / until)
        return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2

    return value


def steps(value: float, *, milestones: Sequence[float], gamma: float) -> Schedule:
    """Return stairs: `value`, multiplied by `gamma` at each milestone that the run has reached.

    Args:
        value: The value before the first milestone.
        milestones: Shares of the run, in rising order.
        gamma: Factor at each milestone.

    Raises:
        UserError: If the milestones do not rise, or one is not between 0 and 1.
    """
    shares = tuple(milestones)
    check_milestones(shares)
    return lambda progress: value * gamma ** sum(progress.fraction >= share for share in shares)


def ramp(value: float, *, epochs: int) -> Schedule:
    """Return a warm-up: `value` times (epoch + 1) / `epochs`, then `value`."""
    if epochs < 1:
        raise UserError(f"A warm-up takes at least one epoch, not {epochs}.")
    # Counted from 1, so that the first epoch has some weight.
    return lambda progress: value * min(1.0, (progress.epoch + 1) / epochs)


def check_milestones(shares: Sequence[float]) -> None:
    """Refuse milestones that do not rise, or lie outside the run.

    Raises:
        UserError: If they do.
    """
    # At 0 the value would never be the one that was given, at 1 nothing is left of the run.
    if list(shares) != sorted(shares) or not all(0 < share < 1 for share in shares):
        raise UserError(f"milestones={list(shares)} must be rising shares of the run, between 0 and 1.")


def _check_share(until: float) -> None:
    if not 0 < until <= 1:
        raise UserError(f"until={until} must be a share of the run: choose a number above 0 and at most 1.")
