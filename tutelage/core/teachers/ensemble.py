"""Several teachers as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tutelage.core.teachers.teacher import Teacher, teachers_in
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.losses import wide
from tutelage.models.ensemble import Ensemble


class EnsembleTeacher(Teacher):
    r"""Several teachers as one: `logits` are the task's mean of all answers, `members` each teacher's own logits.

    For scores of classes the mean is the log of the mean probability, $\log \frac{1}{M} \sum_m \mathrm{softmax}(z_m)$.

    Args:
        teachers: The members, at least one.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        super().__init__()
        if not teachers:
            raise UserError("An ensemble needs at least one teacher.")
        self.teachers = nn.ModuleList(teachers)

    def forward(self, batch: Batch) -> Output:
        """Return the mean answer, `[batch, class, ...]`, and the members' answers, `[member, batch, class, ...]`."""
        # Widened before they are averaged, which in half precision would round the members' small differences away.
        answers = [wide(teacher(batch).logits) for teacher in self.teachers]
        shapes = [tuple(answer.shape) for answer in answers]
        if len(set(shapes)) > 1:
            raise UserError(f"The teachers of an ensemble must agree on the classes; they return the shapes {shapes}.")
        members = torch.stack(answers)
        return Output(logits=batch.criterion.mean(members), members=members)

    def as_network(self) -> nn.Module | None:
        """Return the ensemble of the members' networks; None if one of them has none."""
        # All or none: an ensemble of some of the members would be another teacher.
        networks = [teacher.as_network() for teacher in teachers_in(self)]
        known = [network for network in networks if network is not None]
        return Ensemble(known).eval() if len(known) == len(networks) else None
