"""Conversion of label columns to class indices: by name if both splits have names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.class_names import listed, positions, tell_order, tell_text_order
from tutelage.data.split_names import TRAIN
from tutelage.errors import UserError, notice
from tutelage.losses import UNLABELLED

if TYPE_CHECKING:
    import datasets

# More classes than this, and fewer than two samples for each: numbers of samples, not classes.
_MANY = 1000


@dataclass(frozen=True)
class LabelColumn:
    """The labels of a split, as they are in the table.

    Attributes:
        values: Whole numbers, truth values or text, `[sample]`.
        names: The name of each number, if the table has names.
        where: The split, for messages.
    """

    values: NDArray[Any]
    names: tuple[str, ...] | None
    where: str

    @property
    def is_hidden(self) -> bool:
        """Whether no sample has a label: benchmarks publish -1 instead of their test labels."""
        return self.values.dtype.kind == "i" and bool((self.values == UNLABELLED).all())


def read_column(rows: datasets.Dataset, label: str, *, where: str) -> LabelColumn:
    """Return the labels of a table.

    Args:
        rows: The table.
        label: The column.
        where: The split, for messages.

    Raises:
        UserError: If the labels are not classes, or a row has none.
    """
    from datasets import ClassLabel, Value

    feature = rows.features[label]
    if not isinstance(feature, ClassLabel | Value):
        raise UserError(
            f"The labels of {where} are {type(feature).__name__.lower()}s: a class is one number or one word for each "
            "image. Name a column of classes with ,label=NAME; for several classes per image, choose the task "
            "multi-label (--task multi-label)."
        )
    values = np.asarray(rows.select_columns([label]).with_format("numpy")[:][label])
    names = tuple(feature.names) if isinstance(feature, ClassLabel) else None
    return LabelColumn(_classes_in(values, where), names, where)


def class_names(train: LabelColumn, *, one_will_do: bool = False) -> tuple[str, ...]:
    """Return the classes that training has: those that the table names, or those that occur, in order.

    Args:
        train: The labels of the training split.
        one_will_do: Whether a single class is enough, because the task hides the classes.

    Raises:
        UserError: If there is only one class, or nearly every sample has a class of its own.
    """
    found = np.unique(train.values)
    if train.names is None and len(found) > _MANY and 2 * len(found) > len(train.values):
        raise UserError(
            f"The {len(train.values)} labels of {train.where} have {len(found)} different values, so they look like "
            "numbers of the samples: name the column of classes with ,label=NAME."
        )
    # False and true are called 0 and 1.
    names = train.names or tuple(str(int(value) if value.dtype.kind == "b" else value) for value in found)
    if len(names) == 1 and not one_will_do:
        raise UserError(f"{train.where} has only one class, {names[0]}, so there is nothing to tell apart.")
    if train.names is None:
        _tell_gaps(train, found)
        if found.dtype.kind == "U":
            tell_text_order(names, where=train.where)
    return names


def class_indices(columns: Mapping[str, LabelColumn], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the class indices of each split, int64 `[sample]`.

    Args:
        columns: The labels by split.
        names: The classes of training.

    Raises:
        UserError: If a split has a class that training does not have, or a label is out of range.
    """
    return {split: torch.from_numpy(_indices(column, columns[TRAIN], names)) for split, column in columns.items()}


def _classes_in(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Return labels as whole numbers or text; refuse what is neither."""
    kind = values.dtype.kind
    if kind == "O" or kind in "US":
        empty = [row for row, value in enumerate(values) if value is None or not str(value).strip()]
        _refuse_missing(empty, where)
        return values.astype(str)
    if kind == "f":
        # A column of whole numbers with gaps comes as floats, with NaN for the gaps.
        _refuse_missing(np.flatnonzero(np.isnan(values)).tolist(), where)
        if fractions := np.flatnonzero(values != np.round(values)).tolist():
            raise UserError(
                f"Row {fractions[0]} of {where} has the label {values[fractions[0]]:g}, which is a fraction and not a "
                "class. To predict numbers, choose the task regression (--task regression, task='regression'); "
                "otherwise name a column of classes with ,label=NAME."
            )
        return values.astype(np.int64)
    if kind not in "iub":
        raise UserError(f"The labels of {where} are {values.dtype}: name a column of classes with ,label=NAME.")
    return values


def _refuse_missing(rows: Sequence[int], where: str) -> None:
    if rows:
        raise UserError(
            f"Row {rows[0]} of {where} has no label ({len(rows)} such rows): remove such rows, or give them a class."
        )


def _tell_gaps(train: LabelColumn, found: NDArray[Any]) -> None:
    if found.dtype.kind not in "iu" or (found[0] == 0 and found[-1] == len(found) - 1) or found[0] == UNLABELLED:
        return
    notice(
        f"The labels of {train.where} are {len(found)} numbers from {found[0]} to {found[-1]}, and not 0 to "
        f"{len(found) - 1}: each number is a class of that name, in the order of the numbers."
    )


def _indices(column: LabelColumn, train: LabelColumn, names: tuple[str, ...]) -> NDArray[np.int64]:
    values, where = column.values, column.where
    if values.dtype.kind == "i" and (unlabelled := np.flatnonzero(values == UNLABELLED)).size:
        raise UserError(
            f"Row {unlabelled[0]} of {where} has the label -1, which stands for no label ({unlabelled.size} such "
            "rows): remove such rows. If -1 is a class, number the classes from 0."
        )
    if train.names is not None and values.dtype.kind in "iub":
        # Numbers that stand for names: their own, or for want of these those of training.
        own = column.names or train.names
        numbers = values.astype(np.int64)
        if (wrong := np.flatnonzero((numbers < 0) | (numbers >= len(own)))).size:
            raise UserError(
                f"Row {wrong[0]} of {where} has the label {values[wrong[0]]}, but labels go from 0 to {len(own) - 1}: "
                "remove such rows, or correct them."
            )
        if own == names:
            return numbers
        tell_order(own, names, where=where)
    else:
        own, numbers = _numbered(column)
    indices: NDArray[np.int64] = positions(own, names)[numbers]
    if (strange := np.flatnonzero(indices == UNLABELLED)).size:
        raise UserError(
            f"Row {strange[0]} of {where} has the class {own[numbers[strange[0]]]!r}, which training does not have: "
            f"remove such rows, or train on that class too. Training has {listed(names)}."
        )
    return indices


def _numbered(column: LabelColumn) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names that occur in a column, and for each sample which of them."""
    if column.names is not None:
        return column.names, column.values.astype(np.int64)
    found, numbers = np.unique(column.values, return_inverse=True)
    # Named as in `class_names`.
    if found.dtype.kind == "b":
        found = found.astype(np.int64)
    return tuple(map(str, found.tolist())), numbers.astype(np.int64)
