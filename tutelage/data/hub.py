"""Opening datasets with the `datasets` library: a folder of Parquet, a saved dataset, or a name on the hub."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.data.folders import SUFFIXES
from tutelage.data.parquet import open_folder
from tutelage.data.tables import quiet
from tutelage.data.walk import Folder, suffix_of
from tutelage.errors import UserError

if TYPE_CHECKING:
    import datasets

_ARCHIVE = ".tar"
_TABLES = frozenset({".parquet", ".arrow"})
# The reader of each ending. People also keep lists of images in such files, so these count only without images.
_TEXT_TABLES = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json"}
# Each line is a text. For other tasks such files are notes, or lists of classes.
_PLAIN = {".txt": "text"}


def holds_tables(tree: Folder, *, plain: bool = False) -> bool:
    """Return whether a folder has table files at the top or one level below.

    Archives count only if there are no images: otherwise the images may have been unpacked from them. So do CSV and
    JSON, which may only describe images.

    Args:
        tree: The folder.
        plain: Whether lines of plain text count as well.
    """
    suffixes = {suffix_of(file) for folder in (tree, *tree.folders) for file in folder.files}
    if suffixes & _TABLES:
        return True
    others = {_ARCHIVE, *_TEXT_TABLES, *(_PLAIN if plain else ())}
    return bool(suffixes & others) and not any(suffix_of(file) in SUFFIXES for file in tree.below())


def open_path(path: Path, *, state: str) -> Mapping[str, datasets.Dataset]:
    """Open a local file or folder of tables; nothing is written next to it.

    Args:
        path: A file of Parquet, CSV or JSON lines, a folder of them, or the folder of `Dataset.save_to_disk`.
        state: Digest of the state of its files. `datasets` recognises a file by its time alone, so each state gets its
            own cache.

    Raises:
        UserError: If it cannot be read.
    """
    import datasets

    cache = str(Path(_cache_dir() or datasets.config.HF_DATASETS_CACHE) / f"tutelage-{state[:16]}")
    try:
        with quiet():
            # `save_to_disk` leaves the first for several splits, the second for one.
            if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
                return _as_mapping(datasets.load_from_disk(str(path)))
            if path.is_file():
                reader = {**_TEXT_TABLES, **_PLAIN}.get(suffix_of(path.name), "parquet")
                options = {"delimiter": "\t"} if suffix_of(path.name) == ".tsv" else {}
                return _as_mapping(datasets.load_dataset(reader, data_files=str(path), cache_dir=cache, **options))
            return open_folder(path, cache_dir=cache)
    # Our own messages say more than the general one below.
    except UserError:
        raise
    except (OSError, ValueError, IndexError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{path} cannot be read as a dataset ({_line(error)}): give complete Parquet, CSV or JSON files, with the "
            "same columns and at least one row in each split."
        ) from error


def open_hub(name: str) -> Mapping[str, datasets.Dataset]:
    """Open a dataset of the Hugging Face hub; it is downloaded if it is not in the cache yet.

    Args:
        name: `owner/name`, or `owner/name:configuration`.

    Raises:
        UserError: If it does not exist or cannot be reached.
    """
    import datasets

    place, _, configuration = name.partition(":")
    named = {"name": configuration} if configuration else {}
    try:
        with quiet():
            return _as_mapping(datasets.load_dataset(place, cache_dir=_cache_dir(), **named))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{name} could not be loaded from the Hugging Face hub ({_line(error)}): check the name and the network, "
            "or download it elsewhere and give the local folder instead of the name."
        ) from error


def hub_states(loaded: Mapping[str, datasets.Dataset]) -> list[tuple[str, int]]:
    """Return the identity of a hub dataset's content: the files of its revision in the cache, and their sizes.

    Args:
        loaded: The result of `open_hub`.
    """
    files = [Path(file["filename"]) for rows in loaded.values() for file in rows.cache_files]
    # The folders above the file name dataset, configuration, version and revision.
    return sorted(("/".join(file.parts[-5:]), file.stat().st_size) for file in files)


def _as_mapping(loaded: Any) -> Mapping[str, datasets.Dataset]:
    # A dataset without splits is all for training.
    return loaded if isinstance(loaded, Mapping) else {"train": loaded}


def _cache_dir() -> str | None:
    """Return None for the usual cache. If it cannot be written, return a folder that is deleted with this process."""
    from datasets import config

    usual = Path(config.HF_DATASETS_CACHE)
    try:
        usual.mkdir(parents=True, exist_ok=True)
        if os.access(usual, os.W_OK):
            return None
    except OSError:
        pass
    scratch = tempfile.mkdtemp(prefix="tutelage-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return scratch


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
