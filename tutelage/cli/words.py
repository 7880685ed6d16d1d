"""What was typed, made ready for the parser: presets, flags of several values, dashes.

Presets are read here and not by jsonargparse's `ActionConfigFile`: they have names, a flag that is typed wins wherever
it stands, and one that names code is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import yaml

from tutelage.errors import UserError, unknown

PRESETS = Path(__file__).parent / "presets"
# The flag that lets code run which only a file names.
TRUST = "--trust_code"
# A flag among words. Two hyphens inside a word, as in a path, begin none.
_FLAG = re.compile(r"(?<![\w/.-])--[a-z]\w*")


def leading(words: Sequence[str]) -> Sequence[str]:
    """Return the words before the first flag."""
    count = next((position for position, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:count]


def asks_for_help(words: Sequence[str]) -> bool:
    """Return whether help is asked for among the words."""
    return "-h" in words or "--help" in words


def underscored(word: str) -> str:
    """Return a flag with underscores, as the signatures have them; people type either."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value


def hyphened(text: str) -> str:
    """Return a text whose flags are written with hyphens, as people are used to."""
    return _FLAG.sub(lambda flag: flag[0].replace("_", "-"), text)


def gathered(words: Sequence[str], several: Set[str]) -> list[str]:
    """Return the words with the values of each flag that takes several as one list: `--student A B`."""
    kept: list[str] = []
    lists: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in words:
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            # A flag that comes twice adds to its values.
            current = lists.setdefault(flag, []) if flag in several else None
            found = [value] if equals else []
        else:
            found = [word]
        if current is None:
            kept.append(word)
        else:
            current.extend(found)
    # As JSON, which the parser reads as one list whatever the values look like.
    return [*kept, *(f"{flag}={json.dumps(values)}" if values else flag for flag, values in lists.items())]


def with_presets(words: Sequence[str], known: Set[str], several: Set[str]) -> list[str]:
    """Return the flags that presets stand for, a later one's over an earlier one's; what is typed wins over them."""
    presets: dict[str, list[str]] = {}
    typed: list[str] = []
    # A flag that is typed covers the same one in a preset.
    heeded = {flag for word in words if (flag := word.partition("=")[0]).startswith("--")}
    if _trusts(words):
        heeded |= known
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag == "--preset":
            presets |= _preset(value if equals else next(rest, ""), known, several, heeded=heeded)
        else:
            typed.append(word)
    # Of a flag that takes several values, those that are typed would else join the preset's. Of any other the last one
    # wins, and the preset's is still looked at: a preset that does not fit is an error whatever is typed.
    over = several & {word.partition("=")[0] for word in typed}
    return [*(word for flag, found in presets.items() if flag not in over for word in found), *typed]


def preset_names() -> list[str]:
    """Return the names of the presets that come with the package."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def _trusts(words: Sequence[str]) -> bool:
    """Return whether --trust-code is typed, and not switched off."""
    given = [
        value if equals else following if not following.startswith("-") else ""
        for word, following in zip(words, [*words[1:], ""])
        for flag, equals, value in [word.partition("=")]
        if flag == TRUST
    ]
    return bool(given) and given[-1].lower() not in ("false", "no", "off", "0")


def _preset(name: str, known: Set[str], several: Set[str], *, heeded: Set[str]) -> dict[str, list[str]]:
    # A file of the user wins over a preset of that name.
    file = Path(name) if Path(name).is_file() else PRESETS / f"{name}.yaml"
    if not file.exists():
        raise unknown("preset", name, preset_names())
    try:
        # Never anything but plain values: a preset must not make objects.
        values = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"The preset {file} is not YAML: {error}") from error
    if not isinstance(values, dict) or any(isinstance(value, dict) for value in values.values()):
        raise UserError(f"The preset {file} must be flat: one `name: value` a line, without nesting.")
    given, values = values, {str(key).replace("-", "_"): value for key, value in values.items()}
    if len(values) < len(given):
        raise UserError(f"The preset {file} has a flag both with hyphens and with underscores: keep one of them.")
    for key in values:
        if f"--{key}" not in known:
            raise unknown(f"flag (in the preset {file.name})", hyphened(f"--{key}"), map(hyphened, known))
    if TRUST.removeprefix("--") in values:
        raise UserError(
            f"The preset {file} asks to trust code, which only you may decide: type {hyphened(TRUST)} yourself."
        )
    # Our own presets may name what they like.
    if file.parent != PRESETS:
        _refuse_code(file, {key: value for key, value in values.items() if f"--{key}" not in heeded})
    return {f"--{key}": _flag(f"--{key}", value, several) for key, value in values.items()}


def _refuse_code(file: Path, values: Mapping[str, Any]) -> None:
    """Refuse values of a preset by which code would run that nobody typed.

    Raises:
        UserError: If they name a factory, a method or a task by an import path or a file.
    """
    for key, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            code = _code(key, str(text))
            if code is not None:
                raise UserError(
                    f"The preset {file} names code that would run: {code} (as {key}). Nothing was run. If you trust "
                    f"it, add {hyphened(TRUST)}, or type the flag --{key} yourself."
                )


def _code(key: str, text: str) -> str | None:
    """Return the code that the value of a flag names; None if it names none."""
    from tutelage.experiments.choice import imported
    from tutelage.models.spec import NetworkSpec

    if key in ("student", "teacher"):
        try:
            return NetworkSpec.parse(text).code
        except UserError:
            # Whatever is wrong with it is told where it is read.
            return None
    if key == "task":
        return text if ":" in text else None
    return imported(text) if key == "method" else None


def _flag(flag: str, value: Any, several: Set[str]) -> list[str]:
    if flag in several and isinstance(value, list):
        return [flag, *map(str, value)]
    # As one word, because a value may begin with a hyphen.
    return [f"{flag}={'null' if value is None else value}"]
