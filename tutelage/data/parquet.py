"""Local folders of Parquet. Each split keeps its own numbering of classes, and unused files are reported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.data.split_names import misspelt, twin_of
from tutelage.data.walk import suffix_of, walk
from tutelage.errors import UserError, notice

if TYPE_CHECKING:
    import datasets


def open_folder(path: Path, *, cache_dir: str) -> Mapping[str, datasets.Dataset]:
    """Open a folder of tables.

    `datasets` reads all files with the column types of the first file. A split that numbers its classes in another
    order would get wrong class names. So if splits differ in that, each split is opened by itself.

    Args:
        path: The folder.
        cache_dir: The cache folder of `datasets.load_dataset`.

    Raises:
        UserError: If a file's name looks like a misspelt split, or the files of one split differ.
    """
    import datasets

    builder = datasets.load_dataset_builder(str(path), cache_dir=cache_dir)
    files = {str(split): [str(file) for file in found] for split, found in (builder.config.data_files or {}).items()}
    _check_all_used(path, [file for found in files.values() for file in found])
    has_twins = any(_is_twin(Path(file)) for found in files.values() for file in found)
    if has_twins:
        # `datasets` takes both kinds of a split for parts of one.
        files = _apart(files)
    names = {split: _names_in(split, found) for split, found in files.items()}
    # As text, because dictionaries cannot be put into a set.
    if len({repr(found) for found in names.values()}) < 2 and not has_twins:
        return datasets.load_dataset(str(path), cache_dir=cache_dir)  # type: ignore[no-any-return]
    return {
        # A list of files without a name is what `datasets` calls train.
        split: datasets.load_dataset("parquet", data_files=found, split="train", cache_dir=cache_dir)
        for split, found in files.items()
    }


def _is_twin(file: Path) -> bool:
    return file.suffix == ".parquet" and twin_of(file.stem) is not None


def _apart(files: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return files by split, with `validation_matched` and `validation_mismatched` as splits of their own."""
    found: dict[str, list[str]] = {}
    for split, several in files.items():
        for file in several:
            kind = twin_of(Path(file).stem)
            known = kind is None or twin_of(split) is not None
            found.setdefault(split if known else f"{split}_{kind}", []).append(file)
    return found


def _names_in(split: str, files: Sequence[str]) -> dict[str, list[str]]:
    """Return the class names by column, which all files of a split must share."""
    first: dict[str, list[str]] | None = None
    for file in files:
        names = _names_of(Path(file))
        if first is not None and names != first:
            raise UserError(
                f"{file} numbers its classes differently from {files[0]}, of the same split {split}: write both from "
                f"one dataset. The first has {names}, the second {first}."
            )
        first = names
    return first or {}


def _names_of(file: Path) -> dict[str, list[str]]:
    import pyarrow.parquet as pq

    if file.suffix != ".parquet":
        return {}
    about: Any = json.loads((pq.read_schema(file).metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features") or {}
    return {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _check_all_used(path: Path, used: Sequence[str]) -> None:
    known = {Path(file).resolve() for file in used}
    tables = (Path(file) for file in walk(path).below() if suffix_of(file) == ".parquet")
    left = [file for file in tables if file.resolve() not in known]
    for file in left:
        if strange := misspelt(re.findall(r"[^\W\d_]+", file.stem)):
            raise UserError(
                f"{file} belongs to no split: {strange[0]} looks like a misspelt one. Name it train, validation or "
                "test, or move it elsewhere."
            )
    if left:
        notice(f"{path}: {len(left)} files belong to no split and are not read, such as {left[0]}.")
