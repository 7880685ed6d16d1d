"""Folders of images by class: `photos/train/cat/*.jpg`, or without splits, `photos/cat/*.jpg`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from tutelage.data.class_names import tell_text_order, tell_twins
from tutelage.data.split_names import TRAIN, misspelt, read_name, read_names
from tutelage.data.tables import Tables
from tutelage.data.walk import Folder, suffix_of
from tutelage.errors import UserError, notice

SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Image formats of cameras and designers. Not read, because which of them can be read depends on the machine.
_UNREAD = frozenset({".avif", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".cr2", ".psd", ".raw", ".svg", ".tga"})
_SHOWN = 6


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder.

    Attributes:
        splits: For each split, the paths by class name. Classes and paths are sorted, and no list is empty.
    """

    splits: Mapping[str, Mapping[str, Sequence[str]]]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the training split."""
        return tuple(self.splits[TRAIN])

    def files(self) -> Iterator[str]:
        """Yield the paths of all images, split by split and class by class."""
        for classes in self.splits.values():
            for paths in classes.values():
                yield from paths

    def tables(self) -> Tables:
        """Return the images as tables, whose labels are the classes in alphabetical order."""
        from datasets import ClassLabel, Dataset, Features, Image

        # Images stay encoded: decoding is ours, so that messages can name the file.
        features = Features({"image": Image(decode=False), "label": ClassLabel(names=list(self.class_names))})
        position = {name: index for index, name in enumerate(self.class_names)}
        tables = {}
        for split, classes in self.splits.items():
            # The image column is a struct, for which Arrow does not accept plain paths.
            images = [{"bytes": None, "path": path} for paths in classes.values() for path in paths]
            labels = [position[name] for name, paths in classes.items() for _ in paths]
            tables[split] = Dataset.from_dict({"image": images, "label": labels}, features=features)
        return Tables(tables, "image", "label")


def scan_folder(
    tree: Folder, *, label: str | None = None, image: str | None = None, has_classes: bool = True
) -> ImageFolder:
    """Return the images of a folder; the names of the class folders are the classes.

    Hidden files and folders are not read, and links are followed. An unclear layout is refused, never guessed.

    Args:
        tree: The folder. It holds class folders, or split folders (`train`, and perhaps `val` and `test`) that hold
            class folders.
        label: Must be None: a folder of images has no label column.
        image: Must be None: a folder of images has no image column.
        has_classes: Whether the task uses the classes. If not, a single class folder is enough, or images without any.

    Raises:
        UserError: If a column is named, there are no images, the folders are nested in another way, a training class
            has no images, or another split has a class that training does not have.
    """
    if label or image:
        raise UserError(f"{tree.path} is a folder of images, which has no columns: leave out label= and image=.")
    check_names(tree)
    if not has_classes and not any(map(_holds_images, tree.folders)) and (images := _images(tree)):
        return ImageFolder({TRAIN: {tree.name: images}})
    folders = _split_folders(tree)
    found = {split: _by_class(folder, split) for split, folder in folders.items()}
    if has_classes and len(found[TRAIN]) == 1:
        raise UserError(
            f"{folders[TRAIN].path} has only one class, {next(iter(found[TRAIN]))}, so there is nothing to tell apart. "
            "Give the folder that holds the folders of all classes, or add a class."
        )
    for split, classes in found.items():
        if more := sorted(set(classes) - set(found[TRAIN])):
            raise UserError(
                f"{folders[split].path} has the class folder {more[0]!r}, which {folders[TRAIN].path} does not have: "
                "add it there, or remove it."
            )
    if has_classes:
        tell_text_order([*found[TRAIN]], where=folders[TRAIN].path)
        tell_twins([*found[TRAIN]], where=folders[TRAIN].path)
    return ImageFolder(found)


def _split_folders(root: Folder) -> dict[str, Folder]:
    """Return the folder of each split. If the root itself holds the class folders, it is the training split."""
    filled = {folder.name: folder for folder in root.folders if _holds_images(folder)}
    nested = {name: folder for name, folder in filled.items() if _has_class_folders(folder)}
    if not nested:
        _check_class_names(root, filled)
        return {TRAIN: root}
    # Empty split folders count too: a user with an empty `test` does not want test images held out of training.
    names = [folder.name for folder in root.folders if folder.name in nested or folder.name not in filled]
    splits = read_names(names, root.path)
    if TRAIN not in splits:
        _check_no_splits(root, filled, nested, list(splits.values()))
        return {TRAIN: root}
    if others := [name for name in filled if name not in splits.values()]:
        _check_beside(root, others, [filled[name] for name in splits.values() if name in filled])
    return {split: next(folder for folder in root.folders if folder.name == name) for split, name in splits.items()}


def _check_class_names(root: Folder, classes: Mapping[str, Folder]) -> None:
    """Refuse class folders with names of splits. Only a `train` beside other classes is allowed: a vehicle."""
    splits = [name for name in classes if _is_split_name(name)]
    if not splits:
        return
    if len(splits) < len(classes) and [name.lower() for name in splits] == [TRAIN]:
        notice(f"{root.path}: {splits[0]} is read as a class and not as a split, because it holds images itself.")
        return
    raise UserError(
        f"{root.path} has {_listed(splits)}, which are named like splits but hold images instead of class folders. If "
        f"they are splits, lay them out as {root.name}/{splits[0]}/CLASS/IMAGE.jpg; if they are classes, rename them."
    )


def _check_no_splits(
    root: Folder, filled: Mapping[str, Folder], nested: Mapping[str, Folder], splits: Sequence[str]
) -> None:
    """Check nested folders without a training split: their names may be misspelt names of splits."""
    strange = misspelt(nested)
    # "brain" is close to "train", but brain/images can be a class with its images one level down.
    if strange and (splits or len(strange) == len(filled) or not _wrapper(filled, nested)):
        raise UserError(
            f"{root.path} has the folders {_listed(filled)}, of which {_listed(strange)} looks like a misspelt split: "
            "name the splits train, val and test."
        )
    if splits:
        raise UserError(
            f"{root.path} has {_listed(splits)}, named like splits, and beside that {_listed(filled, splits)}, but no "
            f"training split: name the folder to learn from train. To measure on {splits[0]} alone, give "
            f"{root.path}/{splits[0]}."
        )


def _check_nested(folder: Folder, filled: Mapping[str, Folder], nested: Mapping[str, Folder]) -> None:
    """Refuse class folders that hold only folders, unless each holds the same one."""
    if wrapper := _wrapper(filled, nested):
        notice(f"{folder.path}: the images of each class are read from the folder {wrapper} in it.")
        return
    if len(filled) == 1:
        only = next(iter(filled.values()))
        raise UserError(
            f"{folder.path} holds only one folder, {only.name}, which holds folders again: "
            f"{_listed(inner.name for inner in only.folders)}. That is one level too many: give {only.path}, or move "
            "its folders up."
        )
    raise UserError(
        f"{folder.path} has the class folders {_listed(nested)}, which hold only folders, such as "
        f"{next(iter(nested.values())).folders[0].path}, and no images. Give the folder whose subfolders are the "
        f"classes, as {folder.name}/CLASS/IMAGE.jpg, or split folders named train, val and test."
    )


def _check_beside(root: Folder, others: Sequence[str], splits: Sequence[Folder]) -> None:
    """Check the folders beside split folders: they may be classes, a misspelt split, or something else."""
    if strange := misspelt(others):
        raise UserError(
            f"{root.path} has {_listed(strange)} beside {_listed(folder.name for folder in splits)}: if that is a "
            "split, name it train, val or test; otherwise move it elsewhere."
        )
    if flat := [name for name in others if _is_split_name(name)]:
        raise UserError(
            f"{root.path}/{flat[0]} is named like a split, but holds images instead of class folders: lay it out as "
            f"{flat[0]}/CLASS/IMAGE.jpg, or move it elsewhere."
        )
    # Folders that have classes in common are surely splits, so what is beside them can be left out.
    shared = set.intersection(*({folder.name for folder in split.folders} for split in splits))
    if len(splits) > 1 and shared:
        notice(f"{root.path}: {_listed(others)} beside the splits is not read.")
        return
    raise UserError(
        f"{root.path} has {splits[0].name}, named like a split, and beside it {_listed(others)} with images. If "
        f"{splits[0].name} is a class, put its images directly into it; if it is a split, move the others elsewhere."
    )


def _by_class(folder: Folder, split: str) -> dict[str, list[str]]:
    filled = {inner.name: inner for inner in folder.folders if _holds_images(inner)}
    if not filled:
        raise UserError(
            f"No images found in class folders of {folder.path}: lay them out as {folder.name}/CLASS/IMAGE.jpg "
            f"(known endings: {' '.join(sorted(SUFFIXES))})."
        )
    if nested := {name: inner for name, inner in filled.items() if not _images(inner)}:
        _check_nested(folder, filled, nested)
    # In other splits, a class may be empty or absent: then it is just not measured.
    if split == TRAIN and (empty := [inner.path for inner in folder.folders if inner.name not in filled]):
        raise UserError(f"The class folder {empty[0]} has no images: fill it or remove it.")
    if beside := _images(folder):
        notice(f"{len(beside)} images beside the class folders of {folder.path} are not read, such as {beside[0]}.")
    return {name: [path for path in inner.below() if _is_read(path)] for name, inner in filled.items()}


def check_names(tree: Folder) -> None:
    """Refuse broken links and names that no table can hold, and tell of images that are not read.

    Args:
        tree: The folder.

    Raises:
        UserError: If there is such a name.
    """
    _check_links(tree)
    _check_signs(tree)
    _tell_unread(tree)


def _check_links(tree: Folder) -> None:
    """Refuse broken links to images, and broken links without a suffix, which may be to folders."""
    for link in tree.dangling:
        if suffix_of(link) in ("", *SUFFIXES):
            raise UserError(f"{link} is a link to something that does not exist: fix the link or remove it.")
    for folder in tree.folders:
        _check_links(folder)


def _check_signs(tree: Folder) -> None:
    """Refuse names that are no text in UTF-8, such as those of an old archive: tables cannot hold them."""
    for path in tree.below():
        if not _is_text(path):
            shown = path.encode("utf-8", "backslashreplace").decode()
            raise UserError(f"{shown} has a name that is no UTF-8 text: rename it (convmv renames whole folders).")


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tell_unread(tree: Folder) -> None:
    unread = [path for path in tree.below() if suffix_of(path) in _UNREAD]
    if unread:
        notice(
            f"{len(unread)} images of {tree.path} have endings that are not read, such as {unread[0]}: convert them to "
            "JPEG or PNG."
        )


def _is_read(path: str) -> bool:
    return suffix_of(path) in SUFFIXES


def _images(folder: Folder) -> list[str]:
    return [path for path in folder.files if _is_read(path)]


def _holds_images(folder: Folder) -> bool:
    # At any depth: how deep images may lie is checked later, with a message of its own.
    return any(_is_read(path) for path in folder.files) or any(map(_holds_images, folder.folders))


def _has_class_folders(folder: Folder) -> bool:
    """Return whether a folder holds only folders, or has the name of a split and holds folders of images."""
    if not _images(folder):
        return True
    return _is_split_name(folder.name) and any(map(_holds_images, folder.folders))


def _is_split_name(name: str) -> bool:
    found = read_name(name)
    return found is not None and not found.rest


def _wrapper(filled: Mapping[str, Folder], nested: Mapping[str, Folder]) -> str | None:
    """Return the name of the folder that holds all images in each class folder; None if they do not agree on one."""
    inner = [[child for child in folder.folders if _holds_images(child)] for folder in filled.values()]
    if (
        len(nested) < len(filled)
        or len(filled) < 2
        or not all(len(found) == 1 and _images(found[0]) for found in inner)
    ):
        return None
    names = {found[0].name for found in inner}
    return names.pop() if len(names) == 1 else None


def _listed(names: Iterator[str] | Sequence[str] | Mapping[str, object], without: Sequence[str] = ()) -> str:
    kept = [name for name in names if name not in without]
    more = f" and {len(kept) - _SHOWN} more" if len(kept) > _SHOWN else ""
    return ", ".join(islice(kept, _SHOWN)) + more
