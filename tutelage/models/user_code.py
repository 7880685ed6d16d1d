"""Factories that users bring: by import path, or in a file of their own."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from tutelage.errors import UserError, unknown


def import_factory(target: str) -> Callable[..., nn.Module]:
    """Return the factory at `package.module:factory` or `path/to/file.py:factory`. Runs the module's code.

    Args:
        target: Module or file, a colon, and the name of a function or class in it.

    Raises:
        UserError: The module, the file or the name in it does not exist.
    """
    source, _, name = target.rpartition(":")
    module = _run_file(Path(source).expanduser()) if source.endswith(".py") else _import_module(source)
    found = getattr(module, name, None)
    if found is None:
        raise unknown(f"function or class in {source}", name, [key for key in vars(module) if not key.startswith("_")])
    if not callable(found):
        raise UserError(f"{target} is a {type(found).__name__}, not a function or class that returns a network.")
    return found  # type: ignore[no-any-return]


def call_factory(
    factory: Callable[..., nn.Module], options: Mapping[str, Any], *, num_classes: int, in_channels: int, source: str
) -> nn.Module:
    """Return the network that a factory builds.

    Args:
        factory: The function or class.
        options: Its keyword arguments.
        num_classes: Passed if the factory has an argument of this name and `options` do not give it.
        in_channels: Likewise.
        source: How the user named the factory, for messages.

    Raises:
        UserError: The factory does not accept the options, or does not return a module.
    """
    try:
        signature = inspect.signature(factory)
    except ValueError as error:
        raise UserError(f"The arguments of {source} cannot be read: wrap it in a Python function.") from error
    offered = {"num_classes": num_classes, "in_channels": in_channels}
    arguments = {key: value for key, value in offered.items() if key in signature.parameters} | dict(options)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise UserError(f"{source} cannot be built: {error}. Its arguments are {signature}.") from error
    network = factory(**arguments)
    if not isinstance(network, nn.Module):
        raise UserError(f"{source} returned a {type(network).__name__}, not a torch.nn.Module.")
    return network


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"The module {name!r} cannot be imported: {error}. Install it, put its folder on PYTHONPATH, or name the "
            "file: `path/to/file.py:factory`."
        ) from error


def _run_file(path: Path) -> ModuleType:
    """Run a file as a module. No bytecode is written: the file's folder may be read-only or shared."""
    if not path.is_file():
        raise UserError(f"There is no file {str(path)!r} to take a network from.")
    path = path.resolve()
    module = ModuleType(f"tutelage_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # Dataclasses and pickles look a class's module up by name.
    sys.path.insert(0, str(path.parent))
    try:
        exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)
    finally:
        sys.path.remove(str(path.parent))
    return module
