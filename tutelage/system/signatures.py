"""Functions that take the arguments of another one, so that a signature is written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def same_arguments(source: Callable[P, Any]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Return a decorator for a function that passes all of its arguments on to `source`.

    `help`, editors and type checkers then show the arguments of `source`, with the function's own return type.

    Args:
        source: The function whose arguments are meant.
    """

    def decorate(function: Callable[..., R]) -> Callable[P, R]:
        returned = inspect.signature(function).return_annotation
        # `inspect.signature` reads this attribute first, and `help` and editors ask it.
        function.__signature__ = inspect.signature(source).replace(return_annotation=returned)  # type: ignore[attr-defined]
        return function

    return decorate
