"""The parts of a comparison, from what users name: networks, settings, seeds, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from tutelage.core.teachers.class_map import TeacherClasses
from tutelage.core.teachers.combining import MEAN, Together
from tutelage.core.teachers.naming import TeacherSource, named_teacher
from tutelage.data.dataset import Data
from tutelage.errors import UserError, unknown
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice
from tutelage.experiments.experiment import Experiment
from tutelage.models.blueprint import Source, blueprint, several
from tutelage.models.tokenizers import encoded_for
from tutelage.training.settings import Training


def experiment_of(
    student: Source | Sequence[Source],
    teacher: TeacherSource,
    data: Data,
    *,
    teacher_classes: TeacherClasses | None = None,
    together: Together = MEAN,
    queries: int | None = None,
    trust_code: bool = False,
) -> Experiment:
    """Return the experiment that the methods share.

    Args:
        student: The networks to train: names, networks, or several of them.
        teacher: The teacher: a name, a network, several as an ensemble, a recording or a `Teacher`. None without one.
        data: The data.
        teacher_classes: Which of the teacher's classes stand for the data's, if it has others.
        together: How several teachers answer together.
        queries: How many samples a teacher whose answers have a price may be asked about; None for no limit.
        trust_code: Whether saved networks and recordings may run the code that they name.

    Raises:
        UserError: If no student is named, a name or its classes do not fit, or a recording is not of these data.
    """
    data = encoded_for(data, several(student), () if teacher is None else several(teacher))  # type: ignore[arg-type]
    named = named_teacher(
        teacher, data.as_taught(), classes=teacher_classes, together=together, queries=queries, trust_code=trust_code
    )
    # Each class map is noted once, though members of an ensemble may share it.
    notes = tuple(dict.fromkeys(map(str, named.classes)))
    if named.answers is not None:
        data, notes = named.answers.settle(data, trust_code=trust_code)
    students = tuple(blueprint(source, data, trust_code=trust_code) for source in several(student))
    if not students:
        raise UserError("No student was given: pass a network, or several for methods that train several.")
    return Experiment(
        data=data,
        students=students,
        teachers=named.networks,
        teacher_classes=named.classes,
        together=named.together,
        answers=named.answers,
        notes=notes,
    )


def split_settings(settings: dict[str, Any], methods: Sequence[str]) -> tuple[Training, dict[str, Any]]:
    """Split settings into those of the training and the rest, which must be options of a method.

    Raises:
        UserError: If a setting belongs to neither.
    """
    of_training = {field.name for field in fields(Training)}
    options = {name: value for name, value in settings.items() if name not in of_training}
    # Each name is checked, because a misspelt setting would otherwise leave the default in force.
    of_methods = {name for method in methods for name in catalogue.get(method).hyper_parameters}
    for name in options:
        if name not in of_methods:
            raise unknown("setting", name, of_training | of_methods)
    return replace(Training(), **{name: settings[name] for name in settings if name in of_training}), options


def seeds_of(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds: a list as it is, or for a number, that many seeds from 0."""
    found = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not found:
        raise UserError("A comparison needs at least one seed, and three to say anything about spread.")
    return found


def baseline_of(choices: Sequence[Choice], wanted: str | None) -> str:
    """Return the label of the row that the others are compared with.

    Raises:
        UserError: If there are no rows, or the wanted one is not among them.
    """
    if not choices:
        raise UserError("Nothing to compare: name at least one method (see `tutelage methods`).")
    labels = [choice.label for choice in choices]
    if wanted is not None and wanted not in labels:
        raise unknown("row", wanted, labels)
    # Plain training of the student is what a method must beat. With options it is a row like any other.
    plain = [choice for choice in choices if choice.entry.plain and choice.entry.trains == "student"]
    return wanted or next((choice.label for choice in plain if not choice.options), labels[0])
