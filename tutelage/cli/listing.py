"""The commands that list the methods and cite their papers. Unless a package adds methods, they do not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

from rich.table import Table

from tutelage.cli.parser import parse
from tutelage.cli.words import leading
from tutelage.core.outline import outlines
from tutelage.core.registry import ENTRY_POINTS, Listing, bibtex, by_family
from tutelage.errors import unknown
from tutelage.system.console import screen

METHODS = Path(__file__).parents[1] / "methods"


def methods(words: Sequence[str]) -> None:
    """List the methods, with what each needs and where it comes from.

    Examples:
        tutelage methods
    """
    parse(methods, words)
    screen().print(method_table())


def cite(words: Sequence[str]) -> None:
    """Print the BibTeX of the papers behind methods.

    Examples:
        tutelage cite kd tf-kd-reg
    """
    names = list(leading(words))
    parse(cite, words[len(names) :], after="METHOD...")
    known = {listing.name: listing for listing in listings()}
    print(bibtex([_named(name, known) for name in names or known]))


def method_table() -> Table:
    """Return the table of methods."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    # Only the names stay on one line, so that they can be copied.
    for column in ("method", "what it is", "learns from", "teacher", "paper"):
        table.add_column(column, no_wrap=column == "method")
    for entry in by_family(listings()):
        table.add_row(entry.name, entry.title, entry.family, entry.teacher, entry.sources)
    return table


def listings() -> list[Listing]:
    """Return all methods."""
    if not entry_points(group=ENTRY_POINTS):
        # Where their files say too little, or are not there, the registry knows.
        with suppress(OSError, ValueError):
            return outlines([*sorted(METHODS.glob("*.py")), METHODS / "parts" / "papers.py"])
    from tutelage.experiments import catalogue

    return list(catalogue.entries())


def _named(name: str, known: dict[str, Listing]) -> Listing:
    if ":" in name:
        # An import path, of a class that need not be registered.
        from tutelage.experiments import catalogue

        return catalogue.get(name)
    if name not in known:
        raise unknown("method", name, known)
    return known[name]
