"""Which code may run: a factory that this user has named runs; one that only a file names does not."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tutelage.data.cache import cache_folder
from tutelage.errors import UserError

# Digests named in this process, in case the file of digests cannot be written.
_NAMED_HERE: set[str] = set()


@dataclass(frozen=True)
class Origin:
    """The file from which a network's spec was read, if no user wrote it on a command line or in Python.

    Attributes:
        file: The file.
        trusted: Whether the user trusts the code that this file names.
    """

    file: str
    trusted: bool


def remember(code: str) -> None:
    """Remember that this user named a factory. Networks saved with it then load without a question of trust.

    Args:
        code: The factory with its options, as `NetworkSpec` writes them, with absolute paths.
    """
    if _is_known(code):
        return
    digest = _digest(code)
    _NAMED_HERE.add(digest)
    try:
        ledger = _ledger()
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w") as file:
            file.write(digest + "\n")
    except OSError:
        # If nothing can be written, the next process asks for trust again, which does no harm.
        return


def allow(code: str, origin: Origin | None) -> None:
    """Refuse to run a factory that only a file names. Call it before anything of the factory is imported.

    Args:
        code: The factory with its options, as `NetworkSpec` writes them, with absolute paths.
        origin: The file that names the factory; None if the user named it, which is then remembered.

    Raises:
        UserError: If this user neither named it before nor trusts the file.
    """
    if origin is None:
        remember(code)
    elif not (origin.trusted or _is_known(code)):
        raise UserError(
            f"{origin.file} names code that you have not named yourself, and loading would run it: {code}. Nothing was "
            "run. If you trust it, add --trust-code (trust_code=True in Python), or name the code with the weights: "
            "FILE.py:FACTORY@WEIGHTS."
        )


def _is_known(code: str) -> bool:
    digest = _digest(code)
    if digest in _NAMED_HERE:
        return True
    try:
        ledger = _ledger()
        about = ledger.stat()
        # In a shared folder, others could write digests to let their own code run as this user.
        is_own = os.name == "nt" or (about.st_uid == os.getuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
        return is_own and digest in ledger.read_text().split()
    except (OSError, ValueError):
        return False


def _ledger() -> Path:
    """Return the file with the digests of all factories that this user has named."""
    user = "" if os.name == "nt" else f"-{os.getuid()}"
    return cache_folder() / f"named-code{user}"


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
