"""Limits on the size of the networks of a search: `params=0.5M,multiply_adds=70M`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Protocol

from tutelage.errors import UserError, unknown
from tutelage.system.grammar import read

_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgb]?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000, "b": 1_000_000_000}
_NAMES = {"params": "parameters", "parameters": "parameters", "multiply_adds": "multiply_adds", "macs": "multiply_adds"}
_WORDS = {"parameters": "parameters", "multiply_adds": "multiply-adds"}


class Sized(Protocol):
    """Something of which these quantities are known or can be counted."""

    @property
    def parameters(self) -> int:
        """Parameters."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one sample."""


@dataclass(frozen=True)
class Limits:
    """What the size of a network must be.

    Attributes:
        text: The limits as the user wrote them; empty if there are none.
        ranges: The least and the most allowed, by the name of a quantity of `Sized`.
    """

    text: str = ""
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Limits:
        """Read limits.

        Args:
            text: `params=0.5M,multiply_adds=70M`; `params=0.1M..0.5M` has a lower limit too. None for no limits.

        Raises:
            UserError: If a quantity is unknown, or its limit is no number.
        """
        if not text:
            return cls()
        # The grammar wants a name before the options.
        written = read(f"limits,{text}", kind="limit")
        ranges = {}
        for name, value in written.options.items():
            if name not in _NAMES:
                raise unknown("limit", name, ("params", "multiply_adds"))
            if _NAMES[name] in ranges:
                raise UserError(f"The limit {text!r} has {_WORDS[_NAMES[name]]} twice.")
            low, dots, high = value.rpartition("..")
            found = (_number(low, name, text) if dots else 0.0, _number(high, name, text))
            if found[0] > found[1]:
                raise UserError(f"{name}={value} in the limit {text!r} runs from a larger to a smaller number.")
            ranges[_NAMES[name]] = found
        return cls(text, ranges)

    def broken_by(self, size: Sized) -> str | None:
        """Return which limit a network breaks, in words; None if it keeps all. What has no limit is not asked for."""
        for name, (low, high) in self.ranges.items():
            found = getattr(size, name)
            if not low <= found <= high:
                return f"{amount(found)} {_WORDS[name]}, {'over' if found > high else 'under'} the limit"
        return None

    def __str__(self) -> str:
        each = [
            f"{amount(low)} to {amount(high)} {_WORDS[name]}" if low else f"at most {amount(high)} {_WORDS[name]}"
            for name, (low, high) in self.ranges.items()
        ]
        return " and ".join(each) or "no limits"


def amount(number: float) -> str:
    """Return a large number for a person to read, such as `0.48 M`, with three digits that count."""
    if number < 1000:
        return f"{number:.0f}"
    unit, factor = ("k", 1e3) if number < 99_950 else ("M", 1e6) if number < 999.5e6 else ("G", 1e9)
    digits = max(0, 2 - math.floor(math.log10(number / factor)))
    return f"{number / factor:.{min(digits, 2)}f} {unit}"


def _number(text: str, name: str, limits: str) -> float:
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        raise UserError(
            f"{name}={text} in the limit {limits!r} is no number: write {name}=0.5M, {name}=500k or a range."
        )
    return float(found[1]) * _FACTORS[found[2].lower()]
