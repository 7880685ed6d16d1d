"""Hugging Face datasets of images or texts: finding the splits, the columns of inputs and the label column."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tutelage.data.corpora import corpus_columns
from tutelage.data.decode import probe, read_image
from tutelage.data.images import StreamedImages
from tutelage.data.label_sets import read_other_targets
from tutelage.data.labels import class_indices, class_names, read_column
from tutelage.data.map_format import MapFormat
from tutelage.data.names import Spec
from tutelage.data.split_names import TEST, TRAIN, TWINS, VALIDATION, misspelt, read_names, with_twins
from tutelage.data.task import Task
from tutelage.data.text_tables import is_text, text_columns
from tutelage.errors import UserError, notice, unknown

if TYPE_CHECKING:
    import datasets
    from torch import Tensor

# The fine label first: CIFAR-100 has a coarse one as well, and published results are on its 100 classes.
_LABELS = ("fine_label", "label", "labels", "class")
# Columns of images that have maps, as they are usually called.
_PICTURED = ("image", "img", "pixel_values")
MAPS = "map"
"""The column of maps in a table of files."""


@dataclass(frozen=True)
class Tables:
    """The splits of a source, as Hugging Face datasets with one label column, and one image column or texts.

    Attributes:
        splits: The datasets, by the names `train`, `validation`, `test`.
        image: The image column; empty if the samples are texts.
        label: The label column; empty if there are no labels.
        texts: The one or two text columns; empty if the samples are images.
    """

    splits: Mapping[str, datasets.Dataset]
    image: str
    label: str
    texts: tuple[str, ...] = ()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turn off Hugging Face's progress bars within the block, and restore the setting afterwards."""
    from datasets.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def as_tables(
    loaded: Mapping[str, datasets.Dataset],
    *,
    image: str | None,
    label: str | None,
    spec: str,
    text: str | None = None,
    maps: MapFormat | None = None,
    has_labels: bool = True,
) -> Tables:
    """Find splits and columns. A table without a column of images holds texts.

    Args:
        loaded: The result of `datasets.load_dataset`.
        image: The image column, or None to find it.
        label: The label column, or None to find it.
        text: The one or two text columns, joined by `+`, or None to find them.
        spec: The user's text for the data, for messages.
        maps: How the labels lie in files, if they are maps in a column of images.
        has_labels: Whether there are labels. Without, the table holds texts alone.

    Raises:
        UserError: If there is no training split, a split is empty, or a column is missing or not clear.
    """
    splits = _splits(loaded, spec)
    for name, rows in splits.items():
        if not len(rows):
            raise UserError(f"The split {name!r} of {spec} is empty: fill it or remove it.")
    features = splits["train"].features
    if not has_labels:
        columns = corpus_columns(features, text, spec=spec)
        _check_columns(splits, columns, spec)
        return Tables({name: rows.select_columns([*columns]) for name, rows in splits.items()}, "", "", columns)
    inputs, label, has_texts = _columns(features, image, label, text, spec, maps)
    _check_columns(splits, [*inputs, label], spec)
    if has_texts:
        chosen = {name: rows.select_columns([*inputs, label]) for name, rows in splits.items()}
        return Tables(chosen, "", label, inputs)
    encoded = inputs if maps is None else (*inputs, label)
    return Tables({name: _encoded(rows, [*inputs, label], encoded) for name, rows in splits.items()}, inputs[0], label)


def _check_columns(splits: Mapping[str, datasets.Dataset], columns: Sequence[str], spec: str) -> None:
    for name, rows in splits.items():
        if missing := set(columns) - set(rows.features):
            raise UserError(f"The split {name!r} of {spec} has no column {missing.pop()!r}: add it or drop the split.")


def _columns(
    features: Mapping[str, Any],
    image: str | None,
    label: str | None,
    text: str | None,
    spec: str,
    maps: MapFormat | None,
) -> tuple[tuple[str, ...], str, bool]:
    """Return the columns of inputs, the label column, and whether the inputs are texts."""
    if maps is not None:
        image, label = _paired_columns(features, image, label, spec, maps)
        return (image,), label, False
    if _holds_texts(features, image, text, spec):
        label = _label_column(features, label, spec)
        # The only column of text may be the label.
        if texts := text_columns(features, text, label=label, spec=spec):
            return texts, label, True
    return (_image_column(features, image, spec),), _label_column(features, label, spec), False


def input_columns(features: Mapping[str, Any], where: Spec, maps: MapFormat | None) -> tuple[tuple[str, ...], bool]:
    """Return the columns of the inputs in a table that may have no labels, and whether they hold texts.

    Args:
        features: The columns and their types.
        where: The user's request, with the columns that it names.
        maps: How the labels lie in files, if they are maps.

    Raises:
        UserError: If a column is missing or not clear.
    """
    from datasets import Image

    spec = where.text
    usual = _LABELS if maps is None else maps.columns
    label = where.label or next((name for name in usual if name in features and name != where.image), None)
    is_text = maps is None and _holds_texts(features, where.image, where.text_column, spec)
    if is_text and (texts := text_columns(features, where.text_column, label=label, spec=spec)):
        return texts, True
    pictures = [name for name, feature in features.items() if isinstance(feature, Image) and name != label]
    if where.image is None and len(pictures) == 1:
        return (pictures[0],), False
    return (_image_column(features, where.image, spec),), False


def _holds_texts(features: Mapping[str, Any], image: str | None, text: str | None, spec: str) -> bool:
    """Return whether a table's samples are texts: the user names texts, or there are texts and no images."""
    from datasets import Image

    if image is not None and text is not None:
        raise UserError(f"{spec} names a column of images and columns of texts: name one kind of input.")
    has_images = any(isinstance(feature, Image) for feature in features.values())
    has_texts = any(is_text(feature) for name, feature in features.items() if name not in _LABELS)
    return text is not None or (image is None and has_texts and not has_images)


