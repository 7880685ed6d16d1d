"""A teacher that reads the texts as tokens of its own, unlike the student."""

from __future__ import annotations

from typing import Any, NoReturn

from tutelage.core.teachers.teacher import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.data.dataset import Data
from tutelage.errors import NoLayersError, UserError


class OwnTokensTeacher(Teacher):
    """A teacher of another tokenizer than the student's. Each batch holds the same texts in both encodings.

    Its layers cannot be compared with the student's: their places are other tokens.

    Args:
        teacher: The teacher.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def __call__(self, batch: Batch) -> Output:
        """Return the teacher's answer to its own encoding of the batch.

        Raises:
            UserError: If the batch has none, because the method made it of the student's inputs.
        """
        if batch.teacher_inputs is None:
            raise UserError(
                "The teacher reads other tokens than the student, and this method asks it about inputs that it made "
                "itself: choose a method that asks about the data's texts, such as kd, or networks of one tokenizer."
            )
        return super().__call__(batch)

    def forward(self, batch: Batch) -> Output:
        """Return the teacher's logits."""
        return Output(logits=self.teacher(batch).logits)

    def inner_network(self) -> NoReturn:
        """Refuse to be read.

        Raises:
            NoLayersError: Always.
        """
        raise NoLayersError(
            "This method reads inside the teacher, which splits the texts into other tokens than the student does: "
            "their places cannot be compared. Choose a method that reads only logits, such as kd, or networks of one "
            "tokenizer."
        )

    def reading(self, layers: Any, *, example: Any = None, logits: bool = True) -> NoReturn:
        """Refuse to be read."""
        self.inner_network()

    def check_answers(self, data: Data) -> None:
        """Check the teacher on its own encoding of the texts.

        Raises:
            UserError: If its answers do not fit the data.
        """
        self.teacher.check_answers(data.as_taught())
