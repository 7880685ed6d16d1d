"""Toy networks, data and a dry run for the conformance suite: small enough to check a method in seconds."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Entry
from tutelage.core.teachers import FrozenTeacher, Teacher
from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.experiments.experiment import Experiment
from tutelage.models.blueprint import Blueprint
from tutelage.recording.header import Header
from tutelage.recording.identity import DataIdentity, TeacherIdentity
from tutelage.recording.reading import Recording
from tutelage.recording.writing import record
from tutelage.training.dry_run import DryRun
from tutelage.training.settings import Training
from tutelage.training.state import Stop

# Height and width differ, so that mixing them up shows. Samples fill whole batches.
CLASSES, CHANNELS, SIZE = 6, 3, (12, 16)
SAMPLES, BATCH = 48, 12
STUDENT_WIDTH, TEACHER_WIDTH = 6, 10
_SHARPNESS = 200
LAYERS = ("layer1", "layer2", "embedding")
# In float32 and without a warm-up, as the plain loop trains.
TRAINING = Training(
    epochs=2, batch_size=BATCH, lr=0.02, warmup_epochs=0, precision="32-true", log_every=1, checkpoint_seconds=1e9
)


class ToyNetwork(nn.Module):
    """Two convolutions and a classifier.

    Args:
        width: Channels of the first convolution.
        batch_norm: Whether to normalise; without it, samples of a batch do not see each other.
        outputs: How many numbers it answers with.
    """

    def __init__(self, width: int = STUDENT_WIDTH, *, batch_norm: bool = True, outputs: int = CLASSES) -> None:
        super().__init__()

        def norm(channels: int) -> nn.Module:
            return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

        self.layer1 = nn.Sequential(nn.Conv2d(CHANNELS, width, 3, 2, 1), norm(width), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), norm(2 * width), nn.ReLU())
        self.classifier = nn.Linear(2 * width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits `[batch, class]`."""
        logits: Tensor = self.classifier(self.layer2(self.layer1(inputs)).mean((2, 3)))
        return logits


def toy_transformer(num_classes: int = 5, *, image_size: tuple[int, int] = (32, 32), depth: int = 4) -> nn.Module:
    """Return a small vision transformer: patches of 8 x 8 pixels, 24 channels, a class token.

    Args:
        num_classes: Number of classes.
        image_size: Height and width of the images.
        depth: Number of blocks.
    """
    import timm

    sizes = {"img_size": image_size, "patch_size": 8, "depth": depth, "embed_dim": 24, "num_heads": 3}
    network: nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=num_classes, **sizes)
    return network


