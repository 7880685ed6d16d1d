"""Checks of users' values against the types and ranges of a signature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tutelage.errors import UserError

_WORDS: Mapping[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "none",
}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """A range of accepted numbers.

    Attributes:
        least: Lower bound, itself accepted.
        below: Upper bound, itself not accepted.
        above: Lower bound, itself not accepted.
    """

    least: float = -math.inf
    below: float = math.inf
    above: float = -math.inf

    def __contains__(self, number: float) -> bool:
        return self.least <= number < self.below and number > self.above

    def __str__(self) -> str:
        if self.below < math.inf:
            return f"from {self.least:g} to below {self.below:g}"
        return f"above {self.above:g}" if self.above > -math.inf else f"of {self.least:g} or more"


Count = Annotated[int, Range(least=1)]
Positive = Annotated[float, Range(above=0)]
Share = Annotated[float, Range(least=0, below=1)]


def check(name: str, value: Any, kind: Any, *, of: str) -> None:
    """Refuse a value that does not have a parameter's type, or is out of its range.

    Args:
        name: The option.
        value: Its value.
        kind: The parameter's annotation. Annotations other than plain types, unions and sequences accept everything.
        of: The owner of the option, for the message.

    Raises:
        UserError: If the value does not fit; the message says what would.
    """
    if not _fits(value, kind):
        raise UserError(f"{of} takes {name} as {_in_words(kind)}, not {value!r}.")


def check_all(options: Mapping[str, Any], function: Callable[..., Any], *, of: str) -> None:
    """Check options against a function's annotations. If the annotations cannot be read, nothing is checked.

    Args:
        options: The values by name.
        function: A function, a partial function or a class.
        of: The owner of the options, for the message.

    Raises:
        UserError: If a value does not fit.
    """
    # A partial function has no annotations of its own.
    function = getattr(function, "func", function)
    try:
        # The hints of a class itself would be those of its attributes, not of its arguments.
        made_by = getattr(function, "__init__") if isinstance(function, type) else function  # noqa: B009 - for mypy
        kinds = get_type_hints(made_by, include_extras=True)
    # Annotations may name what was imported for type checkers alone.
    except (NameError, TypeError, AttributeError):
        return
    for name, value in options.items():
        if name in kinds:
            check(name, value, kinds[name], of=of)


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limits = [limit for limit in arguments[1:] if isinstance(limit, Range)]
        return _fits(value, arguments[0]) and all(value in limit for limit in limits)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if origin in (list, tuple, Sequence):
        items = [one for one in arguments if one is not Ellipsis]
        is_fixed = origin is tuple and Ellipsis not in arguments
        is_row = isinstance(value, list | tuple) and (not is_fixed or len(value) == len(items))
        return is_row and all(_fits(one, items[n if is_fixed else 0]) for n, one in enumerate(value) if items)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        # True and False are ints in Python, but no user means a number by them.
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (bool, str, NoneType):
        return isinstance(value, kind)
    return True


def _in_words(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([_in_words(arguments[0]), *(str(limit) for limit in arguments[1:] if isinstance(limit, Range))])
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, arguments))
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (list, tuple, Sequence):
        items = [_in_words(one) for one in arguments if one is not Ellipsis]
        is_fixed = origin is tuple and Ellipsis not in arguments
        return (
            f"({', '.join(items)})" if is_fixed else f"a list in brackets, each item {items[0] if items else 'a value'}"
        )
    return _WORDS.get(kind, "a value")
