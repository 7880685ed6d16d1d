"""The catalogue of methods by name: built-in, from other packages, or by import path."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points

import tutelage.methods  # noqa: F401 - each of its modules registers a method
from tutelage.core import registry
from tutelage.core.registry import ENTRY_POINTS, Entry
from tutelage.errors import UserError, unknown


def names() -> list[str]:
    """Return the names of all methods, built-in and from installed packages."""
    _load()
    return list(registry.REGISTERED)


def entries() -> Iterator[Entry]:
    """Iterate over all methods in the order of registration."""
    _load()
    yield from registry.REGISTERED.values()


def get(name: str) -> Entry:
    """Return a method by its name, or by an import path `package.module:Class`.

    Raises:
        UserError: If there is none, with the nearest names.
    """
    _load()
    # Names have no colon, import paths do.
    if ":" in name:
        return _imported(name)
    if name not in registry.REGISTERED:
        raise unknown("method", name, registry.REGISTERED)
    return registry.REGISTERED[name]


def cite(method_names: Sequence[str]) -> str:
    """Return the BibTeX of the papers behind the methods, each once."""
    return registry.bibtex(map(get, method_names))


def _imported(path: str) -> Entry:
    module, _, attribute = path.partition(":")
    try:
        build = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"The method {path!r} cannot be imported: {error}. Write it package.module:Class.") from error
    if not callable(build):
        raise UserError(f"{path!r} is a {type(build).__name__}. A method is a class or function: package.module:Class.")
    # A registered method keeps its own name and papers, even if it is named by its import path.
    known = next((entry for entry in registry.REGISTERED.values() if entry.build is build), None)
    return known or Entry(name=path, build=build, papers=())


def _load() -> None:
    """Import the methods of other packages, which registers them."""
    for point in entry_points(group=ENTRY_POINTS):
        point.load()
