"""Stratified splits and subsets: each class keeps its share.

Not scikit-learn's stratified split: it refuses a class of one sample, and may leave a class out of the smaller part.
Also, saved runs belong to exactly these splits, so the algorithm must not change.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import UserError

Indices = NDArray[np.int64]


def hold_out(targets: Indices, fraction: float, *, seed: int, what: str) -> tuple[Indices, Indices]:
    """Split training samples in two, class by class.

    Args:
        targets: Class indices, `[sample]`.
        fraction: The share to hold out, between 0 and 1.
        seed: Seed of the choice.
        what: The new split's name in messages: `"validation"` or `"test"`.

    Returns:
        The positions that stay, and the positions held out.

    Raises:
        UserError: If the fraction is not between 0 and 1, or leaves fewer samples than classes on a side.
    """
    if not 0 < fraction < 1:
        raise UserError(f"{what} is {fraction:g}: give a fraction between 0 and 1, such as 0.1.")
    total, classes = len(targets), len(np.unique(targets))
    count = round(total * fraction)
    if count < classes or total - count < classes:
        least = math.ceil(100 * classes / total) / 100
        mend = (
            f"ask for {what} between {least:g} and {1 - least:g}, or add a {what} split"
            if least <= 0.5
            else f"add a {what} split or more images"
        )
        raise UserError(
            f"Holding out {fraction:g} of {total} images for {what} leaves {total - count} and {count} images, and one "
            f"of these is fewer than the {classes} classes: {mend}."
        )
    held, kept = _draw(targets, count, seed, keep_one=True)
    return kept, held


def thin_out(targets: Indices, count: int, *, seed: int) -> Indices:
    """Return the positions of `count` samples in which each class keeps its share.

    Args:
        targets: Class indices, `[sample]`.
        count: How many samples to keep.
        seed: Seed of the choice.

    Raises:
        UserError: If `count` is larger than the number of samples, or smaller than the number of classes.
    """
    classes = len(np.unique(targets))
    if not classes <= count <= len(targets):
        raise UserError(
            f"subset is {count}: the training split has {len(targets)} images of {classes} classes, so give a number "
            f"from {classes} to {len(targets)}."
        )
    return _draw(targets, count, seed, keep_one=False)[0]


def _draw(targets: Indices, count: int, seed: int, *, keep_one: bool) -> tuple[Indices, Indices]:
    """Draw `count` positions with each class in its share; return them and the others, both in ascending order."""
    _, classes, sizes = np.unique(targets, return_inverse=True, return_counts=True)
    # A held-out split must leave training one sample of each class.
    most = sizes - 1 if keep_one else sizes
    quota = _share(sizes * (count / len(targets)), count, least=np.minimum(1, most), most=most)
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    # The place of each sample within its class: the first `quota` of each class are drawn.
    rank = np.arange(len(targets)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    drawn = rank < np.repeat(quota, sizes)
    return np.sort(by_class[drawn]), np.sort(by_class[~drawn])


def _share(exact: NDArray[np.floating[Any]], count: int, *, least: Indices, most: Indices) -> Indices:
    """Return whole numbers that sum to `count`, within bounds and as close as possible to the exact shares."""
    quota: Indices = np.clip(np.floor(exact).astype(np.int64), least, most)
    # Rounding down leaves some over: they go where the exact share is missed by most.
    while quota.sum() < count:
        quota[np.argmax(np.where(quota < most, exact - quota, -np.inf))] += 1
    while quota.sum() > count:
        quota[np.argmax(np.where(quota > least, quota - exact, -np.inf))] -= 1
    return quota
