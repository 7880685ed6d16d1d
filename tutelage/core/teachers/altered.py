"""Teachers that alter what another one says."""

from __future__ import annotations

from dataclasses import replace

import torch

from tutelage.core.teachers.teacher import Teacher
from tutelage.data.batch import Batch, Output


class NoisyTeacher(Teacher):
    r"""A teacher whose logits are disturbed: $z' = z \odot (1 + \sigma \xi)$, $\xi \sim N(0, 1)$.

    Args:
        teacher: The teacher to disturb.
        std: Standard deviation $\sigma$ of the relative noise.
    """

    def __init__(self, teacher: Teacher, *, std: float) -> None:
        super().__init__()
        self.teacher, self.std = teacher, std

    def forward(self, batch: Batch) -> Output:
        """Return the teacher's output with disturbed logits."""
        output = self.teacher(batch)
        return replace(output, logits=output.logits * (1 + self.std * torch.randn_like(output.logits)))


class ShuffledTeacher(Teacher):
    """A control: each sample gets the answer that the teacher gave to another sample of the batch.

    Whatever a student still gains from it has nothing to do with what the teacher knows about the sample.

    Args:
        teacher: The teacher whose answers are shuffled.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, batch: Batch) -> Output:
        """Return the teacher's logits in a random order."""
        output = self.teacher(batch)
        # A random cycle: unlike a random permutation, it leaves no sample its own answer.
        order = torch.randperm(len(output.logits), device=output.logits.device)
        return Output(logits=torch.empty_like(output.logits).index_copy_(0, order, output.logits[order.roll(1)]))
