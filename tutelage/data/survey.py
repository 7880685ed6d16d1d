"""A look at all maps of a split before anything is learned: their sizes, and what is in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.decode import watched, without_warnings
from tutelage.data.map_files import place_of, size_of
from tutelage.data.map_format import MapFormat
from tutelage.data.names import Spec
from tutelage.errors import UserError

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Survey:
    """What the maps of a split hold.

    Attributes:
        sizes: Height and width of each image in pixels, `[sample, 2]`.
        values: What was noted of them, such as the numbers that occur, each with the first place where it does.
    """

    sizes: NDArray[np.int64]
    values: Mapping[Any, str]


def survey(rows: datasets.Dataset, where: Spec, maps: MapFormat, *, image: str, label: str, split: str) -> Survey:
    """Return what the maps of a split hold.

    Args:
        rows: The table; neither column is decoded.
        where: The user's request.
        maps: How the maps lie in files.
        image: The column of the images.
        label: The column of the maps.
        split: The split's name, for messages.

    Raises:
        UserError: If a map has another size than its image, or one of them cannot be read; the message names the file.
    """

    def look(index: int) -> tuple[tuple[int, int], Iterable[Any], str]:
        cells, row = rows[index], f"row {index} of split {split!r}"
        size, values = size_of(cells[image], row), maps.read(cells[label], row)
        place = place_of(cells[label], row)
        if values.shape != size:
            raise UserError(
                f"The {maps.word} at {place} is {_text(values.shape)} and its image at {place_of(cells[image], row)} "
                f"{_text(size)}: both need the same size."
            )
        return size, maps.noted(values, where, place), place

    sizes, found = np.empty((len(rows), 2), dtype=np.int64), dict[Any, str]()
    # PIL releases the interpreter lock while it decodes, so threads help.
    with without_warnings(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for index, (size, values, place) in enumerate(
            watched(pool.map(look, range(len(rows))), len(rows), f"{split} {maps.word}s")
        ):
            sizes[index] = size
            for value in values:
                found.setdefault(value, place)
    return Survey(sizes, found)


def _text(size: tuple[int, ...]) -> str:
    return " high and ".join(map(str, size)) + " wide"
