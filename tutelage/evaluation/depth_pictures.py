"""Maps of depths as small files in base64: images of 16 bits, in steps of one per cent."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tutelage.evaluation.shown import encoded, thinned

# Metres at the first step, and steps for a factor of e. Such steps are as good for a near thing as for a far one, and
# as files they are a third of what exact numbers would be.
_FIRST, _STEPS = 1e-4, 100
_LAST = 65534


def depth_png(depths: Tensor) -> str:
    """Return a map of metres `[height, width]` as a small PNG in base64, 0 where there is no depth.

    Args:
        depths: Metres; 0, below it, or not finite where there is none.
    """
    values = thinned(depths.detach().double().cpu().numpy())
    known = np.isfinite(values) & (values > 0)
    steps = np.round(_STEPS * np.log(np.where(known, values, 1.0) / _FIRST)).clip(0, _LAST)
    return encoded(Image.fromarray(np.where(known, steps + 1, 0).astype(np.uint16)), "PNG", optimize=True)


def depths_of(png: str) -> NDArray[np.float64]:
    """Return the metres in such a PNG, `[height, width]`, NaN where there is no depth.

    Args:
        png: The file in base64.
    """
    steps = np.asarray(Image.open(BytesIO(base64.b64decode(png)))).astype(np.float64)
    return np.where(steps > 0, _FIRST * np.exp((steps - 1) / _STEPS), np.nan)
