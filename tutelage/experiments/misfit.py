"""Translation of the parser's messages about wrong values into the words of the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "none"}
_KIND = r"(?:<class '\w+'>|typing\.Literal\[[^\]]*\])"
# Three ways in which versions of jsonargparse say what is missing: since 4.48, since 4.44, and before.
_MISSING = re.compile(
    r"(?:the following arguments are required: |Option '|Validation failed: Key \")([\w, ]+)(?:$|['\"] is required)"
)


@dataclass(frozen=True)
class Misfit:
    """A value that does not fit.

    Attributes:
        name: Name of the flag or option.
        value: The value as given.
        wanted: The values that would fit, in words.
    """

    name: str
    value: str
    wanted: str


def misfit(message: str) -> Misfit | None:
    """Return the misfit that a message of the parser reports; None if it reports something else.

    Args:
        message: The message of jsonargparse.
    """
    # jsonargparse's messages show Python types, which say little to a user.
    key = re.match(r'Parser key "(.*?)":', message)
    value = re.search(r"(?:Got value|Given value): (.*)", message, re.DOTALL)
    # Versions of jsonargparse differ in their order: none goes last.
    wanted = sorted((_in_words(kind) for kind in re.findall(rf"Expected a ({_KIND})", message)), key="none".__eq__)
    if key is None or value is None or not wanted:
        return None
    return Misfit(key[1], value[1].strip(), " or ".join(wanted))


def missing(message: str) -> list[str]:
    """Return the names of flags or options that a message of the parser asks for; none if it reports something else.

    Args:
        message: The message of jsonargparse.
    """
    found = _MISSING.match(message)
    return [name.strip() for name in found[1].split(",")] if found else []


def _in_words(kind: str) -> str:
    if found := re.fullmatch(r"<class '(\w+)'>", kind):
        return _KINDS.get(found[1], found[1])
    return "one of " + kind.partition("[")[2].rstrip("]").replace("'", "")
