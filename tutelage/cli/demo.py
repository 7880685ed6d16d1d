"""The demonstration: real handwritten digits that ship with scikit-learn, five methods, three seeds."""

from __future__ import annotations

from pathlib import Path

from tutelage.data.sources import load_data
from tutelage.experiments.assembly import experiment_of, seeds_of
from tutelage.experiments.choice import parse_choice
from tutelage.experiments.comparison import Comparison
from tutelage.training.settings import Training

STUDENT, TEACHER = "tiny_cnn,width=3", "tiny_cnn,width=32"
# The same settings as below, as flags: the report shows how to repeat a row.
FLAGS = f"--student {STUDENT} --teacher {TEACHER} --data digits --validation 0.2 --epochs 60 --batch-size 64 --lr 0.1"
ROWS = ("supervised", "label-smoothing", "kd", "tf-kd-self", "tf-kd-reg")


def demo_comparison(folder: Path, *, seeds: int, command: str) -> Comparison:
    """Return the demonstration's comparison.

    Args:
        folder: Where everything goes.
        seeds: Number of seeds.
        command: What was typed, for the report.
    """
    data = load_data("digits", validation=0.2)
    training = Training(epochs=60, batch_size=64, lr=0.1)
    return Comparison(
        choices=[parse_choice(row) for row in ROWS],
        experiment=experiment_of(STUDENT, TEACHER, data),
        training=training,
        teacher_training=training,
        seeds=seeds_of(seeds),
        folder=folder,
        baseline="supervised",
        command=command,
        flags=FLAGS.split(),
        title="Distillation on handwritten digits",
    )
