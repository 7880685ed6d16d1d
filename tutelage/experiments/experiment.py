"""One method with one seed. The builder passes a method the arguments that it names, as pytest passes fixtures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from tutelage.core.method import Method
from tutelage.core.teachers.class_map import ClassMap
from tutelage.core.teachers.combining import MEAN, Together
from tutelage.core.teachers.naming import teacher_of
from tutelage.core.teachers.own_tokens import OwnTokensTeacher
from tutelage.core.teachers.teacher import Teacher
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.experiments.choice import Choice, parse_choice
from tutelage.experiments.serving import check_serves, left_out
from tutelage.methods.supervised import Supervised
from tutelage.models.blueprint import Blueprint, check_classes, check_runs, check_takes, part_of
from tutelage.models.intake import check_learns, check_trains
from tutelage.system.chance import seed_everything
from tutelage.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The data and networks that all methods of a comparison share.

    Attributes:
        data: The data.
        students: The networks to train; most methods train the first.
        teachers: The teachers' networks, each trained or as an architecture. Several answer as an ensemble.
        teacher_classes: For each teacher, which of its classes stand for the data's; empty if it has the data's.
        together: How several teachers answer together.
        answers: The trained teacher, or one that needs no training; None until it is trained.
        notes: Notes for the user before anything starts.
    """

    data: Data
    students: tuple[Blueprint, ...]
    teachers: tuple[Blueprint, ...] = ()
    teacher_classes: tuple[ClassMap, ...] = ()
    together: Together = MEAN
    answers: Teacher | None = None
    notes: tuple[str, ...] = ()

    @property
    def teacher(self) -> Blueprint | None:
        """The first teacher's network; None if there is none."""
        return next(iter(self.teachers), None)

    def execute(self, choice: Choice, run: Run, **replaced: Any) -> nn.Module:
        """Run a method or a recipe, and return the trained network.

        Args:
            choice: The method and its hyper-parameters.
            run: The run that holds the stages of its trainings.
            **replaced: Fixtures that replace the experiment's own.

        Raises:
            UserError: If the method needs something that the data do not offer, needs a teacher and there is none, or
                uses no teacher although one is among the replaced fixtures.
        """
        if "teacher" in replaced and "teacher" not in choice.fixtures:
            raise UserError(
                f"{choice.label} does not learn from a trained teacher, so changing the teacher has no effect. Choose "
                "a method such as kd."
            )
        data: Data = replaced.get("data", self.data)
        check_serves(choice, data.offers, data=f"{data.name} ({data.task.title})")
        if (told := left_out(choice, data.offers)) is not None:
            run.reporter.note(told, once=True)
        # What a wrapper replaces wins over the experiment's own.
        fixtures = self._fixtures(run, replaced) | {name: partial(_same, value) for name, value in replaced.items()}
        fixtures["data"] = lambda: self._data(choice, replaced)
        # Only what the builder names is made, in one order, so that random draws are the same each time.
        wanted = {name: fixtures[name]() for name in sorted(choice.entry.fixtures)}
        # Seeded again, so that the initial weights of adapters do not depend on what ran before in this process.
        seed_everything(run.seed_of("adapters"))
        built: Method | nn.Module = choice.entry.build(**wanted, **choice.options)
        # A method is trained here; a recipe has trained its stages itself.
        return run.fit("distill", built, fixtures["data"]()) if isinstance(built, Method) else built

    def build_student(
        self, seed: int, part: str, *, position: int = 0, check: Callable[..., object] = check_takes
    ) -> nn.Module:
        """Return a student, which takes the data and can be trained.

        Args:
            seed: The seed of its initial weights, together with its part.
            part: The student's name, in its seed and in messages.
            position: The number of the student, from 0.
            check: Checks that the student fits the data.

        Raises:
            UserError: If the student does not fit the data, or cannot be trained: it was traced, frozen or exported, or
                fails in training mode.
        """
        student = self.students[position].build(seed, part)
        check_learns(student, who=part)
        check(student, self.data, who=part)
        check_trains(student, self.data, who=part)
        return student

    def train_teacher(self, run: Run) -> Teacher:
        """Return the teacher. Untrained networks are trained on the labels first. Several answer as an ensemble.

        Raises:
            UserError: If there is none, it does not fit the data, or it is untrained and has other classes than they.
        """
        if not self.teachers:
            raise no_teacher()
        networks = [self._trained(plan, part_of("teacher", n), run) for n, plan in enumerate(self.teachers)]
        teacher = teacher_of(networks, self.teacher_classes, self.together)
        if not self.data.is_taught_apart:
            return teacher
        return OwnTokensTeacher(teacher).with_identity(teacher.identity())

    def _trained(self, plan: Blueprint, part: str, run: Run) -> nn.Module:
        network, data = plan.build(run.seed, part), self.data.as_taught()
        if plan.trained:
            # Its classes are not checked here: methods that read only its features do not need them.
            check_runs(network, data, who="teacher")
            return network.eval()
        check_learns(network, who="teacher")
        check_classes(network, data, who="teacher")
        check_trains(network, data, who="teacher")
        run.reporter.note(f"The {part} {plan.name} comes untrained: training it first.")
        # Without foreign data: they do not change the training, but would change its fingerprint and so repeat it.
        return run.fit(part, Supervised(network), replace(data, foreign=None))

    def _data(self, choice: Choice, replaced: dict[str, Any]) -> Data:
        """Return the data, with recorded views if the method learns from the recorded teacher."""
        data: Data = replaced.get("data", self.data)
        teacher = replaced.get("teacher", self.answers)
        recording = teacher.replays() if teacher is not None and "teacher" in choice.fixtures else None
        return data if data.recording is recording else replace(data, recording=recording)

    def _fixtures(self, run: Run, replaced: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        def make_student(part: str = "student") -> nn.Module:
            return self.build_student(run.seed, part)

        def make_teacher(part: str = "teacher") -> nn.Module:
            if self.data.is_taught_apart:
                raise UserError(
                    "This method trains the teacher's network itself, on the tokens of the student, and the teacher "
                    "reads others: choose networks of one tokenizer."
                )
            if self.teacher is None:
                raise no_teacher() if self.answers is None else _no_architecture()
            return self.teacher.build_untrained(run.seed, part)

        def students() -> list[nn.Module]:
            parts = [part_of("student", position) for position in range(len(self.students))]
            # Answers of several students are compared, so their classes must agree. A method may give one student
            # alone another classifier.
            check = check_classes if len(parts) > 1 else check_takes
            return [self.build_student(run.seed, part, position=n, check=check) for n, part in enumerate(parts)]

        def distill(method: str, **others: Any) -> nn.Module:
            # The inner method keeps what outer wrappers replaced, and adds its own.
            return self.execute(parse_choice(method), **({"run": run} | replaced | others))

        return {
            "run": lambda: run,
            "student": make_student,
            "students": students,
            "make_student": lambda: make_student,
            "teacher": self._teacher,
            "make_teacher": lambda: make_teacher,
            "example": lambda: self.data.example(2),
            "num_classes": lambda: self.data.num_classes,
            "batch_size": lambda: run.training.batch_size,
            "epochs": lambda: run.training.epochs,
            "reporter": lambda: run.reporter,
            "distill": lambda: distill,
        }

    def _teacher(self) -> Teacher:
        if self.answers is None:
            raise no_teacher()
        # All methods share one teacher, so that it is compiled once. Its device and mode are reset here for each.
        return self.answers.cpu().requires_grad_(False).eval()


def no_teacher() -> UserError:
    """Return the error for a method that needs a teacher."""
    return UserError(
        "This method needs a teacher: pass --teacher (a name such as resnet56 is trained first; runs/teacher or "
        "timm:resnet34 comes trained), or teacher= in Python. Methods without one: `tutelage methods`."
    )


def _no_architecture() -> UserError:
    return UserError(
        "This method trains the teacher's network itself, and this teacher has only answers: pass the network's "
        "name, such as --teacher resnet56."
    )


def _same(value: Any) -> Any:
    return value
