"""One method, one seed: the builder hands a method what it asks for by name, as a test gets its fixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from tutelage.checkpoint import seed_everything
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.method import Method
from tutelage.methods.supervised import Supervised
from tutelage.networks import Blueprint, check_classes, check_takes
from tutelage.options import Choice
from tutelage.run import Run
from tutelage.teachers import FrozenTeacher, Teacher


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What all methods of a comparison share.

    Attributes:
        data: The data.
        students: The networks to train; most methods train the first.
        teacher: The teacher's network, trained or as an architecture.
        answers: The trained teacher, once it is there.
    """

    data: Data
    students: tuple[Blueprint, ...]
    teacher: Blueprint | None = None
    answers: nn.Module | Teacher | None = None

    def execute(self, choice: Choice, run: Run) -> nn.Module:
        """Run a method or a recipe, and return the trained network.

        Raises:
            UserError: If it needs a teacher and there is none.
        """
        fixtures = self._fixtures(run)
        wanted = {name: fixtures[name]() for name in sorted(choice.entry.fixtures)}
        # Adapters draw their first weights, whatever ran before in this process.
        seed_everything(run.seed_of("adapters"))
        built: Method | nn.Module = choice.entry.build(**wanted, **choice.options)
        return run.fit("distill", built, self.data) if isinstance(built, Method) else built

    def train_teacher(self, run: Run) -> nn.Module:
        """Return the teacher's network: as it comes, or trained on the labels first.

        Raises:
            UserError: If there is none, or its classes are not the data's.
        """
        if self.teacher is None:
            raise no_teacher()
        network = self.teacher.build(run.seed, "teacher")
        check_classes(network, self.data, who="teacher")
        if self.teacher.trained:
            return network.eval()
        run.reporter.note(f"The teacher {self.teacher.name} comes untrained: training it first.")
        return run.fit("teacher", Supervised(network), self.data)

    def _fixtures(self, run: Run) -> Mapping[str, Callable[[], Any]]:
        def make_student(part: str = "student") -> nn.Module:
            student = self.students[0].build(run.seed, part)
            check_takes(student, self.data, who="student")
            return student

        def make_teacher(part: str = "teacher") -> nn.Module:
            if self.teacher is None:
                raise no_teacher()
            return self.teacher.build_untrained(run.seed, part)

        def students() -> list[nn.Module]:
            return [student.build(run.seed, f"student-{n}") for n, student in enumerate(self.students)]

        return {
            "run": lambda: run,
            "data": lambda: self.data,
            "student": make_student,
            "students": students,
            "make_student": lambda: make_student,
            "teacher": self._teacher,
            "make_teacher": lambda: make_teacher,
            "example": lambda: self.data.example(2),
            "num_classes": lambda: self.data.num_classes,
            "batch_size": lambda: run.training.batch_size,
            "reporter": lambda: run.reporter,
        }

    def _teacher(self) -> Teacher:
        if self.answers is None:
            raise no_teacher()
        teacher = self.answers if isinstance(self.answers, Teacher) else FrozenTeacher(self.answers)
        return teacher.cpu()


def no_teacher() -> UserError:
    """Return the error for a method that needs a teacher."""
    return UserError(
        "This method needs a teacher: pass --teacher (a name such as resnet56 is trained first; runs/teacher or "
        "timm:resnet34 comes trained), or teacher= in Python. Methods without one: `tutelage methods`."
    )
