"""How methods learn from teachers that are not a single network: ensembles, recordings of answers or of layers."""

from __future__ import annotations

import torch

from tutelage.core.registry import Entry
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, Teacher
from tutelage.errors import NoLayersError, UserError
from tutelage.experiments.choice import Choice
from tutelage.recording.reading import Recording
from tutelage.recording.teacher import RecordedTeacher
from tutelage.system.chance import seed_everything
from tutelage.testing.kinds import LABELS, home
from tutelage.testing.toys import (
    LAYERS,
    STUDENT_WIDTH,
    TEACHER_WIDTH,
    Recorder,
    met,
    methods_of,
    toy_batch,
    toy_experiment,
    toy_recording,
    toy_teacher,
)
from tutelage.testing.trials import assert_close, replay, updates_of
from tutelage.training.checkpoint import student_state


def accepts_other_teachers(entry: Entry) -> None:
    """A method accepts ensembles, unless it uses the network itself, and recordings of what it reads.

    From a recording it learns as from the teacher.
    """
    if "teacher" not in Choice(entry, {}).fixtures or home(entry) is not LABELS:
        # Recordings are of whole images' answers.
        return
    try:
        methods = _with_ensemble(entry).methods
    # A method that uses the network itself cannot have an ensemble; recorded layers may serve it.
    except NoLayersError:
        learns_from_recorded_layers(entry)
        return
    for method in methods.values():
        losses = [loss for update in updates_of(method, toy_batch()) for loss in update.losses.values()]
        assert all(torch.isfinite(loss) for loss in losses), "an ensemble gives a loss that is not finite"
    if any(module.reads() for method in methods.values() for module in method.modules() if isinstance(module, Teacher)):
        learns_from_recorded_layers(entry)
        return
    # All of an answer, a part of it, and the class alone.
    for keep in ("full", "top2", "hard"):
        try:
            run = _met(entry, RecordedTeacher(toy_recording(keep)))
        except NoLayersError as error:
            raise AssertionError(f"an ensemble is accepted and a recording is not: {error}") from error
        learns_as_from_the_teacher(entry, run, toy_recording(keep))


def _with_ensemble(entry: Entry) -> Recorder:
    """Return the methods of an entry with two teachers as one, wider than the student unless it refuses that."""
    for width in (TEACHER_WIDTH, STUDENT_WIDTH):
        plan = toy_experiment(teacher_width=width).teacher
        assert plan is not None
        # Of different seeds, so that the members disagree.
        ensemble = EnsembleTeacher([FrozenTeacher(plan.build(seed, "teacher")) for seed in (1, 2)])
        try:
            return _met(entry, ensemble)
        except AssertionError:
            if width == STUDENT_WIDTH:
                raise
    raise AssertionError


def learns_from_recorded_layers(entry: Entry) -> None:
    """A method that reads layers, and not the network itself, accepts a recording that has them."""
    recording = toy_recording("full", layers=LAYERS)
    try:
        run = _met(entry, RecordedTeacher(recording))
    except NoLayersError:
        return
    learns_as_from_the_teacher(entry, run, recording)


def learns_as_from_the_teacher(entry: Entry, run: Recorder, recording: Recording) -> None:
    """A method learns the same from recorded answers as from a teacher that gives them for the same views."""
    seed_everything(0)
    live = methods_of(entry, toy_experiment(teacher=toy_teacher(recording)))
    for stage, method in run.methods.items():
        replay(method, run.data[stage])
        replay(live[stage], run.data[stage])
        assert_close(student_state(method), student_state(live[stage]), f"{stage}: replayed ({recording.header.keep})")


def _met(entry: Entry, teacher: Teacher) -> Recorder:
    """Return the methods of an entry with another teacher, and what they are trained on."""
    seed_everything(0)
    try:
        return met(entry, toy_experiment(teacher=teacher))
    except NoLayersError:
        raise
    except UserError as error:
        raise AssertionError(f"a {type(teacher).__name__} is refused: {error}") from error
