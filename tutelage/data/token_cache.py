"""A cache of tokens on disk, so that the texts of a large dataset are split into tokens only once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from tutelage.data.cache import cache_folder
from tutelage.data.texts import Tokens
from tutelage.errors import UserError
from tutelage.system.files import atomic

# To be raised when a new version would keep other things.
_FORMAT = 1
_LENGTHS, _COLUMN, _BEGINNING, _ENDING = "lengths", "column.", "tokens-", ".safetensors"
LEAST = 2_000
"""How many texts are worth a file: fewer are split again in the time that it takes to read them."""
MOST_MIB = 4096
"""How large all files may be together, in MiB; those that were not used for longest are deleted."""


def token_key(columns: Sequence[Sequence[str]], *, tokenizer: str) -> str:
    """Return the SHA-256 of texts and of what makes their tokens.

    Args:
        columns: One or two texts of each sample: `[column][sample]`.
        tokenizer: Everything that decides the tokens.
    """
    digest = hashlib.sha256(f"{_FORMAT} {len(columns)} {tokenizer}".encode())
    for column in columns:
        for text in column:
            # With its length, so that the end of one text cannot pass for the beginning of the next.
            digest.update(f"{len(text)} {text}".encode(errors="surrogatepass"))
    return digest.hexdigest()


def recall_tokens(key: str) -> Tokens | None:
    """Return what was kept under a key; None if nothing is there, or it is damaged."""
    file = _file(key)
    try:
        content = load_file(file)
        lengths = content.pop(_LENGTHS)
        columns = {name.removeprefix(_COLUMN): values for name, values in content.items() if name.startswith(_COLUMN)}
        padding = {name: int(content[name]) for name in columns}
    except (OSError, SafetensorError, KeyError):
        return None
    with suppress(OSError):
        # The time of its last use, by which old files are found.
        os.utime(file)
    return Tokens(columns, padding, lengths)


def keep_tokens(key: str, tokens: Tokens) -> None:
    """Keep tokens under a key. If the folder cannot be written, nothing is kept and nothing is raised."""
    content = {_LENGTHS: tokens.lengths} | {f"{_COLUMN}{name}": values for name, values in tokens.columns.items()}
    content |= {name: torch.tensor(tokens.padding[name]) for name in tokens.columns}
    with suppress(UserError, OSError), atomic(_file(key)) as file:
        file.write(save(content))
    with suppress(OSError):
        _tidy()


def _file(key: str) -> Path:
    return cache_folder() / f"{_BEGINNING}{key}{_ENDING}"


def _tidy() -> None:
    """Delete the files that were not used for longest, until all are small enough together."""
    files = [(file, file.stat()) for file in cache_folder().glob(f"{_BEGINNING}*{_ENDING}")]
    total = sum(state.st_size for _, state in files)
    for file, state in sorted(files, key=lambda found: found[1].st_mtime_ns):
        if total <= MOST_MIB * 2**20:
            return
        # Another process may have deleted it; one that reads it keeps what it has opened.
        file.unlink(missing_ok=True)
        total -= state.st_size