def as_streamed(
    tables: Tables, task: Task, *, image_size: int | None, spec: str
) -> tuple[dict[str, StreamedImages], tuple[str, ...]]:
    """Return the splits as images that are decoded when needed, and the class names.

    Args:
        tables: The source.
        task: The task of the labels.
        image_size: The side in pixels; None keeps a common small size.
        spec: The user's text for the data, for messages.

    Raises:
        UserError: If labels do not fit the task or an image cannot be read.
    """
    names, targets = targets_of(tables, task, spec)
    train = tables.splits["train"]
    channels, size = probe(
        lambda row: read_image(train[row][tables.image], f"row {row} of split 'train'"), len(train), image_size
    )
    streamed = {
        name: StreamedImages(
            tables.splits[name],
            targets[name],
            image=tables.image,
            split=name,
            channels=channels,
            size=size,
        )
        for name in targets
    }
    return streamed, names


def targets_of(tables: Tables, task: Task, spec: str) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return a name for each number that a network returns for a sample, and the targets of each split with targets.

    Args:
        tables: The source.
        task: The task of the labels.
        spec: The user's text for the data, for messages.

    Raises:
        UserError: If labels do not fit the task.
    """
    where = {name: f"the split {name!r} of {spec}" for name in tables.splits}
    if not ("sample-labels" in task.offers or task.hides_targets):
        return read_other_targets(tables.splits, tables.label, task, where=where)
    columns = {name: read_column(rows, tables.label, where=where[name]) for name, rows in tables.splits.items()}
    # Nothing can be measured on a split whose labels are hidden, so it is left out.
    columns = {name: column for name, column in columns.items() if name == TRAIN or not column.is_hidden}
    names = class_names(columns[TRAIN], one_will_do=task.hides_targets)
    return names, class_indices(columns, names)


def _splits(loaded: Mapping[str, datasets.Dataset], spec: str) -> dict[str, datasets.Dataset]:
    # A dataset with a single split is for training whatever its name, and the other splits are held out of it.
    if len(loaded) == 1:
        only, rows = next(iter(loaded.items()))
        if only.lower() not in (TRAIN, "training"):
            notice(f"{spec} has only the split {only}, which is used for training.")
        return {TRAIN: rows}
    loaded = {name: loaded[own] for name, own in with_twins(loaded).items()}
    twins = [name for name in loaded if name in TWINS]
    names = read_names([name for name in loaded if name not in twins], spec)
    if TRAIN not in names:
        raise UserError(f"{spec} has the splits {', '.join(loaded)}: name the one to learn from 'train'.")
    others = [name for name in loaded if name not in (*names.values(), *twins)]
    if strange := misspelt(others):
        raise UserError(f"{spec} has the split {strange[0]!r}: call it train, validation or test, or drop it.")
    if others:
        notice(f"{spec} also has the splits {', '.join(others)}, which are not read.")
    return {split: loaded[names[split]] for split in (TRAIN, VALIDATION, TEST) if split in names} | {
        twin: loaded[twin] for twin in twins
    }


def _image_column(features: Mapping[str, Any], image: str | None, spec: str) -> str:
    from datasets import Image

    found = [name for name, feature in features.items() if isinstance(feature, Image)]
    if image is not None:
        if image not in features:
            raise unknown("image column", image, features)
        return image
    if len(found) != 1:
        have = f"image columns {', '.join(found)}" if found else f"no image column, only {', '.join(features)}"
        raise UserError(f"{spec} has {have}: name it, as in '{spec},image=NAME'.")
    return found[0]


def _label_column(features: Mapping[str, Any], label: str | None, spec: str) -> str:
    from datasets import ClassLabel

    if label is not None:
        if label not in features:
            raise unknown("label column", label, features)
        return label
    for name in _LABELS:
        if name in features:
            return name
    found = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    if len(found) != 1:
        have = f"label columns {', '.join(found)}" if found else f"no label column, only {', '.join(features)}"
        raise UserError(f"{spec} has {have}: name it, as in '{spec},label=NAME'.")
    return found[0]


def _paired_columns(
    features: Mapping[str, Any], image: str | None, label: str | None, spec: str, maps: MapFormat
) -> tuple[str, str]:
    """Return the column of images and the column of their maps."""
    from datasets import Image

    found = [name for name, feature in features.items() if isinstance(feature, Image)]
    for what, name in (("image column", image), ("label column", label)):
        if name is not None and name not in found:
            raise unknown(what, name, found)
    usual = [name for name in maps.columns if name in found and name != image]
    label = label or (usual[0] if len(usual) == 1 else None)
    others = [name for name in found if name != label]
    usual = [name for name in _PICTURED if name in others]
    image = image or (others[0] if len(others) == 1 else usual[0] if len(usual) == 1 else None)
    if image is None or label is None:
        raise UserError(
            f"{spec} has the columns {', '.join(features)}, of which {', '.join(found) or 'none'} hold images: name "
            f"that of the images and that of the {maps.word}s, as in '{spec},image=NAME,label=NAME'."
        )
    return image, label


def _encoded(rows: datasets.Dataset, columns: Sequence[str], images: Sequence[str]) -> datasets.Dataset:
    from datasets import Image

    rows = rows.select_columns([*columns])
    for name in images:
        # Not decoded by `datasets`, so that our own message can name an unreadable image.
        rows = rows.cast_column(name, Image(decode=False))
    return rows
