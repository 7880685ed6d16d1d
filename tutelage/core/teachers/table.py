"""A teacher whose answers are known beforehand: one for each training sample, whatever its view."""

from __future__ import annotations

from torch import Tensor

from tutelage.core.teachers.teacher import LIVE, Teacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError


class TableTeacher(Teacher):
    """Answers by the positions of the samples, with one answer for every view of a sample, as labels do.

    Args:
        logits: The answers, `[sample, class]`, in the order of the training samples.
    """

    logits: Tensor

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        # A buffer, so that it moves with the method, and tells two tables apart.
        self.register_buffer("logits", logits)

    def must_be_live(self, why: str, remedy: str = LIVE) -> None:
        """Refuse.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{why}, and these answers were given beforehand: {remedy}.")

    def forward(self, batch: Batch) -> Output:
        """Return the answers to the samples.

        Raises:
            UserError: If the batch does not say which samples it holds.
        """
        if batch.indices is None:
            raise UserError(
                "The teacher is asked about inputs that were made in training, and its answers were given beforehand, "
                "one for each training sample. Pass the teacher itself."
            )
        return Output(logits=self.logits[batch.indices.to(self.logits.device)])
