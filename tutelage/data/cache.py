"""A cache of decoded images on disk, so that a dataset is decoded only once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.data.images import ResidentImages

# To be raised when a new version would decode the same source to other pixels.
_FORMAT = 2
# A number of its own: keys of streamed images are the data's fingerprints in saved runs and recordings.
STREAMED_FORMAT = 1


@dataclass(frozen=True)
class Decoded:
    """All splits of a source in memory.

    Attributes:
        splits: The images by split name.
        class_names: One name per class.
        digest: SHA-256 over images and targets of all splits.
        notices: Messages that the user gets each time the images are used.
    """

    splits: Mapping[str, ResidentImages]
    class_names: tuple[str, ...]
    digest: str
    notices: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Return where decoded datasets are kept: `TUTELAGE_CACHE`, or `~/.cache/tutelage`."""
    return Path(os.environ.get("TUTELAGE_CACHE") or Path.home() / ".cache" / "tutelage").expanduser()


def key_of(**parts: Any) -> str:
    """Return the SHA-256 of JSON-like values, given by name."""
    text = json.dumps({"format": _FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def content_digest(splits: Mapping[str, ResidentImages]) -> str:
    """Return the SHA-256 over the images and targets of all splits."""
    digest = hashlib.sha256()
    for name, samples in sorted(splits.items()):
        digest.update(f"{name} {tuple(samples.images.shape)} ".encode())
        digest.update(samples.images.cpu().contiguous().numpy().data)
        if samples.targets is not None:
            digest.update(samples.targets.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def recall(key: str) -> Decoded | None:
    """Return what was stored under a key, mapped from disk; None if nothing is there or it is incomplete."""
    folder = cache_folder() / f"decoded-{key}"
    try:
        about = json.loads((folder / "about.json").read_text())
        splits = {name: _load(folder, name) for name in about["splits"]}
        return Decoded(splits, tuple(about["class_names"]), about["digest"], tuple(about["notices"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None


def store(key: str, decoded: Decoded) -> None:
    """Store decoded splits under a key. If the folder cannot be written, nothing is stored and nothing is raised."""
    folder = cache_folder() / f"decoded-{key}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="writing-", dir=folder.parent))
    except OSError:
        return
    try:
        for name, samples in decoded.splits.items():
            np.save(scratch / f"{name}-images.npy", samples.images.numpy())
            if samples.targets is not None:
                np.save(scratch / f"{name}-targets.npy", samples.targets.numpy())
        about = {name: getattr(decoded, name) for name in ("class_names", "digest", "notices")}
        about["splits"] = list(decoded.splits)
        (scratch / "about.json").write_text(json.dumps(about))
        # A damaged folder would block the rename, and so stay for ever.
        if recall(key) is None:
            shutil.rmtree(folder, ignore_errors=True)
        # A rename is atomic. If it fails because another process was first, that one's result is just as good.
        scratch.rename(folder)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)


def _load(folder: Path, name: str) -> ResidentImages:
    # Copy-on-write: pages are shared between processes, and torch accepts the memory as writable.
    images = np.load(folder / f"{name}-images.npy", mmap_mode="c")
    targets = folder / f"{name}-targets.npy"
    return ResidentImages(torch.from_numpy(images), torch.from_numpy(np.load(targets)) if targets.exists() else None)
