"""The visible files below a folder: hidden files are left out, links are followed, loops are cut."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.errors import UserError

# Folders without a leading dot that file managers, archives and storage systems leave behind.
LEFT_BEHIND = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})


@dataclass
class Folder:
    """A folder and what is visible in it.

    Attributes:
        path: Its path, by the way it was reached from the root.
        files: Its files, as sorted paths.
        folders: Its folders, sorted by name.
        dangling: Its links that lead nowhere.
    """

    path: str
    files: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return Path(self.path).name

    def below(self) -> Iterator[str]:
        """Yield the files in it and in all folders below it, in the order of their paths."""
        inner = {folder.path: folder for folder in self.folders}
        # All paths have the same beginning, so this is the order of the names.
        for path in sorted([*self.files, *inner]):
            if path in inner:
                yield from inner[path].below()
            else:
                yield path


def walk(root: Path) -> Folder:
    """Return a folder's visible content: names that begin with a dot are left out, and links are followed.

    Args:
        root: The folder, which may itself be hidden; or a file, which is returned as the only file of its folder.

    Raises:
        UserError: If two paths lead to the same folder by a link, or a folder may not be read.
    """
    if root.is_file():
        return Folder(str(root.parent), [str(root)])
    return _read(str(root), {}, frozenset())


def _read(path: str, seen: dict[tuple[int, int], str], above: Set[tuple[int, int]]) -> Folder:
    found, identity = Folder(path), _identity(path)
    seen[identity], inside = path, above | {identity}
    for entry in _visible(path):
        if _is_folder(entry):
            identity = _identity(entry.path)
            if identity in inside:
                continue  # A link back up, which would never end.
            if identity in seen:
                raise UserError(
                    f"{entry.path} and {seen[identity]} are the same folder, through a link: its files would be read "
                    "twice. Remove one of them."
                )
            found.folders.append(_read(entry.path, seen, inside))
        elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
            found.dangling.append(entry.path)
        else:
            found.files.append(entry.path)
    return found


def suffix_of(name: str) -> str:
    """Return the ending of a file's name in lower case, with its dot."""
    # Not Path(name).suffix: there may be a million files, and making a Path is slow.
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _visible(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted((entry for entry in entries if not _hidden(entry.name)), key=lambda entry: entry.name)
    except PermissionError as error:
        raise UserError(f"The folder {path} cannot be read: change its permissions, or move it elsewhere.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # For a link to itself, entry.is_dir() raises, and os.path.isdir returns False.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112


def _identity(path: str) -> tuple[int, int]:
    state = os.stat(path)  # noqa: PTH116
    return state.st_dev, state.st_ino


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in LEFT_BEHIND
