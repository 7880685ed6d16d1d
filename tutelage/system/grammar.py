"""The common grammar of networks, data, methods and recordings: `NAME,key=value,key=value`."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.errors import UserError

_OPTION = re.compile(r"\s*([^\W\d]\w*)\s*=")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Written:
    """A name with options, as the user wrote them.

    Attributes:
        name: The text before the options.
        options: The values as text, by key, in the order in which they were written.
    """

    name: str
    options: dict[str, str]


def read(text: str, *, kind: str, before: str = ",", is_place: bool = False, value: str = "value") -> Written:
    """Return the name and the options in a text.

    An option begins at a comma followed by `key=`, outside quotes and brackets. So values may hold commas, as in
    `layers=a,b`, and so may names that are paths. A comma at the end is ignored.

    Args:
        text: The text to read, such as `tiny_cnn,width=8`.
        kind: The kind of thing that is named, for messages, such as `network`.
        before: Characters that may come before the first option; methods also allow a colon.
        is_place: Whether the name may be a path. Text that could be a path or options is a path if that exists.
        value: The word for a value in messages.

    Raises:
        UserError: If a part that should be an option is not one, or an option is given twice.
    """
    starts: list[int] = []
    for start, mark in _marks(text):
        # After the first option only a comma separates: a colon may be part of a value.
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
    # A comma that is still in the name stands before something that is not an option, unless the name is a path.
    if not (is_place and _exists(name)):
        name = name.removesuffix(",").rstrip()
        for start, mark in _marks(name):
            if mark == ",":
                raise no_option(name[start + 1 :], text, kind=kind, value=value)
    return Written(name, options)


def holds_options(text: str) -> bool:
    """Return whether a text, used as the value of an option, would be read as a shorter value and further options."""
    commas = (place for place, mark in _marks(text, in_options=True) if mark == ",")
    return any(_OPTION.match(text, comma + 1) or not text[comma + 1 :].strip() for comma in commas)


def no_option(part: str, text: str, *, kind: str, value: str = "value") -> UserError:
    """Return the error for a part that should be an option and is not one.

    Args:
        part: The part.
        text: The whole text.
        kind: The kind of thing that is named, such as `network`.
        value: The word for a value.
    """
    part = part.partition(",")[0].strip()
    key = part if part.isidentifier() else "key"
    return UserError(f"{part!r} in the {kind} {text!r} is not an option: write {key}={value}.")


def literal(text: str) -> Any:
    """Return the value that a text writes: a Python literal, `true`, `false` or `none`, else the text itself.

    Args:
        text: The value of an option.

    Raises:
        UserError: If it has quotes or brackets and is no Python literal.
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        if any(mark in text for mark in "'\"()[]{}"):
            raise UserError(f"The option value {text!r} is not a Python literal: {error}.") from error
        return text


def split_all(text: str, mark: str) -> list[str]:
    """Split at each mark outside quotes and brackets.

    Args:
        text: The value of an option.
        mark: One character.
    """
    places = [start for start, found in _marks(text, mark, in_options=True) if found == mark]
    return [text[start + 1 : end].strip() for start, end in zip([-1, *places], [*places, len(text)])]


def split_last(text: str, mark: str) -> tuple[str, str | None]:
    """Split at the last mark outside the quotes and brackets of options; the second part is None without a mark.

    Args:
        text: The text to split.
        mark: One character.
    """
    places = [start for start, found in _marks(text, mark) if found == mark]
    return (text[: places[-1]], text[places[-1] + 1 :]) if places else (text, None)


def _split_name(text: str, starts: list[int], *, is_place: bool) -> tuple[str, list[int]]:
    """Return the name, and the places where the options after it begin."""
    ends = [*starts, len(text)]
    # A path may itself look like a name with options: the longest one that exists wins, else the shortest name.
    count = max((n for n, end in enumerate(ends) if is_place and _exists(text[:end].strip())), default=0)
    return text[: ends[count]].strip(), starts[count:]


def _marks(text: str, more: str = "", *, in_options: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the places of commas, colons and further marks that are outside quotes and brackets.

    Quotes and brackets count only in options, from the first comma or `=` on: a path may hold some of its own. A quote
    opens only at the beginning of a value.
    """
    closing: list[str] = []
    quote, escaped, previous = "", False, "="
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        # A quote that does not begin a value is an apostrophe.
        elif in_options and character in "'\"" and previous in "=([{,:|":
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
