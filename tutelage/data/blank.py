"""Detection of images that are all one colour: damaged files, or drawings that are lost in reading."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.data.paired import PairedImages
from tutelage.errors import notice

# Images that are compared at once, which bounds the memory that the comparison takes.
_CHUNK = 4096
_LOOKED_AT = 64


def tell_blank(
    streamed: Mapping[str, StreamedImages] | Mapping[str, PairedImages],
    resident: Mapping[str, ResidentImages] | None = None,
) -> None:
    """Warn about images that are all one colour, and name one.

    Args:
        streamed: The splits, which know where an image came from.
        resident: The same splits, decoded. If None, only some images of each split are read.
    """
    found, looked_at = [], 0
    for split, images in streamed.items():
        if resident is None:
            # Each has to be decoded, so only some are; spread over the split, because images are often sorted by class.
            rows = np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).round()).astype(int).tolist()
            blank = _blank(images.read_batch(rows)[0])
        else:
            rows = range(len(images))
            blank = torch.cat([_blank(part) for part in torch.split(resident[split].images, _CHUNK)])
        looked_at += len(rows)
        found += [images.place(rows[position]) for position in blank.nonzero().flatten().tolist()]
    if found:
        of = f"{len(found)} of {looked_at} images"
        notice(
            f"{of}{' looked at' if resident is None else ''} are all one colour, such as {found[0]}: check that file. "
            "Transparent parts of images become white."
        )


def _blank(images: Tensor) -> Tensor:
    """Return which images have no two different pixels."""
    pixels = images.flatten(2)
    return (pixels == pixels[..., :1]).all(2).all(1)
