"""What a black box replies with, and the logits that say the same: logits, probabilities, the top classes, a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.errors import UserError
from tutelage.losses import LOG_ZERO

Answers = Literal["logits", "probabilities", "top", "labels"]
KINDS: tuple[Answers, ...] = get_args(Answers)
# How far the sum of float16 probabilities may be from one.
_ROUNDING = 0.01
Array = NDArray[Any]


def width_of(kind: Answers, classes: int) -> int | None:
    """Return how many numbers a reply has for a sample; None for `top`, which may have any even number."""
    return {"logits": classes, "probabilities": classes, "top": None, "labels": 1}[kind]


def rows_of(kind: Answers, outputs: Sequence[Array], classes: int, samples: int) -> Array:
    """Return a reply as it is stored, float32 `[sample, number]`: its outputs one after the other.

    Args:
        kind: What the reply is.
        outputs: Its tensors: `[sample, class]`; for `top` the classes and their probabilities, each `[sample, k]`; for
            `labels` `[sample]` or `[sample, 1]`.
        classes: How many classes there are.
        samples: How many samples were asked about.

    Raises:
        UserError: If the reply has another shape, or NaN among its values.
    """
    shapes = [list(each.shape) for each in outputs]
    if any(each.ndim == 0 or len(each) != samples for each in outputs):
        raise UserError(f"The black box was asked about {samples} samples and replied with the shapes {shapes}.")
    flat = [each.reshape(samples, -1) for each in outputs]
    if kind == "top" and (len(flat) != 2 or flat[0].shape != flat[1].shape or not 0 < flat[0].shape[1] <= classes):
        raise UserError(
            f"The top classes are two outputs, the classes and their probabilities, each [{samples}, k], and the reply "
            f"has {shapes}: name them as output=CLASSES+PROBABILITIES."
        )
    found = np.concatenate(flat, axis=1)
    width = width_of(kind, classes)
    if width is not None and found.shape[1] != width:
        raise UserError(
            f"The black box replied with the shape {shapes[0]}, and [{samples}, {width}] was expected of {kind}. "
            "Labels alone are answers=labels; for a teacher of other classes give their number (classes=) and a class "
            "map (--teacher-classes)."
        )
    return _finite(found.astype(np.float32))


def logits_of(kind: Answers, rows: Array, classes: int) -> Tensor:
    r"""Return logits whose softmax is the distribution that a reply states, float32 `[sample, class]`.

    Of the `top` classes the rest of the probability is spread evenly over the others. Of `labels`, the class has all of
    it.

    Args:
        kind: What the reply is.
        rows: The reply, as `rows_of` returns it.
        classes: How many classes there are.

    Raises:
        UserError: If values are no classes, or no probabilities.
    """
    found = _READERS[kind](rows, classes)
    # Finite, so that a probability of zero times its logarithm is zero.
    return torch.from_numpy(np.maximum(found, LOG_ZERO).astype(np.float32))


def _logits(rows: Array, classes: int) -> Array:
    return rows


def _probabilities(rows: Array, classes: int) -> Array:
    found = rows.astype(np.float64)
    sums = found.sum(axis=1)
    if found.min(initial=0) < -_ROUNDING or np.abs(sums - 1).max(initial=0) > _ROUNDING:
        raise UserError(
            f"The black box should reply with probabilities, and its numbers go from {found.min():.3g} to "
            f"{found.max():.3g}, with sums from {sums.min():.3g} to {sums.max():.3g}: are they logits "
            "(answers=logits)?"
        )
    return _log(found.clip(min=0) / found.clip(min=0).sum(axis=1, keepdims=True))


def _top(rows: Array, classes: int) -> Array:
    count = rows.shape[1] // 2
    kept, share = _classes(rows[:, :count], classes), rows[:, count:].astype(np.float64)
    if any(len(set(row)) < len(row) for row in kept.tolist()):
        raise UserError("The black box names the same class twice for one sample.")
    total = share.sum(axis=1, keepdims=True)
    if share.min(initial=0) < 0 or total.max(initial=0) > 1 + _ROUNDING:
        raise UserError(
            f"The top probabilities go down to {share.min():.3g}, with sums up to {total.max():.3g}: they must be "
            "positive, with sums up to 1."
        )
    rest = np.maximum(1 - total, 0) / max(classes - count, 1)
    found = np.repeat(rest, classes, axis=1)
    found[np.arange(len(rows))[:, None], kept] = share
    return _log(found / found.sum(axis=1, keepdims=True))


def _labels(rows: Array, classes: int) -> Array:
    found = np.full((len(rows), classes), float(LOG_ZERO))
    found[np.arange(len(rows)), _classes(rows[:, 0], classes)] = 0
    return found


_READERS: Mapping[Answers, Callable[[Array, int], Array]] = {
    "logits": _logits,
    "probabilities": _probabilities,
    "top": _top,
    "labels": _labels,
}


def _finite(array: Array) -> Array:
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
        raise UserError(
            f"The black box replied with NaN or infinite numbers for {bad} of {len(array)} samples. They are not "
            "stored, and would be asked about again."
        )
    return array


def _classes(rows: Array, classes: int) -> Array:
    whole = rows.astype(np.int64)
    if not np.array_equal(whole, rows):
        raise UserError(f"Classes are whole numbers, and the black box replied with {rows.flat[0]:g}.")
    if whole.min(initial=0) < 0 or whole.max(initial=0) >= classes:
        raise UserError(
            f"The black box names the classes {whole.min()} to {whole.max()}, and there are {classes}: 0 to "
            f"{classes - 1}. For a teacher of other classes give their number (classes=) and a class map "
            "(--teacher-classes)."
        )
    return whole


def _log(probability: Array) -> Array:
    found: Array = np.log(probability, out=np.full_like(probability, LOG_ZERO), where=probability > 0)
    return found
