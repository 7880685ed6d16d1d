"""Places of data: the hub, or a local folder with images by class or with tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.data.contents import Contents
from tutelage.data.folders import ImageFolder, scan_folder
from tutelage.data.hub import holds_tables, hub_states, open_hub, open_path
from tutelage.data.map_folders import PairFolder, scan_pairs
from tutelage.data.map_format import MapFormat
from tutelage.data.names import Spec
from tutelage.data.tables import Tables, as_tables
from tutelage.data.walk import walk
from tutelage.errors import UserError


class HubPlace:
    """A dataset of the Hugging Face hub; it is downloaded if it is not in the cache yet.

    Args:
        where: The user's request.
        name: `owner/name`.
        maps: How the labels lie in files, if they are maps.
        has_labels: Whether there are labels; without, the samples are texts.
    """

    def __init__(self, where: Spec, name: str, *, maps: MapFormat | None = None, has_labels: bool = True) -> None:
        self._where, self._rows, self._maps, self._has_labels = where, open_hub(name), maps, has_labels
        self.listing: Any = hub_states(self._rows)

    def known_content(self) -> Any:
        """Return the identity of the content: the files of the revision, which never changes."""
        return self.listing

    # Nothing more to read: a revision's files identify its content.
    content = known_content

    def tables(self) -> Tables:
        """Return its splits and columns."""
        return _tables(self._rows, self._where, maps=self._maps, has_labels=self._has_labels)


class LocalPlace:
    """A file or folder on this machine. Its layout is checked each time; its files are opened only when needed.

    Args:
        where: The user's request.
        path: The file or folder.
        has_classes: Whether the task uses the classes.
        maps: How the labels lie in files, if they are maps.
        has_labels: Whether there are labels; without, the samples are texts, which may be lines of plain text.

    Raises:
        UserError: If the layout of a folder of images is unclear.
    """

    def __init__(
        self,
        where: Spec,
        path: Path,
        *,
        has_classes: bool = True,
        maps: MapFormat | None = None,
        has_labels: bool = True,
    ) -> None:
        self._where, self._path, self._maps, self._has_labels = where, path, maps, has_labels
        self._images: ImageFolder | PairFolder | None
        tree = walk(path)
        self._contents = Contents.of(tree)
        if holds_tables(tree, plain=not has_labels):
            self._images = None
        elif not has_labels:
            raise UserError(f"{path} holds no texts: give plain text (.txt), or tables (Parquet, CSV, JSON).")
        elif path.is_file():
            raise UserError(f"{path} is a file: give a folder of images by class, or tables (Parquet, CSV, JSON).")
        elif maps is not None:
            self._images = scan_pairs(tree, maps, label=where.label, image=where.image)
        else:
            self._images = scan_folder(tree, label=where.label, image=where.image, has_classes=has_classes)

    @property
    def listing(self) -> Any:
        """Path, size and time of all files."""
        return self._contents.listing

    def known_content(self) -> str | None:
        """Return the digest of all files' content if it is known without reading them; else None."""
        return self._contents.known()

    def content(self) -> str:
        """Return the digest of all files' content, and remember it."""
        return self._contents.digest()

    def tables(self) -> Tables:
        """Return its splits and columns."""
        if self._images is not None:
            return self._images.tables()
        rows = open_path(self._path, state=self._contents.state)
        return _tables(rows, self._where, maps=self._maps, has_labels=self._has_labels)


def _tables(rows: Any, where: Spec, *, maps: MapFormat | None, has_labels: bool) -> Tables:
    columns = {"image": where.image, "label": where.label, "text": where.text_column}
    return as_tables(rows, **columns, spec=where.text, maps=maps, has_labels=has_labels)
