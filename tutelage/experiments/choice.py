"""A method's hyper-parameters as text: `kd:temperature=20,alpha=0.5`, checked against its signature."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from tutelage.core.registry import Entry
from tutelage.data.offers import Offer
from tutelage.errors import UserError, unknown
from tutelage.experiments.catalogue import get, names
from tutelage.experiments.hyper_parameters import add_hyper_parameters
from tutelage.experiments.misfit import misfit, missing
from tutelage.system.grammar import holds_options, no_option, read


@dataclass(frozen=True)
class Choice:
    """A method with some hyper-parameters, as one row of a comparison.

    Attributes:
        entry: The method.
        options: The hyper-parameters that were given.
    """

    entry: Entry
    options: dict[str, Any]

    @property
    def label(self) -> str:
        """The text that `parse_choice` reads back as this choice."""
        if not self.options:
            return self.entry.name
        return f"{self.entry.name}:" + ",".join(f"{key}={_bracketed(value)}" for key, value in self.options.items())

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """All hyper-parameters, the defaults included."""
        return self.entry.hyper_parameters | self.options

    @property
    def fixtures(self) -> frozenset[str]:
        """The fixtures that its builder takes. A wrapper also needs those of the method that it runs."""
        inner = self.inner
        return self.entry.fixtures if inner is None else self.entry.fixtures | inner.fixtures

    @property
    def inner(self) -> Choice | None:
        """The method that a wrapper runs; None if this is no wrapper."""
        # Only a wrapper asks for `distill`, and names the method to run in its option `method`.
        if "distill" not in self.entry.fixtures or "method" not in self.hyper_parameters:
            return None
        return parse_choice(self.hyper_parameters["method"])

    @property
    def reads(self) -> frozenset[Offer]:
        """What it needs of the data with these hyper-parameters, including the needs of a method that it wraps."""
        own, inner = self.entry.reads_with(self.options), self.inner
        return own if inner is None else own | inner.reads

    @property
    def uses(self) -> frozenset[Offer]:
        """What it uses if the data offer it, including what a method that it wraps uses."""
        inner = self.inner
        return self.entry.uses if inner is None else self.entry.uses | inner.uses


def without_flags(words: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return a command's flags without some of them and their values.

    Args:
        words: Flags, as `--name value`, `--name=value`, or `--name` for a switch.
        names: Names of the flags to leave out, with underscores.
    """
    dropped, kept, dropping = set(names), [], False
    for word in words:
        if word.startswith("--"):
            # The values of a dropped flag are dropped too, up to the next flag.
            dropping = word[2:].partition("=")[0].replace("-", "_") in dropped
        if not dropping:
            kept.append(word)
    return kept


def check_options(entry: Entry, options: dict[str, Any]) -> dict[str, Any]:
    """Return hyper-parameters with the types of the method's signature.

    Args:
        entry: The method.
        options: Values, as text or already typed.

    Raises:
        UserError: If a name is unknown (with the nearest) or a value has the wrong type.
    """
    known = entry.hyper_parameters
    for name in options:
        if name not in known:
            raise (
                unknown(f"option of {entry.name}", name, known)
                if known
                else UserError(f"{entry.name} has no options, so it cannot take {name}=.")
            )
    # The same parser as on the command line, so that both accept the same values.
    parser = ArgumentParser(exit_on_error=False)
    add_hyper_parameters(parser, entry)
    arguments = [f"--{name}={written(value)}" for name, value in options.items()]
    try:
        # What the parser prints is replaced by the message below.
        with contextlib.redirect_stderr(io.StringIO()):
            parsed: Namespace = parser.parse_args(arguments)
    except ArgumentError as error:
        if absent := missing(str(error.message)):
            raise UserError(
                f"{entry.name} needs {' and '.join(f'{name}=' for name in absent)}: give a value."
            ) from error
        found = misfit(str(error.message))
        text = error.message if found is None else f"{found.name}={found.value}, which takes {found.wanted}."
        raise UserError(f"An option of {entry.name} does not fit: {text}") from error
    # The text of a tuple cannot be read back from a label or a command; that of a list can.
    typed = {name: list(parsed[name]) if isinstance(parsed[name], tuple) else parsed[name] for name in options}
    if "distill" in entry.fixtures and "method" in typed:
        # Checks the wrapped method now, and gives it one label however the user wrote it.
        typed["method"] = parse_choice(str(typed["method"])).label
    return typed


def parse_choice(text: str) -> Choice:
    """Return the method and hyper-parameters that a text names.

    Args:
        text: `kd`, or `kd:temperature=20,alpha=0.5`; an import path keeps its colon: `package.module:Class`, or
            `package.module:Class:name=value`. Brackets around the whole keep it together as the value of a wrapper's
            option: `soft-randomization:std=0.1,method=(kd:temperature=20,alpha=0.5)`.

    Raises:
        UserError: If the method or an option is unknown, or a value does not fit.
    """
    name, options = _read(text)
    entry = get(name)
    return Choice(entry, check_options(entry, options))


def imported(text: str) -> str | None:
    """Return the import path that names a method or the method that it wraps; None if both have registered names.

    Args:
        text: A method with hyper-parameters, such as `kd:temperature=20` or `package.module:Class`. The path is not
            imported.
    """
    name, options = _read(text)
    if name not in names() and ":" in name:
        return name
    return imported(options["method"]) if "method" in options else None


def _read(text: str) -> tuple[str, dict[str, str]]:
    """Return the name of a method, and its options as text."""
    written = read(_unbracketed(text), kind="method", before=":,")
    name = written.name.removesuffix(":").rstrip()
    head, colon, rest = name.partition(":")
    # Otherwise the colon belongs to an import path.
    if colon and head in names():
        raise no_option(rest, text, kind="method")
    return name, written.options


def _unbracketed(text: str) -> str:
    text = text.strip()
    # Brackets may come from a label inside another label.
    while text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    return text


def _bracketed(value: Any) -> str:
    """Return a value's text in a label: in brackets if its commas could be read as those of the label."""
    text = str(value)
    return f"({text})" if holds_options(text) else text


def written(value: Any) -> str:
    """Return a value as text that the parser reads back."""
    # YAML's word for None, which the parser reads.
    if value in (None, "None"):
        return "null"
    return str(list(value) if isinstance(value, tuple) else value)
