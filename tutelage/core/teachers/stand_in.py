"""What stands for a teacher whose answers have a price, where nothing is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tutelage.core.teachers.teacher import Teacher
from tutelage.data.batch import Batch, Output


def rehearsed(teacher: Teacher, batch: Batch | None, classes: int) -> Teacher:
    """Return what answers in a teacher's place where nothing is trained: itself, unless its answers have a price.

    Args:
        teacher: The teacher.
        batch: What each teacher within it whose answers have a price is asked about, once. None asks nothing, and the
            answers are zeros.
        classes: The number of classes.
    """
    nothing = torch.zeros(1, classes)
    twins = {id(one): StandIn(one, nothing if batch is None else one(batch).logits) for one in teacher.priced()}
    # Whatever is in the memo is not copied, but replaced: a query may hold what cannot be copied.
    return copy.deepcopy(teacher, dict(twins)) if twins else teacher


class StandIn(Teacher):
    """Stands for a teacher whose answers have a price, where nothing is trained.

    Args:
        teacher: The teacher.
        logits: What it said about some samples, `[sample, ...]`: it says the same of all others.
    """

    def __init__(self, teacher: Teacher, logits: Tensor) -> None:
        super().__init__()
        # In a tuple, so that it is no part of this one.
        self._of, self._logits = (teacher,), logits

    def inner_network(self) -> nn.Module:
        """Return the network of the teacher, or refuse as it does."""
        return self._of[0].inner_network()

    def forward(self, batch: Batch) -> Output:
        """Return as many of the answers as the batch has samples."""
        inputs = batch.inputs
        first = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
        rows = torch.arange(len(batch)) % len(self._logits)
        return Output(logits=self._logits[rows.to(self._logits.device)].to(first.device))
