"""Every method that reads inside the networks, on pairs of unlike networks: does it train, and what does it cost?

    python benchmarks/pairs.py --data cifar10 --cnn runs/resnet56 --vit runs/vit --out docs/results/pairs.json

Each cell trains a student for real, by the same run as `tutelage distill`, and is scored on test images. Memory is that
of a training step (parameters, gradients, optimizer, activations), counted tensor by tensor. Time is that of all steps
of all stages, from the median step of each; the rows of a pair are timed in turn, round after round, and the medians
compared. Finished cells are kept in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tutelage.core.method import Method
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.experiments.choice import parse_choice
from tutelage.experiments.doctor.cost import measure_memory, seconds_per_step
from tutelage.experiments.experiment import Experiment
from tutelage.models.blueprint import blueprint
from tutelage.system.files import read_json, write_json
from tutelage.training.dry_run import DryRun
from tutelage.training.run import Run
from tutelage.training.settings import Training
from tutelage.training.state import Stop

TRAIN, TEST, ROUNDS = 2000, 1000, 3
VIT = "timm:vit_tiny_patch16_224,pretrained=false,img_size=32,patch_size=4,depth=6,embed_dim=96"
STUDENTS = {"resnet8": "cnn", "vgg8": "cnn", "mobilenetv2": "cnn", VIT: "cnn", "resnet8 ": "vit"}
ROWS = [
    *("kd", "kd:standardize=true,temperature=2,multiplier=10", "dkd", "mlld", "fitnet", "fitnet:variant=paper", "at"),
    *(
        "sp",
        "fsp",
        "vid",
        "semckd",
        "semckd:beta=10",
        "srrl",
        "simkd",
        "quest:clusters=256,max_vectors=20000",
        "crd:negatives=1024",
        "dist",
        "rkd",
        "reviewkd",
        "ttm",
        "wttm",
        "wkd",
        "ofa",
        "token",
    ),
]

# Its authors train with half the learning rate of the other methods.
LR_SCALE = {"mlld": 0.5}


class Weigh(DryRun):
    """Weighs the training step of every stage; the heaviest counts."""

    bytes = 0

    def meet(self, name: str, method: Method, data: Data, *, epochs: int | None, stop: Stop | None) -> None:
        """Weigh one."""
        batch = next(iter(data.loader("train", train=False, batch_size=self.training.batch_size).epoch(0)))
        self.bytes = max(self.bytes, measure_memory(method.train(), batch, self.training).total)


class Clock(DryRun):
    """Times a few training steps of every stage, and adds up what all of its steps would take."""

    seconds = 0.0

    def meet(self, name: str, method: Method, data: Data, *, epochs: int | None, stop: Stop | None) -> None:
        """Time one."""
        steps = math.ceil(data.count("train") / self.training.batch_size) * (epochs or self.training.epochs)
        self.seconds += steps * seconds_per_step(method, data, self.training)


def thin(data: Data) -> Data:
    """Return the data with few test images, so that scoring does not hide what training costs."""
    assert isinstance(data.test, ResidentImages)
    return data.with_splits(test=data.test.select(range(TEST)))


def experiment_of(student: str, teacher: str, data: Data, training: Training) -> Experiment:
    """Return a student and a trained teacher on the data."""
    networks = {"students": (blueprint(student.strip(), data),), "teacher": blueprint(teacher, data, trained=True)}
    experiment = Experiment(data=data, **networks)  # type: ignore[arg-type]
    return replace(experiment, answers=experiment.train_teacher(DryRun(training)))


def cell(row: str, fresh: Callable[[], Experiment], training: Training) -> dict[str, Any]:
    """Train one cell; return its accuracy and memory, or the reason for which the method refuses the pair."""
    choice, weigh = parse_choice(row), Weigh(training)
    try:
        fresh().execute(choice, weigh)
    except UserError as error:
        return {"refused": str(error)}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), training)
        fresh().execute(choice, run)
    fitted = run.fitted[-1]
    losses = {name: values[-1] for name, values in fitted.history.items() if name.startswith("train/")}
    assert all(math.isfinite(value) for value in losses.values()), f"{row}: {losses}"
    return {"accuracy": fitted.scores["best"]["test_accuracy"], "bytes": weigh.bytes}


def time_in_turn(rows: list[str], fresh: Callable[[], Experiment], settings: dict[str, Training]) -> dict[str, float]:
    """Return the seconds that each row's training takes, the median of some rounds."""
    times: dict[str, list[float]] = {row: [] for row in rows}
    for _ in range(ROUNDS):
        for row in rows:
            clock = Clock(settings[row])
            fresh().execute(parse_choice(row), clock)
            times[row].append(clock.seconds)
    return {row: statistics.median(found) for row, found in times.items()}


