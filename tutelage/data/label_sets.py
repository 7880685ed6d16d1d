"""Label columns of tables that hold sets of classes or numbers, rather than one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.split_names import TRAIN
from tutelage.data.task import Task
from tutelage.errors import UserError
from tutelage.losses import UNLABELLED

if TYPE_CHECKING:
    import datasets
    from torch import Tensor

# Rows that are looked at to tell text from numbers. A column has one type, but some of its lists may be empty.
_LOOKED_AT = 100


def read_other_targets(
    splits: Mapping[str, datasets.Dataset], label: str, task: Task, *, where: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return a name for each number that a network returns for a sample, and the targets of each split.

    Args:
        splits: The tables by split.
        label: The column of the targets.
        task: The task, which reads the targets.
        where: Each split's name in messages.

    Raises:
        UserError: If the targets do not fit the task, or a split has a class that training does not have.
    """
    columns = {split: rows.select_columns([label]).with_format("numpy")[:][label] for split, rows in splits.items()}
    # Nothing can be measured on a split whose targets are hidden, so it is left out.
    columns = {split: values for split, values in columns.items() if split == TRAIN or not _is_hidden(values)}
    named = {split: _names_of(rows.features[label]) for split, rows in splits.items()}
    looked_at = [item for rows in columns.values() for row in rows[:_LOOKED_AT] for item in _items(row)]
    is_text = any(isinstance(item, str) for item in looked_at)
    if named[TRAIN] is None and not is_text:
        targets = {split: task.read_targets(list(rows), where=where[split]) for split, rows in columns.items()}
        count = task.count_outputs(targets[TRAIN])
        return tuple(label if count == 1 else f"{label} {number}" for number in range(count)), targets
    # Without names in the table, the classes are those of the training split in alphabetical order.
    names = named[TRAIN] or tuple(sorted({str(item) for row in columns[TRAIN] for item in _items(row)}))
    sets = {split: _as_rows(rows, names, named[split] or names, where[split]) for split, rows in columns.items()}
    return names, {split: task.read_targets(rows, where=where[split]) for split, rows in sets.items()}


def _as_rows(column: Sequence[Any], names: tuple[str, ...], own: tuple[str, ...], where: str) -> NDArray[np.float32]:
    """Return lists of classes as rows of 0 and 1. Numbers in the lists refer to the split's own class names."""
    place = {name: number for number, name in enumerate(names)}
    rows = np.zeros((len(column), len(names)), dtype=np.float32)
    for number, row in enumerate(column):
        for item in _items(row):
            name = item if isinstance(item, str) else own[item] if 0 <= item < len(own) else item
            if name not in place:
                raise UserError(f"Row {number} of {where} has the class {name!r}, which training does not have.")
            rows[number, place[name]] = 1
    return rows


def _names_of(feature: Any) -> tuple[str, ...] | None:
    """Return the names of the classes in a column of lists; None if the table does not give them."""
    from datasets import ClassLabel

    inner = getattr(feature, "feature", None)
    return tuple(inner.names) if isinstance(inner, ClassLabel) else None


def _is_hidden(column: Any) -> bool:
    """Return whether no sample has a target: benchmarks that keep test labels secret publish -1 instead."""
    values = np.asarray(column) if isinstance(column, np.ndarray) else np.empty(0)
    return values.dtype.kind in "if" and bool((values == UNLABELLED).all())


def _items(row: Any) -> list[Any]:
    return list(row) if isinstance(row, list | tuple | np.ndarray) else []
