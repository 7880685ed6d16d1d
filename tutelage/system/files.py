"""Atomic files and folders: each is written completely or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tutelage.errors import UserError


@contextmanager
def atomic(target: Path, *, replace: bool = True) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets its name only when it is complete.

    Args:
        target: The file; its folder is created if needed.
        replace: Whether to replace an existing file. If not, the existing file stays.

    Raises:
        UserError: If the disk is full or the folder cannot be written. An existing file then stays.
    """
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, because a rename is atomic only within a file system.
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            # Without this, a crash of the machine could leave an empty file under the name.
            os.fsync(file.fileno())
        # mkstemp lets only its owner read the file, but folders of runs may be shared.
        temporary.chmod(0o644)
        if replace:
            temporary.replace(target)
        else:
            _name(temporary, target)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise UserError(
            f"{target} could not be written: {cause.strerror or cause}. Free some space or choose another folder "
            "with --out; nothing half-written is left, and what was finished before is intact."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Yield a place for a file or a folder, which takes the target's name and place when the block ends without error.

    Args:
        target: The file or the folder. What is there stays until then, and is replaced.

    Raises:
        UserError: If the disk is full or the folder around it cannot be written. What is there stays.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, because a rename works only within a file system.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            place = Path(folder) / target.name
            yield place
            if target.is_dir():
                shutil.rmtree(target)
            place.replace(target)
    except OSError as error:
        raise UserError(
            f"{target} could not be written: {error.strerror or error}. Free some space or choose another place with "
            "--out."
        ) from error


def read_json(source: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        UserError: If the file is damaged.
    """
    try:
        content: dict[str, Any] = json.loads(source.read_text())
    except ValueError as error:
        raise UserError(
            f"{source} is damaged ({error}). Delete the folder {source.parent}: the same command then starts this "
            "stage again."
        ) from error
    return content


def damaged_entry(archive: Path) -> str | None:
    """Return the first damaged entry of a zip archive, such as `torch.save` writes; None if all are intact.

    PyTorch writes checksums but does not verify them.

    Raises:
        zipfile.BadZipFile: If the file is not a zip archive.
    """
    with zipfile.ZipFile(archive) as opened:
        return opened.testzip()


def _name(temporary: Path, target: Path) -> None:
    """Give a file its name unless that name exists. Of two processes at once, only one succeeds."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return
    except OSError:
        # Not every file system supports hard links.
        with suppress(FileExistsError), target.open("xb") as file:
            file.write(temporary.read_bytes())


def _os_error(error: BaseException | None) -> OSError | None:
    """Return the system's error that caused another: torch.save raises its own error when the disk is full."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def write_json(target: Path, content: Mapping[str, Any], *, replace: bool = True) -> None:
    """Write a JSON file as `atomic` does."""
    with atomic(target, replace=replace) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
