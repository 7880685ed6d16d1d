"""Depth maps in files: opened as they are, and turned into metres."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.decode import open_encoded
from tutelage.data.map_files import place_of
from tutelage.data.map_format import MapFormat
from tutelage.data.names import Spec
from tutelage.data.survey import Survey
from tutelage.errors import UserError, notice

NO_DEPTH = 0.0
"""The depth of a place without one, in metres."""

_NUMPY = b"\x93NUMPY"
_MILLIMETRE, _METRE = 0.001, 1.0
# Medians beyond these, in metres, are no depths that a camera sees: the unit is another one.
_NEAREST, _FARTHEST = 0.01, 1000.0
# The type in which NumPy gives images of 16 bits, or of more.
_PLAIN = ("L", "I", "I;16", "I;16B", "I;16L", "F")


class DepthMaps:
    """Turns the numbers in files of depth maps into metres, 0 where there is no depth.

    Args:
        surveys: The median depth of each map of each split in metres, None for one without a depth.
        where: The user's request, with the scale and the numbers that are no depth.

    Attributes:
        names: The name of the one number that a network answers a place with.

    Raises:
        UserError: If no training map holds a depth.
    """

    names = ("depth",)

    def __init__(self, surveys: Mapping[str, Survey], where: Spec) -> None:
        self._where = where
        train = surveys["train"].values
        found = [value for value in train if value is not None]
        if not found:
            raise UserError(
                f"No depth map of training holds a depth, such as {next(iter(train.values()), 'none')}: all numbers "
                "are 0, below it, no finite numbers, or ignored."
            )
        _tell(median(found), where)
        empty = [survey.values[None] for survey in surveys.values() if None in survey.values]
        if empty:
            notice(f"Some depth maps hold no depth at all, such as {empty[0]}: nothing is learned from them.")

    def read(self, values: NDArray[Any], where: str) -> NDArray[np.float32]:
        """Return the depth of each pixel in metres, `[height, width]`.

        Args:
            values: The numbers in the file.
            where: The file, for messages.

        Raises:
            UserError: If they have 8 bits, and nobody said what they mean.
        """
        return metres(values, self._where, where)


def metres(values: NDArray[Any], where: Spec, place: str) -> NDArray[np.float32]:
    """Return depths in metres, `[height, width]`, 0 where there is none.

    Whole numbers are millimetres and fractions metres, unless the user says otherwise. Numbers of 0 or below, those
    that are not finite, and those that the user names are no depth.

    Args:
        values: The numbers in a file.
        where: The user's request.
        place: The file, for messages.

    Raises:
        UserError: If they have 8 bits, and nobody said what they mean.
    """
    if where.scale is None and values.dtype.itemsize == 1:
        raise UserError(
            f"The depth map at {place} has 8 bits a pixel, which is 255 different depths at most: give 16-bit PNG or "
            ".npy. If such steps will do, say how many metres one is behind the data, as in PATH,scale=0.04."
        )
    raw = values.astype(np.float64)
    nothing = ~np.isfinite(raw) | (raw <= 0)
    if where.ignore is not None:
        # In the file's own type: 0.1 there may be another number than 0.1 here.
        nothing |= np.isin(values, np.array(parse_missing(where.ignore)).astype(values.dtype))
    return np.where(nothing, NO_DEPTH, raw * _scale(where, values)).astype(np.float32)


def read_depth(cell: Any, where: str) -> NDArray[Any]:
    """Return the numbers of a depth map as they stand in its file, `[height, width]`.

    Args:
        cell: A cell of a Hugging Face dataset: a mapping with encoded `bytes`, or with a `path`. It is an image of one
            channel, or a NumPy array (`.npy`).
        where: The place to name if it cannot be read, such as `"row 7 of split 'train'"`.

    Raises:
        UserError: If it is absent, damaged, or no map of numbers.
    """
    place = place_of(cell, where)
    if (encoded := _array_bytes(cell, place)) is not None:
        return _array(encoded, place)
    image = open_encoded(cell, place)
    if image.mode not in _PLAIN:
        raise UserError(
            f"The depth map at {place} is a {image.mode} image, whose pixels are colours: save the depths themselves "
            "in one channel of 16 bits, or as .npy."
        )
    return np.asarray(image)


def parse_scale(text: str) -> float:
    """Return the metres that a 1 in a file is, from `scale=0.001` or `scale=1/256`.

    Raises:
        UserError: If it is no number above zero.
    """
    try:
        found = float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError):
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise UserError(
            f"scale={text} is no number above zero: write how many metres a 1 in the depth maps is, such as "
            "scale=0.001 for millimetres, or scale=1/256."
        )
    return found


def parse_missing(text: str) -> tuple[float, ...]:
    """Return the numbers of `ignore=65535`, or of several joined by `+`.

    Raises:
        UserError: If it is no list of numbers.
    """
    try:
        return tuple(float(part) for part in text.split("+"))
    except ValueError as error:
        raise UserError(
            f"ignore={text} is no number: write the number that stands for no depth, as in ignore=65535."
        ) from error


def _scale(where: Spec, values: NDArray[Any]) -> float:
    if where.scale is not None:
        return parse_scale(where.scale)
    return _METRE if values.dtype.kind == "f" else _MILLIMETRE


def _array_bytes(cell: Any, place: str) -> bytes | None:
    """Return the content of a NumPy file; None for an image."""
    cell = cell or {}
    path, held = cell.get("path") or "", cell.get("bytes")
    if held is not None:
        return held if held.startswith(_NUMPY) else None
    if not path.lower().endswith(".npy"):
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"The depth map at {place} cannot be read: {error}.") from error


def _array(encoded: bytes, place: str) -> NDArray[Any]:
    try:
        # Not pickles, which could run code.
        found: NDArray[Any] = np.load(BytesIO(encoded), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"The depth map at {place} cannot be read ({error}): replace it or remove it.") from error
    # With an axis of one channel, as some save it.
    flat = found.reshape([side for side in found.shape if side != 1]) if found.ndim == 3 and 1 in found.shape else found
    if flat.ndim != 2 or flat.dtype.kind not in "uif":
        raise UserError(
            f"The depth map at {place} is an array {list(found.shape)} of {found.dtype}: it should be [height, width] "
            "of numbers."
        )
    return flat


def _noted(values: NDArray[Any], where: Spec, place: str) -> list[float | None]:
    """Return the median depth of a map in metres; None if it holds no depth."""
    found = metres(values, where, place)
    known = found[found > NO_DEPTH]
    return [float(np.median(known)) if known.size else None]


def _tell(typical: float, where: Spec) -> None:
    """Tell how the numbers were read, where nobody said it or it seems wrong."""
    if not _NEAREST <= typical <= _FARTHEST:
        notice(
            f"The depths have a median of {typical:,.4g} metres, so their unit may be another one: say how many metres "
            "a 1 in the files is behind the data, as in PATH,scale=0.001."
        )
    elif where.scale is None:
        notice(
            f"Depths are read with a median of {typical:,.4g} metres: whole numbers as millimetres, fractions as "
            "metres. If that is wrong, add scale= behind the data."
        )


DEPTHS = MapFormat(
    word="depth map",
    folders=("depth", "depths", "depth_map", "depth_maps"),
    columns=("depth", "depth_map", "depths", "depth_maps"),
    options=("ignore", "scale"),
    endings=frozenset({".npy"}),
    read=read_depth,
    noted=_noted,
    identity=lambda where: {"ignore": where.ignore, "scale": where.scale},
)
"""Maps of depths."""
