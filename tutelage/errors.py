"""Errors that a user can mend, and the nearest-name hint that most of them carry."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user can mend. The message says what was wrong, where, and the fix.

    The command line prints it without a traceback and exits with code 2.
    """


class NoLayersError(UserError):
    """A method that reads layers met a teacher of which only logits leave."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist, with the nearest names that do.

    Args:
        kind: What was asked for, such as `"method"`.
        name: The name that was not found.
        known: All names that exist.
    """
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(known)}."
    return UserError(f"There is no {kind} named {name!r}. {hint}")