def tables(content: dict[str, Any]) -> str:
    """Return the cells as two Markdown tables: accuracy, then time and memory relative to kd."""
    cells = {tuple(json.loads(key)): found for key, found in content["cells"].items()}
    pairs = [(student.strip(), kind) for student, kind in STUDENTS.items()]
    names = [f"{content['teachers'][kind]} → {'ViT' if student == VIT else student}" for student, kind in pairs]
    head = [f"| Row | {' | '.join(names)} |", f"|:--|{'--:|' * len(pairs)}"]
    accuracy, cost = list(head), list(head)
    for row in (row for row in ROWS if any(row == one for one, *_ in cells)):
        found = [cells.get((row, *pair), {"refused": ""}) for pair in pairs]
        base = [cells["kd", *pair] for pair in pairs]
        accuracy.append(_line(row, ["refused" if "refused" in one else f"{one['accuracy']:.1%}" for one in found]))
        ratios = [
            "refused"
            if "refused" in one
            else f"{one['seconds'] / kd['seconds']:.2f}×, {one['bytes'] / kd['bytes']:.2f}×"
            for one, kd in zip(found, base)
        ]
        cost.append(_line(row, ratios))
    return "\n".join([*accuracy, "", *cost])


def _line(row: str, values: list[str]) -> str:
    return f"| `{row}` | {' | '.join(values)} |"


def main() -> None:
    """Run what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--cnn", required=True, help="a trained convolutional teacher")
    parser.add_argument("--vit", required=True, help="a trained transformer")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rows", nargs="+", default=ROWS, help="kd, and the methods to set beside it")
    parser.add_argument("--out", type=Path, default=Path("docs/results/pairs.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = thin(load_data(options.data, subset=TRAIN))
    training = Training(epochs=options.epochs, batch_size=64, lr=0.05, compile="off", device="cpu")
    # MobileNets take the literature's smaller learning rate, transformers an optimizer of their own.
    settings = {
        "mobilenetv2": replace(training, lr=0.01),
        VIT: replace(training, optimizer="adamw", lr=0.001, weight_decay=0.05),
    }
    content = read_json(options.out) if options.out.exists() else {"cells": {}}
    content["teachers"] = {"cnn": "resnet56", "vit": "ViT"}
    content["settings"] = {"train": data.count("train"), "test": data.count("test"), "epochs": options.epochs}
    for student, kind in STUDENTS.items():
        chosen = {
            row: replace(base, lr=base.lr * LR_SCALE.get(row, 1.0))
            for row, base in ((row, settings.get(student, training)) for row in options.rows)
        }
        fresh = partial(experiment_of, student, getattr(options, kind), data, training)
        keys = {row: json.dumps([row, student.strip(), kind]) for row in options.rows}
        for row, key in keys.items():
            if key not in content["cells"]:
                content["cells"][key] = cell(row, fresh, chosen[row])
                write_json(options.out, content)
                print(key, content["cells"][key], flush=True)
        accepted = [row for row, key in keys.items() if "refused" not in content["cells"][key]]
        if any("seconds" not in content["cells"][keys[row]] for row in accepted):
            for row, seconds in time_in_turn(accepted, fresh, chosen).items():
                content["cells"][keys[row]]["seconds"] = seconds
            write_json(options.out, content)
    print(tables(content))


if __name__ == "__main__":
    main()
