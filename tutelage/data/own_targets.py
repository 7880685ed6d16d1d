"""The targets of a user's own dataset, from its attributes or from its samples."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from tutelage.data.fields import input_and_target
from tutelage.data.samples import Samples
from tutelage.data.task import Task
from tutelage.errors import UserError

# Reading every sample for its target alone is bearable up to here.
_MOST_SCANNED = 20_000
# Samples whose own targets are compared with what an attribute says.
_COMPARED = 32


def find_targets(dataset: Any, task: Task) -> Tensor:
    """Return the targets of all samples of a map-style dataset: from its attributes, or by reading it.

    Args:
        dataset: The dataset; its samples have targets.
        task: The task, which reads the targets.

    Raises:
        UserError: If they do not fit the task, or reading them would take too long.
    """
    where = f"the {type(dataset).__name__}"
    if isinstance(dataset, Samples) and dataset.targets is not None:
        return dataset.targets
    if isinstance(dataset, Subset):
        return find_targets(dataset.dataset, task)[torch.as_tensor(list(dataset.indices))]
    if isinstance(dataset, TensorDataset):
        return task.read_targets(dataset.tensors[1], where=where)
    others = ""
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        # Something else may bear that name, such as a switch.
        if isinstance(values, Sized) and len(values) == len(dataset):
            targets = task.read_targets(values, where=where)
            if _are_those_of_samples(targets, dataset, task, where):
                return targets
            others = (
                f" Its attribute `{name}` holds other values: perhaps target_transform is applied only to its samples."
            )
    if len(dataset) > _MOST_SCANNED:
        raise UserError(
            f"The targets of a {type(dataset).__name__} would have to be read from {len(dataset)} samples: give it an "
            f"attribute `targets` with the target of each sample, such as the class indices.{others}"
        )
    read = [input_and_target(dataset[index])[1] for index in range(len(dataset))]
    if any(target is None for target in read):
        raise UserError(f"Some samples of {where} have a target and some do not: give -1 to those without a label.")
    return task.read_targets(read, where=where)


def _are_those_of_samples(targets: Tensor, dataset: Any, task: Task, where: str) -> bool:
    """Return whether an attribute holds the targets of the samples: of a few samples, and of one for each value."""
    even = torch.linspace(0, len(dataset) - 1, min(_COMPARED, len(dataset))).long().tolist()
    first: dict[Any, int] = {}
    if targets.ndim == 1:
        for index, value in enumerate(targets.tolist()):
            if len(first) == _COMPARED:
                break
            first.setdefault(value, index)
    chosen = sorted({*even, *first.values()})
    read = [input_and_target(dataset[index])[1] for index in chosen]
    if any(target is None for target in read):
        return True  # A dataset that gives no targets hides them.
    return torch.equal(task.read_targets(read, where=where), targets[chosen])
