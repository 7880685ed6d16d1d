"""A temperature that falls over a run."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.core.method import Progress
from tutelage.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """A temperature that first stays constant, then falls in a straight line to one, and stays there.

    Attributes:
        temperature: The temperature at the start, one or above.
        hold: Share of the run during which it stays there.
        fall: Share of the run during which it falls; with 0 it drops at once.

    Raises:
        UserError: If the temperature is below one, or the shares are negative or more than 1 together.
    """

    temperature: float
    hold: float
    fall: float

    def __post_init__(self) -> None:
        if not self.temperature >= 1:
            raise UserError(f"temperature={self.temperature} must be 1 or above: it falls to 1.")
        if not (self.hold >= 0 and self.fall >= 0 and self.hold + self.fall <= 1):
            raise UserError(
                f"hold={self.hold} and fall={self.fall} must be zero or more, and at most 1 together: shares of the "
                "run."
            )

    def __call__(self, progress: Progress) -> float:
        """Return the temperature at this point of the run."""
        since = progress.fraction - self.hold
        if since < 0:
            return self.temperature
        # Without a fall there is nothing to divide by: the temperature is at its end at once.
        done = min(1.0, since / self.fall) if self.fall > 0 else 1.0
        return self.temperature + (1 - self.temperature) * done
