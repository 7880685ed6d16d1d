"""Flags from typed signatures: how the words of a command are read."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from tutelage.cli.words import gathered, hyphened, preset_names, underscored, with_presets
from tutelage.core.registry import Entry
from tutelage.errors import UserError, unknown
from tutelage.experiments.hyper_parameters import add_hyper_parameters
from tutelage.experiments.misfit import misfit, missing

T = TypeVar("T")


class Found:
    """The values of the flags, by name."""

    def __init__(self, values: Namespace) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        # Flags depend on the method, so no class could list them.
        return self._values[name]

    def make(self, kind: type[T]) -> T:
        """Return a dataclass filled from the flags of the same names."""
        return kind(**{field.name: self._values[field.name] for field in fields(kind)})  # type: ignore[arg-type]

    def changed(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Return the flags among some names whose value is not the default."""
        return {name: self._values[name] for name, default in defaults.items() if self._values[name] != default}


def parse(
    command: Callable[..., Any],
    words: Sequence[str],
    *groups: type,
    entry: Entry | None = None,
    after: str = "",
    presets: bool = False,
) -> Found:
    """Return the values of a command's flags.

    Args:
        command: The command, whose docstring is its help.
        words: What was typed after the command and its names.
        *groups: Dataclasses whose fields are flags.
        entry: A method whose hyper-parameters are flags too.
        after: What stands between the command and the flags, for the usage line.
        presets: Whether the command takes presets.

    Raises:
        UserError: If a flag is unknown (with the nearest), a value does not fit, or a preset is malformed.
    """
    parser = _parser(command, groups, entry, after, presets=presets)
    # Before anything is compared, because people type hyphens too.
    words = [underscored(word) for word in words]
    # Before the flags are checked, so that help comes in spite of a wrong one.
    if "-h" in words or "--help" in words:
        print(_with_examples(command, parser))
        sys.exit(0)
    known = {flag for action in parser._actions for flag in action.option_strings}
    for word in words:
        flag = word.partition("=")[0]
        # Checked here, because the parser would take an abbreviation for the flag that begins so.
        if flag.startswith("--") and flag not in known:
            raise unknown("flag", hyphened(flag), map(hyphened, known))
    try:
        # The flags that take several words.
        several = {f"--{a.dest}" for a in parser._actions if getattr(a, "_typehint", None) == list[str]}
        return Found(parser.parse_args(gathered(with_presets(words, known, several), several)))
    except ArgumentError as error:
        text = hyphened(_readable(str(error.message or error)))
        raise UserError(f"{text} (tutelage {_name(command)} --help explains the flags)") from error


def _readable(message: str) -> str:
    """Return a message of the parser in the words of the command line."""
    if names := missing(message):
        return f"{' and '.join(f'--{name}' for name in names)} {'are' if names[1:] else 'is'} missing: give a value."
    if empty := re.fullmatch(r"argument (--\w+)\S*: expected (?:one|at least one) argument", message):
        return f"{empty[1]} is missing its value."
    if (found := misfit(message)) is not None:
        return f"--{found.name} {found.value} does not fit: it takes {found.wanted}."
    return message


def help_of(command: Callable[..., Any], *, after: str = "") -> str:
    """Return a command's help without flags."""
    return _with_examples(command, _parser(command, after=after))


def _parser(
    command: Callable[..., Any],
    groups: Sequence[type] = (),
    entry: Entry | None = None,
    after: str = "",
    *,
    presets: bool = False,
) -> ArgumentParser:
    text = inspect.getdoc(command) or ""
    description = text.partition("Examples:")[0]
    if entry is not None:
        paragraph = parse_docstring(inspect.getdoc(entry.build) or "")
        description += f"\n{entry.name}: {paragraph.short_description}"
    parser = ArgumentParser(
        prog=f"tutelage {_name(command)} {after}".strip(),
        description=description.strip(),
        exit_on_error=False,
        default_env=False,
    )
    # Presets hold settings of a training, so commands that train nothing have none.
    if presets:
        help_text = f"Values from a YAML file, or one of: {', '.join(preset_names())}."
        parser.add_argument("--preset", metavar="NAME_OR_FILE", help=help_text)
    if entry is not None:
        add_hyper_parameters(parser, entry)
    # Where a method has an option of the same name, as de-kd its teacher_epochs, the flag is the method's.
    taken: set[str | int] = set(entry.hyper_parameters) if entry is not None else set()
    for group in groups:
        parser.add_class_arguments(group, as_group=True, skip=taken)
    for action in parser._actions:
        # A terminal sets no formulas.
        action.help = _plain(action.help)
        if getattr(action, "_typehint", None) is bool:
            # A switch without a value is on.
            action.nargs, action.const = "?", True
    return parser


def _with_examples(command: Callable[..., Any], parser: ArgumentParser) -> str:
    """Return the help with the examples as they stand in the docstring, which the parser would wrap."""
    examples = inspect.cleandoc((inspect.getdoc(command) or "").partition("Examples:")[2])
    return hyphened(f"{parser.format_help()}\nexamples:\n{textwrap.indent(examples, '  ')}")


def _plain(text: str | None) -> str | None:
    """Return a docstring's words without the marks of its formulas, which a terminal cannot set."""
    return text and re.sub(r"\\(?=[a-zA-Z])|[$`]", "", text)


def _name(command: Callable[..., Any]) -> str:
    return command.__name__.removesuffix("_command")
