"""Reads files of weights without running code in them. If a file is something else, the error says what it is."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tutelage.errors import UserError
from tutelage.models.saving import check_digest
from tutelage.system.files import damaged_entry

_WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "student", "net", "network", "weights",
    "ema", "model_ema", "state_dict_ema", "module", "params",
)  # fmt: skip
_SHOWN = 5
# Enough for the mark of a tar archive, at byte 257.
_HEAD_BYTES = 512
# Types that training scripts often save beside the weights. None of them can run code.
_HARMLESS = [
    argparse.Namespace, np._core.multiarray.scalar, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType,  # type: ignore[attr-defined]
    np.dtypes.Int64DType,
]  # fmt: skip
_SAVE = "`torch.save(model.state_dict(), FILE)`"
# Other files that people pass as weights, by their first bytes.
_OTHERS: Mapping[bytes, str] = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: fetch the file with `git lfs pull`, or "
    "download it again.",
    b"/annex/objects/": "is a git-annex pointer, not the file itself: fetch the file with `git annex get`.",
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file, as Keras writes, and not weights of PyTorch.",
    b"\x93NUMPY": "is a numpy array, and not a dictionary of named tensors.",
    b"\x1f\x8b": "is compressed with gzip: unpack it first.",
    b"BZh": "is compressed with bzip2: unpack it first.",
    b"\xfd7zXZ": "is compressed with xz: unpack it first.",
    b"7z\xbc\xaf": "is a 7z archive: unpack it first.",
    b"Rar!": "is a RAR archive: unpack it first.",
    b"GGUF": "is in the GGUF format, which PyTorch does not read.",
}


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, taken out of the dictionaries that training scripts put around them.

    The content decides the format, not the file's name: safetensors, or a file of `torch.save`.

    Args:
        path: The file. Pickled code is never run.

    Raises:
        UserError: The file is absent, damaged or of another format, holds pickled objects, or holds no dictionary that
            is clearly the weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file of weights at {str(path)!r}.")
    check_digest(path)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    _refuse_others(path, head)
    try:
        if _is_safetensors(head):
            return load_file(path)
        return _unwrapped(_unpickled(path, head), path)
    except pickle.UnpicklingError as error:
        raise _refused(path, head, error) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read ({_reason(error)}): is it damaged?") from error


def _refuse_others(path: Path, head: bytes) -> None:
    """Refuse a file that holds no weights, and say what it is."""
    if not head:
        raise UserError(f"{path} is empty: writing or downloading it was interrupted. Fetch it again.")
    for beginning, what in _OTHERS.items():
        if head.startswith(beginning):
            raise UserError(f"{path} {what}")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            f"{path} is a web page (HTML) and holds no weights: the download asked for a login, a confirmation or "
            "another address. Open it in a browser to see what it says, and fetch the file again."
        )
    if text.startswith((b"{", b"[")):
        raise UserError(
            f"{path} is JSON text and holds no weights: if it is the index of several files, join those into one."
        )
    if head[257:262] == b"ustar":
        raise UserError(f"{path} is a tar archive: unpack it, and name the file of weights in it.")


def _is_safetensors(head: bytes) -> bool:
    """Return whether a file begins as safetensors do: the length of a JSON header, then the header."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40


def _unpickled(path: Path, head: bytes) -> Any:
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise UserError(
                f"{path} is a TorchScript archive, which holds code beside the weights. If you trust it, save its "
                "weights alone: `torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)`."
            )
        if not any(name.endswith("data.pkl") for name in names):
            inside = ", ".join(names[:_SHOWN])
            raise UserError(
                f"{path} is a zip archive, but not a file of `torch.save` (in it: {inside}): unpack it first."
            )
        if (entry := damaged_entry(path)) is not None:
            raise UserError(f"{path} is damaged: its entry {entry} is not what was written. Fetch it again.")
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
        # PyTorch warns of formats that it may not know. The warning adds nothing: it then reads the file or raises.
        warnings.simplefilter("ignore")
        # An open file, because PyTorch would judge a path by its name.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        if _is_state(content):
            return dict(content)
        inside = [key for key in content if _is_state(content[key])]
        known = [key for key in _WRAPPERS if key in inside]
        # A distillation script may save both networks, and which one is meant cannot be told.
        rivals = [key for key in inside if key in known or "teacher" in str(key) or "student" in str(key)]
        if len(rivals) > 1 and any("teacher" in str(key) for key in rivals):
            names = " and ".join(map(repr, rivals))
            raise UserError(
                f"{path} holds several networks, {names}: save the one that you mean, "
                f"`torch.save(torch.load(FILE)[{rivals[0]!r}], NEW_FILE)`."
            )
        if known or len(inside) == 1:
            return dict(content[(known or inside)[0]])
        deeper = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not deeper:
            names = ", ".join(repr(key) for key in list(content)[:_SHOWN])
            raise UserError(
                f"{path} holds the entries {names}, and it is not clear which of them are the weights. Save one "
                f"dictionary of tensors: {_SAVE}."
            )
        content = content[deeper[0]]
    raise UserError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors: save it with {_SAVE}.")


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    )


def _refused(path: Path, head: bytes, error: Exception) -> UserError:
    # PyTorch's own message is not repeated: it advises the reader to switch the protection off.
    asked = re.search(r"GLOBAL ([\w.]+)|unsupported class ([\w.]+)|unrecognized function ([\w.]+)", str(error))
    if asked is None and not head.startswith((b"PK", b"\x80")):
        return UserError(f"{path} is not a file of `torch.save` or safetensors, or it is damaged. Fetch it again.")
    what = f" (it asks for {next(filter(None, asked.groups()))})" if asked else ""
    return UserError(
        f"{path} holds pickled Python objects beside tensors{what}. Loading those can run any code, so they are not "
        f"loaded. Ask its author for the weights alone, as safetensors or from {_SAVE}. If you trust the file, you can "
        "convert it in that way yourself."
    )


def _reason(error: Exception) -> str:
    """Return the first line of an error, without advice to switch a protection off."""
    line = str(error).strip().partition("\n")[0]
    return type(error).__name__ if "weights_only" in line else f"{type(error).__name__}: {line}"
