"""Shares of a piece of work that several processes or machines do together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from tutelage.errors import UserError


@dataclass(frozen=True)
class Part:
    """One of several processes or machines that share the work.

    Attributes:
        number: Which one, from 1.
        of: How many there are.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read a part such as `2/4`; None is the whole.

        Raises:
            UserError: If the text is not a part.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(
                f"part={text} does not fit: write 1/4, 2/4, 3/4 and 4/4 for four processes that share the work."
            )
        return cls(int(found[1]), int(found[2]))
