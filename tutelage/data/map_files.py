"""Files of maps, such as masks: opened as whole numbers, one for each pixel, as they stand in the file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tutelage.data.decode import open_encoded
from tutelage.errors import UserError

_WHOLE = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def place_of(cell: Any, where: str) -> str:
    """Return where a map or an image comes from: its file, or else its row.

    Args:
        cell: A cell of a Hugging Face dataset: a mapping with `path` or `bytes`.
        where: The row, for cells without a path.
    """
    path = (cell or {}).get("path")
    return f"{path} ({where})" if path else where


def read_map(cell: Any, where: str) -> NDArray[np.int64]:
    """Return the numbers of a map, `[height, width]`: class numbers of a mask with or without palette, or 16 bits.

    Args:
        cell: A cell of a Hugging Face dataset: a mapping with encoded `bytes`, or with a `path`.
        where: The place to name if it cannot be read, such as `"row 7 of split 'train'"`.

    Raises:
        UserError: If it is absent, damaged, or its pixels are colours and no numbers.
    """
    place = place_of(cell, where)
    image = open_encoded(cell, place)
    if image.mode in _WHOLE:
        # Of a palette these are the numbers of its colours, which is what masks mean by them.
        return np.asarray(image).astype(np.int64)
    channels = np.asarray(image)
    if image.mode == "LA" and (channels[..., 1] == 255).all():
        return channels[..., 0].astype(np.int64)
    if image.mode in ("RGB", "RGBA"):
        opaque = image.mode == "RGB" or bool((channels[..., 3] == 255).all())
        if opaque and (channels[..., :1] == channels[..., :3]).all():
            return channels[..., 0].astype(np.int64)
    raise UserError(
        f"The mask at {place} is a {image.mode} image whose pixels are colours: a mask holds the number of a class at "
        "each pixel. Save it in one channel (8 or 16 bits), or with a palette."
    )


def size_of(cell: Any, where: str) -> tuple[int, int]:
    """Return height and width of an image as it is shown, from its head alone where that says so.

    Raises:
        UserError: If it is absent or no image.
    """
    image = open_encoded(cell, place_of(cell, where), load=False)
    height, width = image.height, image.width
    # Orientations from 5 on lay the image on its side; 274 is the tag's number in EXIF.
    turned = image.getexif().get(274, 1) >= 5
    return (width, height) if turned else (height, width)


def as_image(pixels: NDArray[Any]) -> Image.Image:
    """Return a small map as an image with one channel of 8 bits."""
    return Image.fromarray(pixels.astype(np.uint8), mode="L")
