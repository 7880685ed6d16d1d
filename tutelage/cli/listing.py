"""The commands that list the methods and cite their papers. Unless a package adds methods, they do not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from itertools import groupby
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tutelage.cli.parser import parse
from tutelage.cli.words import leading
from tutelage.core.outline import outlines
from tutelage.core.registry import ENTRY_POINTS, Listing, bibtex, by_family
from tutelage.errors import unknown
from tutelage.system.console import screen

METHODS = Path(__file__).parents[1] / "methods"
# Characters.
TEACHER = 11


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
    """Return the table of methods, family by family. It fits a terminal of 80 columns, and is never cut off."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    # Names stay on one line, so that they can be copied.
    table.add_column("method", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    # So wide that no word of it is broken, and the words that say what a method is keep the rest.
    table.add_column("teacher", max_width=TEACHER, overflow="fold")
    table.add_column("paper", overflow="fold")
    for family, members in groupby(by_family(listings()), key=lambda listing: listing.family):
        table.add_row()
        # Not as a column, which would take width from the others.
        table.add_row(Text(f"learns from: {family}", style="cyan"))
        for each in members:
            table.add_row(each.name, each.title, each.teacher, each.sources.replace("; ", "\n"))
    return table


def listings() -> list[Listing]:
    """Return all methods."""
    # Methods of other packages are known only once they are imported.
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
