"""Conversion of users' targets to the form of a task: class indices, sets of classes, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.errors import UserError
from tutelage.losses import UNLABELLED

# No dataset of images or texts has as many classes. Larger numbers are identifiers, and would exhaust the memory.
_MOST_CLASSES = 1_000_000
_SHOWN = 5


def as_array(values: Any, *, where: str) -> NDArray[Any]:
    """Return targets of any form as one numpy array `[sample, ...]`.

    Args:
        values: A tensor, an array, or a sequence with one entry per sample.
        where: The data's name in messages.

    Raises:
        UserError: If the samples' targets differ in length.
    """
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    if isinstance(values, Sequence) and values and isinstance(values[0], Tensor):
        # numpy would read a list of tensors number by number, and none from a GPU.
        values = [value.detach().cpu().numpy() for value in values]
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError(f"The targets of {where} differ in length: give every sample the same number.") from error


def class_indices(values: Any, *, where: str) -> Tensor:
    """Return class indices, int64 `[sample]`; -1 is a sample without a label.

    Accepted are indices `[sample]` or `[sample, 1]`, also as whole floats, and one-hot rows `[sample, class]`.

    Args:
        values: The user's targets.
        where: The data's name in messages.

    Raises:
        UserError: If the targets are names, fractions, mixtures of classes, or numbers out of range.
    """
    found = as_array(values, where=where)
    if found.dtype.kind not in "iufb":
        shown = ", ".join(map(repr, found.flatten()[:_SHOWN].tolist()))
        raise UserError(
            f"The labels of {where} are not numbers, but {shown}: give class indices from 0, and the names as "
            "class_names=."
        )
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim == 2 and found.shape[1] > 1:
        return _from_rows(found, where)
    if found.ndim != 1:
        raise UserError(f"The labels of {where} have the shape {list(found.shape)}: give one class index per sample.")
    _check_whole(found, where)
    indices = found.astype(np.int64)
    if len(indices) and int(indices.min()) < UNLABELLED:
        raise UserError(
            f"The labels of {where} contain {int(indices.min())}: number the classes from 0; -1 means no label."
        )
    if len(indices) and int(indices.max()) >= _MOST_CLASSES:
        raise UserError(
            f"The labels of {where} go up to {int(indices.max())}, which would make that many classes: number the "
            "classes from 0."
        )
    return torch.from_numpy(indices)


def class_sets(values: Any, *, where: str) -> Tensor:
    """Return which classes each sample has, float32 `[sample, class]` of 0 and 1; -1 means unknown.

    Args:
        values: Rows of 0, 1 and -1.
        where: The data's name in messages.

    Raises:
        UserError: If the targets are not such rows.
    """
    found = as_array(values, where=where)
    if found.ndim != 2 or found.dtype.kind not in "iufb":
        raise UserError(
            f"The targets of {where} have the shape {list(found.shape)}: the task 'multi-label' needs one row of 0 and "
            "1 per sample, with a column for each class."
        )
    strange = sorted(set(np.unique(found).tolist()) - {UNLABELLED, 0, 1})
    if strange:
        raise UserError(
            f"The targets of {where} contain {strange[0]:g}: the task 'multi-label' takes 0 and 1, and -1 where it is "
            "not known."
        )
    return torch.from_numpy(found.astype(np.float32))


def numbers(values: Any, *, where: str) -> Tensor:
    """Return numbers to predict, float32 `[sample, value]`.

    Args:
        values: One number per sample, or a row of numbers.
        where: The data's name in messages.

    Raises:
        UserError: If the targets are not numbers, or one of them is not finite.
    """
    found = as_array(values, where=where)
    if found.dtype.kind not in "iufb" or found.ndim not in (1, 2):
        raise UserError(
            f"The targets of {where} have the shape {list(found.shape)} of {found.dtype}: the task 'regression' needs "
            "one number per sample, or a row of numbers."
        )
    wrong = np.flatnonzero(~np.isfinite(found).reshape(len(found), -1).all(axis=1))
    if len(wrong):
        raise UserError(f"The target of sample {wrong[0]} of {where} is not finite: leave such samples out.")
    # One number a sample becomes a column, because networks answer `[batch, value]`.
    return torch.from_numpy(found.astype(np.float32).reshape(len(found), -1))


def labelled(targets: Tensor) -> Tensor:
    """Return which samples have a label, bool `[sample]` on the CPU."""
    return (targets != UNLABELLED).cpu()


def _check_whole(found: NDArray[Any], where: str) -> None:
    if found.dtype.kind != "f":
        return
    fractions = found[~(np.isfinite(found) & (found == np.round(found)))]
    if len(fractions):
        shown = ", ".join(f"{value:g}" for value in fractions[:_SHOWN])
        raise UserError(
            f"The labels of {where} contain {shown}, which are not class indices. To predict numbers, choose the task "
            "'regression': --task regression, or task=\"regression\" in Python."
        )


def _from_rows(found: NDArray[Any], where: str) -> Tensor:
    """Return class indices from one-hot rows."""
    is_one_hot = np.isin(found, (0, 1)).all() and (found.sum(axis=1) == 1).all()
    if not is_one_hot:
        raise UserError(
            f"The labels of {where} have the shape {list(found.shape)}, but are not rows with a single 1. For several "
            "classes per sample, choose the task 'multi-label'; to predict numbers, 'regression' (--task, or task= in "
            "Python)."
        )
    return torch.from_numpy(found.argmax(axis=1).astype(np.int64))
