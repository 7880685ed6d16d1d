"""Data, networks and comparisons from the flags of a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from tutelage.cli.flags import DataOptions, LearningDataOptions, TrainingDataOptions
from tutelage.cli.parser import Found
from tutelage.core.teachers.combining import Together
from tutelage.data.dataset import Data
from tutelage.data.resolve import resolve_data
from tutelage.errors import UserError
from tutelage.experiments.assembly import experiment_of
from tutelage.experiments.choice import Choice
from tutelage.experiments.comparison import Comparison
from tutelage.experiments.experiment import Experiment
from tutelage.training.settings import Training


def comparison_of(
    found: Found, choices: list[Choice], training: Training, *, folder: Path, seeds: list[int]
) -> Comparison:
    """Return the comparison of some methods on the networks and the data of the flags."""
    return Comparison(
        choices=choices,
        experiment=experiment_from(found),
        training=training,
        # A teacher may need longer, but is otherwise trained in the same way.
        teacher_training=replace(training, epochs=found.teacher_epochs or training.epochs),
        seeds=seeds,
        folder=folder,
        baseline=choices[0].label,
    )


def experiment_from(found: Found) -> Experiment:
    """Return the networks and the data of the flags.

    Raises:
        UserError: If the size of the ensemble is below 1, its teachers are trained already, or it cannot answer as is
            asked for.
    """
    if found.ensemble < 1:
        raise UserError(f"ensemble={found.ensemble} must be 1 or more: how often each teacher is trained.")
    experiment = experiment_of(
        found.student,
        # The same name several times: each member gets a seed of its own.
        found.teacher * found.ensemble,
        data_of(found, LearningDataOptions),
        teacher_classes=found.teacher_classes,
        together=Together(found.teachers, _weights(found.teacher_weights)),
        queries=found.queries,
        trust_code=found.trust_code,
    )
    if found.ensemble > 1 and any(teacher.trained for teacher in experiment.teachers):
        raise UserError(
            "--ensemble trains a teacher several times. If they are trained already, name each: --teacher A B C."
        )
    return experiment


def _weights(words: Sequence[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, words))
    except ValueError as error:
        raise UserError(f"--teacher-weights {' '.join(words)} must be numbers, one for each teacher.") from error


def data_of(found: Found, group: type[TrainingDataOptions] = DataOptions) -> Data:
    """Return the data of the flags of a group."""
    # The flag has a longer name than the argument: `--test` alone would read as an order to test.
    options = {
        {"test_data": "test"}.get(field.name, field.name): getattr(found, field.name)
        for field in fields(group)
        if field.name != "data"
    }
    return resolve_data(found.data, **options)
