"""Folders of images by class, `photos/train/cat/*.jpg`, or without the split: `photos/cat/*.jpg`."""

from __future__ import annotations

from pathlib import Path

from tutelage.data.tables import SPLIT_NAMES, Tables
from tutelage.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def scan_folder(root: Path, *, label: str | None = None, image: str | None = None) -> Tables:
    """Return the images of a folder; the class folders are the labels, in alphabetical order.

    Args:
        root: Holds class folders, or split folders (`train`, and perhaps `val` and `test`) that hold class folders.
        label: A label column, which such a folder does not have.
        image: An image column, which such a folder does not have.

    Raises:
        UserError: If a column is named, there are no images, a class folder is empty, or a split has other classes
            than `train`.
    """
    from datasets import ClassLabel, Dataset, Features, Image

    if label or image:
        raise UserError(f"{root} is a folder of images, which has no columns: leave out label= and image=.")
    if not root.is_dir():
        raise UserError(f"{root} is a file: give a folder of images by class, or a folder of Parquet.")
    split_folders = {
        SPLIT_NAMES[path.name.lower()]: path for path in _folders(root) if path.name.lower() in SPLIT_NAMES
    }
    if "train" not in split_folders:
        split_folders = {"train": root}
    found = {split: _by_class(folder) for split, folder in split_folders.items()}
    names = sorted(found["train"])
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=names)})
    tables = {}
    for split, classes in found.items():
        _check_same(split_folders["train"], split_folders[split], names, classes)
        paths = [str(path) for name in names for path in classes[name]]
        labels = [label for label, name in enumerate(names) for _ in classes[name]]
        # The image column is a struct: Arrow would not take plain paths for it.
        rows = Dataset.from_dict(
            {"image": [{"bytes": None, "path": path} for path in paths], "label": labels}, features=features
        )
        tables[split] = rows
    return Tables(tables, "image", "label")


def _by_class(folder: Path) -> dict[str, list[Path]]:
    classes = {path.name: sorted(_images(path)) for path in _folders(folder)}
    if not any(classes.values()):
        raise UserError(
            f"No images found in class folders of {folder}: lay them out as {folder.name}/CLASS/IMAGE.jpg "
            f"(known endings: {' '.join(sorted(SUFFIXES))})."
        )
    for name, paths in classes.items():
        if not paths:
            raise UserError(f"The class folder {folder / name} has no images: fill it or remove it.")
    return classes


def _check_same(train: Path, other: Path, names: list[str], classes: dict[str, list[Path]]) -> None:
    if missing := sorted(set(names) - set(classes)):
        raise UserError(f"{other} has no class folder {missing[0]!r}, which {train} has: add it, or remove the other.")
    if more := sorted(set(classes) - set(names)):
        raise UserError(f"{other} has the class folder {more[0]!r}, which {train} has not: add it there, or remove it.")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
