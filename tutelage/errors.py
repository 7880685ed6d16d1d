"""Errors that a user can fix, hints with the nearest names, and notices that stop nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

_KEPT: ContextVar[list[str] | None] = ContextVar("_KEPT", default=None)


class UserError(ValueError):
    """An error that the user can fix. The message says what was wrong, where, and the fix.

    The command line prints it without a traceback and exits with code 2.
    """


class Notice(UserWarning):
    """A warning about a user's data or networks. Nothing stops; the command line prints it as a line."""


class NoLayersError(UserError):
    """A method reads layers, and its teacher gives only logits."""


def notice(text: str) -> None:
    """Tell the user how something that they passed is understood.

    Args:
        text: What was found, how it is read, and what to do if something else is meant.
    """
    kept = _KEPT.get()
    if kept is not None:
        kept.append(text)
    # Level 3 is the code that called the function in which something was found.
    warnings.warn(text, Notice, stacklevel=3)


@contextmanager
def kept_notices() -> Iterator[list[str]]:
    """Collect the texts of all notices in a block. They are still shown; a cached result can repeat them later."""
    kept: list[str] = []
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist, with the nearest names that do.

    Args:
        kind: What was asked for, such as `"method"`.
        name: The name that was not found.
        known: All names that exist.
    """
    known = sorted(known)
    # Python's default is 0.6, at which `ps` would not suggest `sp`.
    near = get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known: {', '.join(known)}."
    return UserError(f"There is no {kind} named {name!r}. {hint}")
