"""The one way in which networks, data, methods and recordings are written: `NAME,key=value,key=value`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tutelage.errors import UserError

_OPTION = re.compile(r"\s*([^\W\d]\w*)\s*=")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Written:
    """A name with options, as they were written.

    Attributes:
        name: What stands before the options.
        options: The values as text, by key, in the order in which they were written.
    """

    name: str
    options: dict[str, str]


def read(text: str, *, kind: str, before: str = ",", is_place: bool = False, value: str = "value") -> Written:
    """Return the name and the options in a text.

    An option begins at a comma with `key=` behind it, outside quotes and brackets. So values may hold commas, as in
    `layers=a,b`, and so may names that are paths. A last comma does no harm.

    Args:
        text: Such as `tiny_cnn,width=8`.
        kind: What is named, for messages: `network`.
        before: What may stand before the first option; methods have a colon there too.
        is_place: Whether the name may be a path. Of what could be a path or options, what exists is a path.
        value: What a value is called in messages.

    Raises:
        UserError: If something that should be an option is none, or one is given twice.
    """
    starts: list[int] = []
    for start, mark in _marks(text):
        if mark in ("," if starts else before) and _OPTION.match(text, start + 1):
            starts.append(start)
    name, starts = _split_name(text, starts, is_place=is_place)
    options: dict[str, str] = {}
    for start, end in zip(starts, [*starts[1:], len(text)]):
        found = _OPTION.match(text, start + 1)
        assert found is not None
        key, given = found[1], text[found.end() : end].strip()
        if key in options:
            raise UserError(f"{key} is given twice in the {kind} {text!r}.")
        options[key] = given.removesuffix(",").rstrip() if end == len(text) else given
    if not (is_place and _exists(name)):
        name = name.removesuffix(",").rstrip()
        for start, mark in _marks(name):
            if mark == ",":
                raise no_option(name[start + 1 :], text, kind=kind, value=value)
    return Written(name, options)


def holds_options(text: str) -> bool:
    """Return whether a text, as the value of an option, would be read as that value and options behind it."""
    commas = (place for place, mark in _marks(text, in_options=True) if mark == ",")
    return any(_OPTION.match(text, comma + 1) or not text[comma + 1 :].strip() for comma in commas)


def no_option(part: str, text: str, *, kind: str, value: str = "value") -> UserError:
    """Return the error for what should be an option and is none.

    Args:
        part: The part.
        text: The whole in which it stands.
        kind: As in `read`.
        value: As in `read`.
    """
    part = part.partition(",")[0].strip()
    key = part if part.isidentifier() else "key"
    return UserError(f"{part!r} in the {kind} {text!r} is no option: write {key}={value}.")


def split_last(text: str, mark: str) -> tuple[str, str | None]:
    """Split at the last mark that is outside the quotes and brackets of options; None if there is none.

    Args:
        text: The whole.
        mark: One character.
    """
    places = [start for start, found in _marks(text, mark) if found == mark]
    return (text[: places[-1]], text[places[-1] + 1 :]) if places else (text, None)


def _split_name(text: str, starts: list[int], *, is_place: bool) -> tuple[str, list[int]]:
    """Return the name, and where the options begin that follow it."""
    ends = [*starts, len(text)]
    # The longest name that exists, else the shortest.
    count = max((n for n, end in enumerate(ends) if is_place and _exists(text[:end].strip())), default=0)
    return text[: ends[count]].strip(), starts[count:]


def _marks(text: str, more: str = "", *, in_options: bool = False) -> Iterator[tuple[int, str]]:
    """Yield commas, colons and further marks, outside of what quotes and brackets hold together.

    Those count in options, which begin at the first comma or `=`: a path before may have its own. A quote opens where a
    value begins.
    """
    closing: list[str] = []
    quote, escaped, previous = "", False, "="
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif in_options and character in "'\"" and previous in "=([{,:":
            quote = character
        elif in_options and character in _CLOSING:
            closing.append(_CLOSING[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif not closing and (character in ",:" or character in more):
            yield place, character
        in_options = in_options or character in ",="
        if not character.isspace():
            previous = character


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))  # noqa: PTH110, PTH111 - Path.exists raises for texts too long.
