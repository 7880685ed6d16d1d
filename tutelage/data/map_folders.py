"""Folders of images and of maps with the same names, such as `images/train/1.jpg` and `masks/train/1.png`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutelage.data.class_maps import MASKS
from tutelage.data.folders import SUFFIXES
from tutelage.data.map_format import MapFormat
from tutelage.data.split_names import TRAIN, read_names
from tutelage.data.tables import MAPS, Tables
from tutelage.data.walk import Folder, suffix_of
from tutelage.errors import UserError, notice

# What people call the folder of images, in lower case.
_IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages"})


@dataclass(frozen=True)
class PairFolder:
    """Images and their maps.

    Attributes:
        splits: For each split, the paths of an image and of its map, sorted.
    """

    splits: Mapping[str, Sequence[tuple[str, str]]]

    def tables(self) -> Tables:
        """Return the pairs as tables with the columns `image` and `mask`."""
        from datasets import Dataset, Features, Image

        features = Features({"image": Image(decode=False), MAPS: Image(decode=False)})
        tables = {}
        for split, pairs in self.splits.items():
            images, maps = ([{"bytes": None, "path": path} for path in column] for column in zip(*pairs))
            tables[split] = Dataset.from_dict({"image": images, MAPS: maps}, features=features)
        return Tables(tables, "image", MAPS)


def scan_pairs(
    tree: Folder, maps: MapFormat = MASKS, *, label: str | None = None, image: str | None = None
) -> PairFolder:
    """Return the images of a folder, each with its map.

    Args:
        tree: The folder. It holds a folder of images and one of maps, each with split folders or without; or split
            folders that hold both.
        maps: How the maps lie in files.
        label: Must be None: a folder of images has no columns.
        image: Must be None.

    Raises:
        UserError: If a column is named, the folders are laid out in another way, or an image has no map.
    """
    if label or image:
        raise UserError(f"{tree.path} is a folder of images, which has no columns: leave out label= and image=.")
    both = _both(tree, maps)
    if both is not None:
        return PairFolder(_by_split(*both, maps))
    splits = {folder.name: found for folder in tree.folders if (found := _both(folder, maps)) is not None}
    names = read_names(splits, tree.path)
    if TRAIN not in names:
        have = ", ".join(folder.name for folder in tree.folders) or "no folders"
        usual = maps.folders[0]
        raise UserError(
            f"{tree.path} holds {have}: lay images and {maps.word}s out as images/train/1.jpg and {usual}/train/1.png, "
            f"or train/images/1.jpg and train/{usual}/1.png (train, val and test)."
        )
    return PairFolder({split: _paired(*splits[name], maps) for split, name in names.items()})


def _both(folder: Folder, maps: MapFormat) -> tuple[Folder, Folder] | None:
    """Return the folder of images and the folder of maps in a folder; None if one is missing."""
    images = [inner for inner in folder.folders if inner.name.lower() in _IMAGES]
    theirs = [inner for inner in folder.folders if inner.name.lower() in maps.folders]
    if not images or not theirs:
        return None
    for found in (images, theirs):
        if len(found) > 1:
            raise UserError(
                f"{folder.path} has the folders {found[0].name} and {found[1].name}, which may mean the same: keep one "
                "of them there."
            )
    return images[0], theirs[0]


def _by_split(images: Folder, others: Folder, maps: MapFormat) -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of each split: those of the split folders in both, or all as the training split."""
    mine, theirs = ({folder.name: folder for folder in where.folders} for where in (images, others))
    splits = read_names(mine, images.path)
    if TRAIN not in splits:
        return {TRAIN: _paired(images, others, maps)}
    found = {}
    for split, name in splits.items():
        if name not in theirs:
            raise UserError(
                f"{images.path} has the folder {name}, and {others.path} has not: both need the same splits."
            )
        found[split] = _paired(mine[name], theirs[name], maps)
    if unread := sorted(set(mine) - set(splits.values())):
        notice(f"{images.path}: beside the splits, {', '.join(unread)} is not read.")
    return found


def _paired(images: Folder, others: Folder, maps: MapFormat) -> list[tuple[str, str]]:
    """Return the path of each image and of its map; they have the same names, but for the ending."""
    mine, theirs = _by_name(images, SUFFIXES), _by_name(others, SUFFIXES | maps.endings)
    if not mine:
        raise UserError(f"There are no images in {images.path} (known endings: {' '.join(sorted(SUFFIXES))}).")
    alone = sorted(set(mine) - set(theirs))
    if alone:
        raise UserError(
            f"{len(alone)} of {len(mine)} images have no {maps.word}, such as {mine[alone[0]]}: it should be "
            f"{os.path.join(others.path, alone[0])}.png. Both have the same name, but for the ending."  # noqa: PTH118
        )
    if more := sorted(set(theirs) - set(mine)):
        notice(f"{len(more)} {maps.word}s without an image are not read, such as {theirs[more[0]]}.")
    return [(mine[name], theirs[name]) for name in sorted(mine)]


def _by_name(folder: Folder, endings: frozenset[str]) -> dict[str, str]:
    """Return the path of each file of some endings below a folder, by its path in the folder without the ending."""
    found: dict[str, str] = {}
    skipped = len(folder.path.rstrip("/\\")) + 1
    for path in folder.below():
        if suffix_of(path) not in endings:
            continue
        name = path[skipped : -len(suffix_of(path))]
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name but for the ending: keep one of them.")
        found[name] = path
    return found
