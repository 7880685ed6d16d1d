"""Factories that users bring: by import path, or in a file of their own."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from tutelage.errors import UserError, unknown
from tutelage.system.values import check_all

# Folders whose files were run, to find modules that were imported from beside them.
_FOLDERS: set[Path] = set()
# Errors that a factory may raise because an option does not fit, or because of a fault of its own.
FAILURES = (
    TypeError, ValueError, ArithmeticError, RuntimeError, LookupError, AttributeError, AssertionError, NameError,
    ImportError,
)  # fmt: skip


def build_with(target: str, options: Mapping[str, Any], *, num_classes: int, in_channels: int) -> nn.Module:
    """Return the network of a user's factory. Runs the module's code.

    Args:
        target: `package.module:factory` or `path/to/file.py:factory`.
        options: Keyword arguments of the factory.
        num_classes: Passed if the factory has an argument of this name and `options` do not give it.
        in_channels: Passed if the factory has an argument of this name and `options` do not give it.

    Raises:
        UserError: There is no such factory, it does not accept the options, or does not return a module.
    """
    source = target.rpartition(":")[0]
    # The folder stays importable during the call, because a factory may import a neighbour only then.
    with _importable(Path(source).expanduser().resolve().parent if source.endswith(".py") else None):
        factory = import_factory(target)
        return call_factory(factory, options, source=target, num_classes=num_classes, in_channels=in_channels)


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
        in_channels: Passed if the factory has an argument of this name and `options` do not give it.
        source: The user's name for the factory, for messages.

    Raises:
        UserError: The factory does not accept the options, fails with them, or does not return a module.
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
    check_all(options, factory, of=source)
    try:
        network = factory(**arguments)
    except UserError:
        raise
    except FAILURES as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UserError(f"{source} cannot be built with {given}: {told(error)}.") from error
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
    """Run a file as a module. It writes no bytecode, because the folder may be read-only or shared."""
    if not path.is_file():
        raise UserError(
            f"There is no file {str(path)!r} to take a network from. For a saved network, say where its file is now: "
            "`path/to/file.py:factory@RUN`."
        )
    path = path.resolve()
    # The digest of the path keeps two files with one name apart.
    module = ModuleType(f"tutelage_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # Dataclasses and pickles look a class's module up by name.
    try:
        with _importable(path.parent):
            # Bytes, so that Python itself reads a byte order mark or a line that names the encoding.
            exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    except SyntaxError as error:
        place = f"{error.filename or path}:{error.lineno or 1}"
        raise UserError(f"{path} is not valid Python: {error.msg} ({place}).") from error
    except ImportError as error:
        raise UserError(f"{path} imports something that is not there: {told(error)}.") from error
    return module


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Let modules be imported from a folder within the context.

    Two users' files may each have a neighbour of the same name, such as `layers.py`. The one imported earlier is
    forgotten, so that each file gets its own.
    """
    if folder is None:
        yield
        return
    # Thousands of modules may be imported; without another user's folder none of them has to be looked at.
    namesakes = {name for name in sys.modules if _is_namesake(name, folder)} if _FOLDERS - {folder} else set()
    for name in [name for name in sys.modules if name.partition(".")[0] in namesakes]:
        del sys.modules[name]
    _FOLDERS.add(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _is_namesake(name: str, folder: Path) -> bool:
    """Return whether a module came from beside another user's file, and this folder has one of the same name."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return False
    home = Path(file).parent.parent if Path(file).name == "__init__.py" else Path(file).parent
    own = folder / f"{name}.py", folder / name / "__init__.py"
    return home in _FOLDERS - {folder} and any(path.is_file() for path in own)


def told(error: Exception) -> str:
    """Return an error in one line, with the line of code that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {reason} ({last.filename}:{last.lineno})"
