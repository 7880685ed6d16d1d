"""Decoding of images to uint8 pixels of one size."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.markup import escape
from rich.progress import Progress

from tutelage.errors import UserError
from tutelage.system.console import screen

T = TypeVar("T")

# If no size is asked for, larger images than this are resized to the usual size of pretrained networks.
_LARGEST_NATIVE, _USUAL = 256, 224
_PROBES = 64
_CHUNK = 256
_PATIENCE_SECONDS = 2.0
_USUAL_FORMATS = ("JPEG", "PNG", "WEBP")
_GREY = ("1", "L", "LA")
BACKGROUND = (255, 255, 255)


def read_image(cell: Any, where: str) -> Image.Image:
    """Open one image.

    Args:
        cell: A cell of a Hugging Face dataset: a mapping with encoded `bytes`, or with a `path`.
        where: The place to name if the image cannot be read, such as `"row 7 of split 'train'"`.

    Raises:
        UserError: If the image is absent, damaged, or has more than 8 bits per channel.
    """
    place = f"{cell['path']} ({where})" if cell and cell.get("path") else where
    image = open_encoded(cell, place)
    # Converting to 8 bits would clip such values without a word.
    if image.mode.startswith(("I", "F")):
        raise UserError(f"The image at {place} has more than 8 bits per channel: convert the images to 8 bits.")
    return image


def open_encoded(cell: Any, place: str, *, load: bool = True) -> Image.Image:
    """Open one image in the mode of its file, upright.

    Args:
        cell: A cell of a Hugging Face dataset: a mapping with encoded `bytes`, or with a `path`.
        place: The place to name if the image cannot be read.
        load: Whether to decode the pixels and turn the image upright; if not, only its head is read.

    Raises:
        UserError: If the image is absent or damaged.
    """
    cell = cell or {}
    if not cell.get("path") and cell.get("bytes") is None:
        raise UserError(f"There is no image at {place}: remove the row, or name the image column with ,image=.")
    image: Image.Image
    try:
        encoded = Path(cell["path"]).read_bytes() if cell.get("bytes") is None else cell["bytes"]
        image = _open(encoded)
        if not load:
            return image
        with without_warnings():
            image.load()
            # Cameras note beside the pixels how the image has to be turned.
            image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise UserError(f"The file at {place} is not an image of a known format: replace it or remove it.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"The image at {place} cannot be read ({error}): replace it or remove it.") from error
    return image


@contextmanager
def without_warnings() -> Iterator[None]:
    """Hide warnings while images are decoded: PIL warns about oddities in metadata that do not touch the pixels.

    If images are decoded in several threads, start the threads within this context.
    """
    # Python has one list of filters for all threads. If several of them restored it, in any order, the last one might
    # restore what another had hidden, and no warning would be seen until the program ends.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_pixels(image: Image.Image, *, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image as uint8 `[channels, height, width]`, resized to cover the size and then cut at the centre.

    Transparent parts become white.

    Args:
        image: The opened image.
        channels: 1 for grey, 3 for colour.
        size: Height and width in pixels.
    """
    image = on_background(image).convert("L" if channels == 1 else "RGB")
    height, width = size
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def on_background(image: Image.Image) -> Image.Image:
    """Return an image without transparency; transparent parts are laid on white.

    Args:
        image: An image in any mode, with an alpha channel, a transparent colour, or neither.
    """
    # Straight to RGB, transparent parts would get whatever colour lies hidden below them.
    if image.mode in ("P", "PA") or image.has_transparency_data:
        image = image.convert("RGBA")
    if image.mode != "RGBA":
        return image
    behind = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    behind.alpha_composite(image)
    return behind.convert("RGB")


def probe(read: Callable[[int], Image.Image], length: int, image_size: int | None) -> tuple[int, tuple[int, int]]:
    """Look at some images and decide on channels and size for all.

    Args:
        read: Opens the image at a position.
        length: How many images there are.
        image_size: The side in pixels that was asked for; None keeps a common small size.

    Returns:
        The number of channels (1 if all probed images are grey, else 3), and height and width in pixels.

    Raises:
        UserError: If the size asked for is below 1.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"The image size is {image_size} pixels: give 1 or more.")
    # Spread over the split, because images are often sorted by class or source.
    images = [read(int(position)) for position in np.unique(np.linspace(0, length - 1, _PROBES).round())]
    channels = 1 if all(image.mode in _GREY for image in images) else 3
    if image_size is not None:
        return channels, (image_size, image_size)
    sizes = {(image.height, image.width) for image in images}
    size = sizes.pop()
    return channels, size if not sizes and max(size) <= _LARGEST_NATIVE else (_USUAL, _USUAL)


def decode_all(
    read: Callable[[range], Iterable[NDArray[np.uint8]]], shape: tuple[int, int, int, int], what: str
) -> NDArray[np.uint8]:
    """Decode all images into one array, with a progress bar if it takes long.

    Args:
        read: Yields the pixels `[channels, height, width]` at a range of positions.
        shape: `(images, channels, height, width)`.
        what: The images' name in the progress bar.
    """
    pixels = np.empty(shape, dtype=np.uint8)

    def decode(start: int) -> int:
        positions = range(start, min(start + _CHUNK, shape[0]))
        for position, image in zip(positions, read(positions)):
            pixels[position] = image
        return len(positions)

    # PIL releases the interpreter lock while it decodes, so threads help.
    with without_warnings(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for _ in watched(pool.map(decode, range(0, shape[0], _CHUNK)), shape[0], what, of=lambda decoded: decoded):
            pass
    return pixels


def _open(encoded: bytes) -> Image.Image:
    """Open an image. The usual formats are tried first, because trying all formats takes longer than decoding."""
    try:
        return Image.open(BytesIO(encoded), formats=_USUAL_FORMATS)
    except UnidentifiedImageError:
        return Image.open(BytesIO(encoded))


def watched(steps: Iterable[T], total: int, what: str, *, of: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
    """Yield the steps' results; show a progress bar if they take longer than two seconds.

    Args:
        steps: The steps.
        total: How many things they work on together.
        what: The things' name in the progress bar.
        of: How many things a step worked on, from its result.
    """
    console, began, done = screen(stderr=True), time.monotonic(), 0
    with Progress(console=console, transient=True, disable=not console.is_terminal, auto_refresh=False) as progress:
        task = progress.add_task(f"Decoding {escape(what)}", total=total, visible=False)
        for step in steps:
            yield step
            done += of(step)
            late = time.monotonic() - began > _PATIENCE_SECONDS
            progress.update(task, completed=done, visible=late, refresh=late)
