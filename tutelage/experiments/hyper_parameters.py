"""The hyper-parameters of a method as flags."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from tutelage.core.registry import FIXTURES, Entry


def add_hyper_parameters(parser: ArgumentParser, entry: Entry) -> None:
    """Add a flag for each hyper-parameter of a method, with its type, default and help."""
    before = set(parser.groups or ())
    # Fixtures are passed by the experiment, and are no flags.
    skip: set[str | int] = {*(FIXTURES & entry.fixtures)}
    if isinstance(entry.build, type):
        parser.add_class_arguments(entry.build, as_group=True, skip=skip)
    else:
        parser.add_function_arguments(entry.build, as_group=True, skip=skip)
    for name, group in (parser.groups or {}).items():
        if name not in before:
            # The parser titles a group by the class or function; users know the method by its name.
            group.title = f"hyper-parameters of {entry.name}"
