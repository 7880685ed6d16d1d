"""Stand-ins for teachers whose answers have a price, for checks that train nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tutelage.core.teachers.teacher import Teacher
from tutelage.data.batch import Batch, Output


def rehearsed(teacher: Teacher, batch: Batch | None, classes: int) -> Teacher:
    """Return the teacher for a check that trains nothing: itself, or a stand-in if its answers have a price.

    Args:
        teacher: The teacher.
        batch: Samples that each teacher with a price is asked about, once. With None nothing is asked, and the answers
            are zeros.
        classes: The number of classes.
    """
    nothing = torch.zeros(1, classes)
    twins = {id(one): StandIn(one, nothing if batch is None else one(batch).logits) for one in teacher.priced()}
    # The memo makes deepcopy put in the stand-ins without copying the originals, whose queries may be uncopyable.
    return copy.deepcopy(teacher, dict(twins)) if twins else teacher


class StandIn(Teacher):
    """Stands for a teacher whose answers have a price, in checks that train nothing.

    Args:
        teacher: The teacher.
        logits: The teacher's answers to some samples, `[sample, ...]`. They are repeated for all others.
    """

    def __init__(self, teacher: Teacher, logits: Tensor) -> None:
        super().__init__()
        # In a tuple, so that the teacher does not become a submodule.
        self._of, self._logits = (teacher,), logits

    def inner_network(self) -> nn.Module:
        """Return the network of the teacher, or raise the teacher's own error."""
        return self._of[0].inner_network()

    def forward(self, batch: Batch) -> Output:
        """Return one of the stored answers for each sample of the batch."""
        inputs = batch.inputs
        first = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
        rows = torch.arange(len(batch)) % len(self._logits)
        return Output(logits=self._logits[rows.to(self._logits.device)].to(first.device))
