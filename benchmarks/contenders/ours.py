"""Tutelage as contender: what `tutelage distill kd` does, with its automatic settings, through the real driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from torch import nn

from contenders.pace import Pace
from contenders.plain import autocast
from contenders.setting import Setting
from tutelage.core.method import Method
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, Teacher
from tutelage.data.dataset import Data
from tutelage.errors import UserError
from tutelage.experiments.choice import Choice, parse_choice
from tutelage.experiments.doctor.cost import measure_memory
from tutelage.experiments.experiment import Experiment
from tutelage.models.blueprint import blueprint
from tutelage.recording.reading import Recording
from tutelage.recording.teacher import RecordedTeacher
from tutelage.system.console import Silent
from tutelage.system.devices import device_type
from tutelage.training.driver import Driver
from tutelage.training.dry_run import DryRun
from tutelage.training.settings import Training
from tutelage.training.state import Stop


class Reports(Silent):
    """Hands the driver's reports on.

    Args:
        take: Takes how many steps were done since the last report.
        notes: Takes what the driver says that it decided.
    """

    def __init__(self, take: Callable[[int], None], notes: list[str]) -> None:
        self.take, self.notes = take, notes

    def note(self, text: str, *, once: bool = False) -> None:
        """Keep what was decided."""
        self.notes.append(str(text))

    def advance(self, steps: int) -> None:
        """Hand a report on."""
        self.take(steps)


class Trains(DryRun):
    """A run that trains the methods that it meets by the driver, and keeps nothing on disk.

    Args:
        training: The settings.
        reports: Gets the driver's reports.
        seed: Of the data's order and views.
        decided: Gets what the driver decided.
    """

    def __init__(
        self, training: Training, reports: Callable[[Method, int], None], *, seed: int = 0, decided: list[str]
    ) -> None:
        super().__init__(training)
        self.reports, self.order, self.decided = reports, seed, decided

    def meet(self, name: str, method: Method, data: Data, *, epochs: int | None, stop: Stop | None) -> None:
        """Train a method."""
        reporter = Reports(lambda steps: self.reports(method, steps), self.decided)
        Driver(self.training, seed=self.order, reporter=reporter).fit(method, data, epochs=epochs, stop=stop)


def training_of(setting: Setting, *, every: int) -> Training:
    """Return settings: those of everybody, and Tutelage's automatic ones for the rest."""
    return Training(
        epochs=setting.epochs,
        batch_size=setting.batch,
        lr=setting.lr,
        momentum=setting.momentum,
        weight_decay=setting.weight_decay,
        schedule="cosine",
        warmup_epochs=0.0,
        keep="last",
        workers=setting.workers,
        compile=setting.compile,
        precision=setting.precision,
        channels_last=setting.channels_last,
        fused=setting.fused,
        keep_memory=setting.keep_memory,
        log_every=every,
    )


def kd_of(setting: Setting) -> Choice:
    """Return knowledge distillation with everybody's numbers."""
    return parse_choice(f"kd:temperature={setting.temperature},alpha={setting.alpha}")


def distil(
    setting: Setting, data: Data, teacher: Teacher, pace: Pace, on_report: Callable[[Method, int], None]
) -> nn.Module:
    """Distil as the command line does, and return the student."""
    _, student = setting.networks(data)
    students = (blueprint(student, data),)
    experiment = Experiment(data=data, students=students, answers=teacher)
    notes = pace.facts.setdefault("notes", [])
    run = Trains(training_of(setting, every=pace.every), on_report, seed=setting.seed, decided=notes)
    return experiment.execute(kd_of(setting), run).to(setting.device)


def live(setting: Setting, pace: Pace) -> nn.Module:
    """Train with the teacher at hand."""
    data = setting.load()
    teacher = FrozenTeacher(setting.networks(data)[0])
    return distil(setting, data, teacher, pace, lambda _, steps: pace.step(count=steps))


def recorded(setting: Setting, pace: Pace) -> nn.Module:
    """Train with what the teacher said before.

    Raises:
        UserError: If there is no recording.
    """
    if setting.recording is None:
        raise UserError("Make a recording of the teacher first, and pass it as --recording.")
    recording = Recording(setting.recording)
    data = replace(setting.load(), recording=recording)
    return distil(setting, data, RecordedTeacher(recording), pace, lambda _, steps: pace.step(count=steps))


def teacher_alone(setting: Setting, pace: Pace) -> nn.Module:
    """Ask the teacher of a running training the same batch again and again, as a step of that training would."""
    data = setting.load()
    batch = next(iter(setting.lent_batches(data).epoch(0)))

    def ask(method: Method, _: int) -> None:
        for _ in range(setting.total_steps(data)):
            with autocast(setting):
                method.get_submodule("teacher")(batch)
            pace.step()

    return distil(setting, data, FrozenTeacher(setting.networks(data)[0]), pace, ask)


class _Names(DryRun):
    """Only learns what the stages are called."""

    def __init__(self, training: Training) -> None:
        super().__init__(training)
        self.names: list[str] = []

    def meet(self, name: str, method: Method, data: Data, *, epochs: int | None, stop: Stop | None) -> None:
        """Remember a stage."""
        self.names.append(name)


class _Last(Trains):
    """Trains the last stage alone; those before it are left untrained, which costs a step no more and no less.

    Args:
        stages: How many there are.
        facts: Gets what the stage needs of memory.
        arguments: As of `Trains`.
    """

    def __init__(self, stages: int, facts: dict[str, Any], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.left, self.facts = stages, facts

    def meet(self, name: str, method: Method, data: Data, *, epochs: int | None, stop: Stop | None) -> None:
        """Train a method, if no other comes after it."""
        self.left -= 1
        if self.left:
            return
        batch_size, device = self.training.batch_size, device_type(self.training.device)
        loader = method.transfer_set(data.train).loader(data, batch_size=batch_size, workers=0, device=device)
        memory = measure_memory(method.to(device).train(), next(iter(loader.epoch(0))), self.training)
        self.facts["needs"] = asdict(memory) | {"terms": sum(memory.terms.values()), "total": memory.total}
        super().meet(name, method, data, epochs=epochs, stop=stop)


def method_by_name(text: str, setting: Setting, pace: Pace) -> nn.Module:
    """Train the last stage of any method, and tell which stages it has and what memory it needs.

    Args:
        text: The method, as it is chosen on the command line.
        setting: What is shared; methods that need several teachers get the same one twice.
        pace: Told of each step.
    """
    choice, data = parse_choice(text), setting.load()
    teacher: Teacher = FrozenTeacher(setting.networks(data)[0])
    if choice.entry.family == "ensembles":
        teacher = EnsembleTeacher([teacher, FrozenTeacher(setting.networks(data)[0])])
    experiment = Experiment(
        data=data,
        students=(blueprint(setting.student, data),),
        teachers=(blueprint(setting.teacher, data),),
        answers=teacher,
    )
    training = training_of(setting, every=pace.every)
    names = _Names(training)
    experiment.execute(choice, names)
    pace.facts |= {"stages": names.names, "notes": [], "teachers": 2 if isinstance(teacher, EnsembleTeacher) else 1}
    arguments: dict[str, Any] = {"training": training, "seed": setting.seed, "decided": pace.facts["notes"]}
    run = _Last(len(names.names), pace.facts, reports=lambda _, steps: pace.step(count=steps), **arguments)
    return experiment.execute(choice, run)