def toy_data() -> Data:
    """Return random images with random labels, each class several times; the images are not square."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (SAMPLES, CHANNELS, *SIZE), dtype=torch.uint8, generator=generator)
    # Classes by turns, so that every batch has each of them.
    samples = ResidentImages(images, torch.arange(SAMPLES) % CLASSES)
    return Data(
        name="toy",
        splits={"train": samples, "validation": samples, "test": samples},
        num_classes=CLASSES,
        class_names=tuple(f"class {number}" for number in range(CLASSES)),
        in_channels=CHANNELS,
        image_size=SIZE,
        mean=(0.5,) * CHANNELS,
        std=(0.25,) * CHANNELS,
        augmentation=Augmentation.parse("crop:1,flip"),
        fingerprint="toy",
    )


def toy_batch() -> Batch:
    """Return the first training batch, without augmentation."""
    return next(iter(toy_data().loader("train", train=False, batch_size=BATCH).epoch(0)))


def toy_experiment(
    *, batch_norm: bool = True, teacher: Teacher | None = None, teacher_width: int = TEACHER_WIDTH
) -> Experiment:
    """Return data, a student and a larger teacher with fixed weights.

    Args:
        batch_norm: Whether the networks normalise over the batch.
        teacher: The teacher to use instead of the network.
        teacher_width: Channels of the teacher's first convolution.
    """

    def blueprint(width: int) -> Blueprint:
        def make() -> nn.Module:
            return ToyNetwork(width, batch_norm=batch_norm)

        return Blueprint(make=make, name=f"toy-{width}", trained=True, untrained=make)

    large = blueprint(teacher_width)
    answers = teacher or FrozenTeacher(large.build(0, "teacher"))
    students = (blueprint(STUDENT_WIDTH), blueprint(8), blueprint(6))
    return Experiment(data=toy_data(), students=students, teachers=(large,), answers=answers)


class Recorder(DryRun):
    """A run that notes the methods that a recipe would train.

    Attributes:
        methods: The methods by the name of their stage.
        data: What each of them would be trained on.
    """

    def __init__(self) -> None:
        super().__init__(TRAINING)
        self.methods: dict[str, Method] = {}
        self.data: dict[str, Data] = {}

    def meet(self, name: str, method: Method, data: Data, *, epochs: int | None, stop: Stop | None) -> None:
        """Note the method."""
        self.methods[name], self.data[name] = method, data


def met(entry: Entry, experiment: Experiment, options: Mapping[str, Any] | None = None) -> Recorder:
    """Return a run that has met the methods that an entry trains: one for a method, several for a recipe.

    Args:
        entry: The method or recipe.
        experiment: Data and networks.
        options: Hyper-parameters.
    """
    from tutelage.experiments.choice import Choice

    recorder = Recorder()
    experiment.execute(Choice(entry, dict(options or {})), recorder)
    return recorder


def methods_of(entry: Entry, experiment: Experiment, options: Mapping[str, Any] | None = None) -> dict[str, Method]:
    """Return the methods that an entry trains, by stage, as `met` does."""
    return met(entry, experiment, options).methods


def toy_teacher(recording: Recording | None = None) -> FrozenTeacher:
    """Return the toy teacher with a classifier so sharp that each sample gets a different answer.

    Args:
        recording: A recording of it. The teacher then gives the answers that a replay restores.
    """
    teacher = FrozenTeacher(ToyNetwork(TEACHER_WIDTH))
    network = toy_experiment().answers
    assert isinstance(network, FrozenTeacher)
    teacher.network.load_state_dict(network.network.state_dict())
    assert isinstance(teacher.network, ToyNetwork)
    with torch.no_grad():
        classifier = teacher.network.classifier
        classifier.weight.mul_(_SHARPNESS)
        # Centred, or one class would be the likeliest of all samples.
        classifier.bias.sub_(teacher.network(toy_data().example(SAMPLES)).mean(0))
    # A recording of whole answers changes nothing, and the layers of the network itself can be read.
    if recording is None or recording.header.keep == "full":
        return teacher
    return FrozenTeacher(_Quantized(teacher.network, recording.header))


class _Quantized(nn.Module):
    """A network whose answers are reduced to what a recording keeps."""

    def __init__(self, network: nn.Module, header: Header) -> None:
        super().__init__()
        self.network, self.header = network, header

    def forward(self, inputs: Tensor) -> Tensor:
        # Through the very format of a recording, rounding included.
        rows = np.zeros(len(inputs), self.header.row_dtype)
        self.header.quantization.fill(rows, self.network(inputs), values=self.header.values)
        return self.header.quantization.logits(rows, self.header.classes)


def toy_header(**changes: Any) -> Header:
    """Return the header of a recording that need not exist: fifty samples, in shards of twenty.

    Args:
        **changes: Fields with other values.
    """
    facts: dict[str, Any] = {
        "keep": "top5",
        "values": "float32",
        "classes": 10,
        "samples": 50,
        "rows_per_shard": 20,
        "augmentation": "crop:1",
        "parameters": 2,
        "image_size": (8, 8),
        "seed": 0,
        "precision": "32-true",
        "teacher": TeacherIdentity(name="net", source="runs/teacher", weights="abc", normalization=""),
        "data": DataIdentity(name="digits", class_names=("0", "1"), labels="def", probes="01", pixels="2"),
        "layers": {},
    }
    return Header(**facts | changes)


@cache
def toy_recording(keep: str, *, layers: tuple[str, ...] = ()) -> Recording:
    """Return the toy teacher's recorded answers to four views of each toy image, written to disk once a process.

    Args:
        keep: What is kept of an answer.
        layers: The layers that are kept.
    """
    # Kept for the process, because making it asks the teacher about every view.
    folder = tempfile.mkdtemp(prefix="tutelage-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings: dict[str, Any] = {"device": "cpu", "precision": "32-true", "progress": False}
    found = record(toy_teacher(), data=toy_data(), out=folder, views=4, keep=keep, layers=layers, **settings)
    assert found is not None
    return found
