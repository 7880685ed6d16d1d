"""Teachers that change the answers of another teacher."""

from __future__ import annotations

from dataclasses import replace

import torch

from tutelage.core.teachers.teacher import Teacher
from tutelage.data.batch import Batch, Output


class NoisyTeacher(Teacher):
    r"""A teacher with noise on its logits: $z' = z \odot (1 + \sigma \xi)$, $\xi \sim N(0, 1)$.

    Args:
        teacher: The teacher whose logits get the noise.
        std: Standard deviation $\sigma$ of the relative noise.
    """

    def __init__(self, teacher: Teacher, *, std: float) -> None:
        super().__init__()
        self.teacher, self.std = teacher, std

    def forward(self, batch: Batch) -> Output:
        """Return the teacher's output with noisy logits."""
        output = self.teacher(batch)
        return replace(output, logits=output.logits * (1 + self.std * torch.randn_like(output.logits)))


class ShuffledTeacher(Teacher):
    """A control: each sample gets the answer that the teacher gave to another sample of the batch.

    A student that still gains from it gains something other than the teacher's knowledge of each sample.

    Args:
        teacher: The teacher whose answers are shuffled.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, batch: Batch) -> Output:
        """Return the teacher's logits in a random order."""
        output = self.teacher(batch)
        # A random cycle: unlike a random permutation, it never gives a sample its own answer.
        order = torch.randperm(len(output.logits), device=output.logits.device)
        return Output(logits=torch.empty_like(output.logits).index_copy_(0, order, output.logits[order.roll(1)]))
