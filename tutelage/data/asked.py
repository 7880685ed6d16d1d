"""Samples that a network is asked about: images or texts, with or without labels, each with a name in the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.data.contents import Contents
from tutelage.data.decode import probe, read_image
from tutelage.data.folders import SUFFIXES, check_names
from tutelage.data.hub import holds_tables, open_hub, open_path
from tutelage.data.images import StreamedImages
from tutelage.data.map_files import size_of
from tutelage.data.names import DIGITS, Spec, parse_spec
from tutelage.data.paired import Frame, PairedImages
from tutelage.data.samples import Samples
from tutelage.data.sources import load_data
from tutelage.data.split_names import TEST, read_name, with_twins
from tutelage.data.tables import input_columns
from tutelage.data.task import Task
from tutelage.data.text_tables import read_texts
from tutelage.data.walk import Folder, suffix_of, walk
from tutelage.errors import UserError, notice, unknown

if TYPE_CHECKING:
    import datasets

FILE, INDEX = "file", "index"


@dataclass(frozen=True)
class Asked:
    """Samples to be answered.

    Attributes:
        samples: The samples, without targets.
        column: What names them in the answers: `file`, or `index` for the number of a row.
        names: The name of each sample.
        place: The name of the data in reports.
    """

    samples: Samples
    column: str
    names: Sequence[str | int]
    place: str


@dataclass(frozen=True)
class Wanted:
    """How a network wants its images.

    Attributes:
        channels: 1 for grey, 3 for colour; 0 if that is not known.
        size: Height and width in pixels; () if that is not known.
        longest: The size that the user asks for: the side of a square, or of images with maps the longer side.
    """

    channels: int = 0
    size: tuple[int, ...] = ()
    longest: int | None = None


def load_asked(spec: str, task: Task, *, split: str | None = None, wanted: Wanted | None = None) -> Asked:
    """Return the samples at a place, whether they have labels or not, in their order.

    Args:
        spec: The place, as for `load_data`; or a folder of images in any order, or one image.
        task: The task of the answers.
        split: The split, such as `test`; by default the test split if there is one, or else all if there are no splits.
        wanted: How the network wants its images.

    Raises:
        UserError: If there are no data, no such split, or the inputs cannot be found in a table.
    """
    where, wanted = parse_spec(spec), wanted or Wanted()
    if where.name == DIGITS and where.path is None and where.hub is None:
        samples = load_data(spec, image_size=wanted.longest).split(split or TEST)
        assert isinstance(samples, Samples)
        return Asked(samples.with_targets(None), INDEX, range(len(samples)), DIGITS)
    if where.path is None:
        return _from_tables(open_hub(where.hub or ""), where, task, split, wanted)
    tree = walk(where.path)
    if holds_tables(tree):
        return _from_tables(open_path(where.path, state=Contents.of(tree).state), where, task, split, wanted)
    return _from_files(tree, where, task, split, wanted)


def _from_files(tree: Folder, where: Spec, task: Task, split: str | None, wanted: Wanted) -> Asked:
    """Return the images of a folder, however they lie in it; of a folder with split folders, those of one split."""
    from datasets import Dataset, Features, Image

    check_names(tree)
    splits = {read.split: folder for folder in tree.folders if (read := read_name(folder.name)) is not None}
    if splits or split is not None:
        tree = splits[_chosen(split, splits, where)]
    files = [file for file in _below(tree, task) if suffix_of(file) in SUFFIXES]
    if not files:
        raise UserError(f"{tree.path} holds no images: give a folder of images, or a table (Parquet, CSV, JSON).")
    features = Features({"image": Image(decode=False)})
    rows = Dataset.from_dict({"image": [{"bytes": None, "path": file} for file in files]}, features=features)
    names = [str(Path(file).relative_to(tree.path)) for file in files]
    return Asked(_images(rows, "image", task, split or where.name, wanted), FILE, names, where.name)


def _below(tree: Folder, task: Task) -> list[str]:
    """Return the files below a folder; where targets are maps, folders of maps are left out."""
    if task.map_format is None:
        return list(tree.below())
    kept = [folder for folder in tree.folders if folder.name.lower() not in task.map_format.folders]
    return [*tree.files, *(file for folder in kept for file in _below(folder, task))]


def _from_tables(
    loaded: Mapping[str, datasets.Dataset], where: Spec, task: Task, split: str | None, wanted: Wanted
) -> Asked:
    tables = {name: loaded[own] for name, own in with_twins(loaded).items()}
    read = {name: read_name(name) for name in tables}
    tables = {found.split if (found := read[name]) and not found.rest else name: tables[name] for name in tables}
    chosen = next(iter(tables)) if split is None and len(tables) == 1 else _chosen(split, tables, where)
    rows = tables[chosen]
    if not len(rows):
        raise UserError(f"The split {chosen!r} of {where.text} is empty: there is nothing to answer.")
    columns, is_text = input_columns(rows.features, where, task.map_format)
    samples: Samples
    if is_text:
        if len(columns) > 1 and where.text_column is None:
            # A label under an unusual name would be read as a second text.
            notice(f"The texts of {where.text} are read from {' and '.join(columns)}: text=NAME reads others.")
        [samples] = read_texts({chosen: rows}, columns, {chosen: None}, limit=where.tokens, spec=where.text).values()
    else:
        from datasets import Image

        encoded = rows.select_columns([*columns]).cast_column(columns[0], Image(decode=False))
        samples = _images(encoded, columns[0], task, chosen, wanted)
    return Asked(samples, INDEX, range(len(rows)), where.name)


def _chosen(split: str | None, splits: Mapping[str, Any], where: Spec) -> str:
    if split is not None and split not in splits:
        if not splits:
            raise UserError(f"{where.text} has no splits: leave out --split (split=) to answer all of it.")
        raise unknown(f"split of {where.text}", split, splits)
    if split is None and TEST not in splits:
        raise UserError(f"{where.text} has the splits {', '.join(splits)}: name one with --split (split=).")
    return split or TEST


def _images(rows: datasets.Dataset, image: str, task: Task, split: str, wanted: Wanted) -> Samples:
    def read(row: int) -> Any:
        return read_image(rows[row][image], f"row {row} of {split!r}")

    channels, size = probe(read, len(rows), wanted.longest)
    if wanted.channels == 1 < channels:
        notice("The images have colours and the network sees grey: they are turned grey.")
    channels = wanted.channels or channels
    if task.map_format is None:
        if wanted.longest is None and len(wanted.size) == 2:
            size = (wanted.size[0], wanted.size[1])
        return StreamedImages(rows, None, image=image, split=split, channels=channels, size=size)
    sizes = np.array([size_of(rows[row][image], f"row {row} of {split!r}") for row in range(len(rows))])
    frame = Frame.of(sizes, wanted.longest)
    return PairedImages(
        rows,
        None,
        task.map_format.read,
        sizes,
        frame,
        image=image,
        label=None,
        split=split,
        channels=channels,
        missing=task.missing,
    )
