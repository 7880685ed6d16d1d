"""What a comparison is put together from: networks, settings, seeds, rows, as users name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from tutelage.core.teachers import EnsembleTeacher, Teacher
from tutelage.data.dataset import Data
from tutelage.errors import UserError, unknown
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice
from tutelage.experiments.experiment import Experiment
from tutelage.models.blueprint import Source, blueprint, several
from tutelage.recording.reading import Recording
from tutelage.recording.replay import Replay, is_recording, replay_of
from tutelage.recording.teacher import several_recordings
from tutelage.training.settings import Training

TeacherSource = Source | Sequence[Source] | Teacher | Recording | None


def experiment_of(
    student: Source | Sequence[Source], teacher: TeacherSource, data: Data, *, trust_code: bool = False
) -> Experiment:
    """Return what the methods share, from whatever a user names networks by.

    Args:
        student: The networks to train.
        teacher: Who teaches, if anybody does.
        data: The data.
        trust_code: Whether saved networks and recordings may run the code that they name.

    Raises:
        UserError: If no student is named, a name or its classes do not fit, or a recording is not of these data.
    """
    replay = _replay(teacher, data, trust_code=trust_code)
    data = data if replay is None else replay.data
    students = tuple(blueprint(source, data, trust_code=trust_code) for source in several(student))
    if not students:
        raise UserError("No student is named: pass a network, or several for methods that train several.")
    if replay is not None:
        return Experiment(data=data, students=students, answers=replay.teacher, notes=replay.notes)
    answers = _answering(teacher)
    if answers is not None:
        return Experiment(data=data, students=students, answers=answers)
    assert not isinstance(teacher, Recording)
    named = () if teacher is None else several(teacher)
    teachers = tuple(blueprint(one, data, trained=True, trust_code=trust_code) for one in named)
    return Experiment(data=data, students=students, teachers=teachers)


def _replay(teacher: TeacherSource, data: Data, *, trust_code: bool) -> Replay | None:
    """Return the replay of a recording, where one is named."""
    named = list(teacher) if isinstance(teacher, list | tuple) else [teacher]
    if len(named) > 1 and any(map(is_recording, named)):
        raise several_recordings()
    return replay_of(named[0], data, trust_code=trust_code) if len(named) == 1 else None


def _answering(teacher: TeacherSource) -> Teacher | None:
    """Return what already answers batches; of several such, the ensemble."""
    if not isinstance(teacher, list | tuple):
        return teacher if isinstance(teacher, Teacher) else None
    answering = [one for one in teacher if isinstance(one, Teacher)]
    if answering and len(answering) < len(teacher):
        raise UserError("Some teachers are networks, and some a Teacher: pass all as one or as the other.")
    return EnsembleTeacher(answering) if answering else None


def split_settings(settings: dict[str, Any], methods: Sequence[str]) -> tuple[Training, dict[str, Any]]:
    """Return the training settings among some settings, and the rest, which must belong to a method.

    Raises:
        UserError: If a setting belongs to neither.
    """
    of_training = {field.name for field in fields(Training)}
    options = {name: value for name, value in settings.items() if name not in of_training}
    of_methods = {name for method in methods for name in catalogue.get(method).hyper_parameters}
    for name in options:
        if name not in of_methods:
            raise unknown("setting", name, of_training | of_methods)
    return replace(Training(), **{name: settings[name] for name in settings if name in of_training}), options


def seeds_of(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds: as they are, or so many from zero."""
    found = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not found:
        raise UserError("A comparison needs at least one seed, and three to say anything about spread.")
    return found


def baseline_of(choices: Sequence[Choice], wanted: str | None) -> str:
    """Return the label of the row that the others are compared with.

    Raises:
        UserError: If the wanted one is not among them.
    """
    if not choices:
        raise UserError("Nothing to compare: name at least one method (see `tutelage methods`).")
    labels = [choice.label for choice in choices]
    if wanted is not None and wanted not in labels:
        raise unknown("row", wanted, labels)
    return wanted or ("supervised" if "supervised" in labels else labels[0])
