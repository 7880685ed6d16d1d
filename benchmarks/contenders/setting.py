"""What all contenders share: data, networks with the same first weights, batch, loss and optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim import SGD

from tutelage.data.augment import Augmentation
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.data.loader import Loader
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.models.blueprint import blueprint
from tutelage.models.normalization import Normalized
from tutelage.training.settings import Switch

RANDOM, RANDOM_IMAGES = "random", 10_000
RANDOM_SHAPE = {"classes": 100, "size": 32}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One comparison.

    Attributes:
        data: Whatever `tutelage` takes for data, or `random` for 10,000 random images of 32x32 pixels in 100 classes,
            or `random,classes=10,size=64`.
        teacher: The teacher, as `tutelage` takes it.
        student: The student.
        batch: Images in a batch.
        epochs: Length of the schedule, from which Tutelage decides whether compiling pays back.
        lr: Learning rate, at first; it follows a cosine to zero.
        momentum: Momentum of SGD.
        weight_decay: Coupled weight decay, on every parameter.
        temperature: Temperature of the soft term.
        alpha: Weight of the soft term; the cross-entropy has the rest.
        workers: Processes that decode and augment, for contenders that use some.
        seed: Decides the first weights and the order of the data.
        subset: How many training images to use; None for all.
        threads: Processor threads of each contender; None leaves torch's choice.
        compile: Whether Tutelage compiles the networks.
        precision: In which precision Tutelage computes.
        channels_last: Whether Tutelage lays channels innermost.
        fused: Whether Tutelage's optimizer is fused.
        keep_memory: Whether Tutelage keeps the memory that a step frees.
        recording: A recording of the teacher's answers, for whoever replays it.
    """

    data: str = "cifar100"
    teacher: str = "resnet32x4"
    student: str = "resnet8x4"
    batch: int = 64
    epochs: int = 240
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    temperature: float = 4.0
    alpha: float = 0.9
    workers: int = 2
    seed: int = 0
    subset: int | None = None
    threads: int | None = None
    compile: Switch = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    channels_last: Switch = "auto"
    fused: Switch = "auto"
    keep_memory: Switch = "auto"
    recording: str | None = None

    @property
    def device(self) -> torch.device:
        """Where everybody computes."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def load(self) -> Data:
        """Return the data, augmented by crops of padded images and flips, none held out."""
        name, *options = self.data.split(",")
        if name == RANDOM:
            chosen = RANDOM_SHAPE | {key: int(value) for key, _, value in (option.partition("=") for option in options)}
            return random_data(self.subset or RANDOM_IMAGES, **chosen)
        data = load_data(self.data, validation=0.0, subset=self.subset, augment="crop:4,flip")
        return data.with_splits(validation=None)

    def networks(self, data: Data) -> tuple[Normalized, Normalized]:
        """Return teacher and student, which take images in [0, 1], the same in every process.

        Raises:
            UserError: If they normalise their inputs differently, which transforms cannot do for both.
        """
        teacher, student = (
            blueprint(source, data).build(self.seed, part)
            for source, part in ((self.teacher, "teacher"), (self.student, "student"))
        )
        if not (isinstance(teacher, Normalized) and isinstance(student, Normalized)):
            raise UserError("Name the networks: only then is known how they normalise their inputs.")
        if teacher.normalization != student.normalization:
            raise UserError(f"Give the student the teacher's statistics: {self.student},normalize={_of(teacher)}")
        return teacher.requires_grad_(False).eval().to(self.device), student.train().to(self.device)

    def optimizer(self, student: nn.Module, *, fused: bool) -> SGD:
        """Return the optimizer of a student."""
        settings = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        return SGD(student.parameters(), **settings, fused=fused)

    def lent_batches(self, data: Data) -> Loader:
        """Return Tutelage's own batches, which are lent to others: resident uint8, augmented a batch at a time."""
        return data.loader(
            "train",
            train=True,
            batch_size=self.batch,
            seed=self.seed,
            device=self.device,
            channels_last=True,
            drop_last=True,
        )

    def total_steps(self, data: Data) -> int:
        """Return the steps of the schedule."""
        return max(1, self.epochs * (data.count("train") // self.batch))


def random_data(samples: int, classes: int, size: int) -> Data:
    """Return random images with random labels; as many for testing, at most a thousand."""
    chance = torch.Generator().manual_seed(0)

    def images(count: int) -> ResidentImages:
        pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=chance)
        return ResidentImages(pixels, torch.randint(classes, (count,), generator=chance))

    return Data(
        splits={"train": images(samples), "test": images(min(samples, 1000))},
        name=f"{samples} random images of {size}x{size} pixels in {classes} classes",
        num_classes=classes,
        class_names=tuple(map(str, range(classes))),
        in_channels=3,
        image_size=(size, size),
        mean=(0.5,) * 3,
        std=(0.29,) * 3,
        augmentation=Augmentation.parse("crop:4,flip"),
        fingerprint=f"random {samples} {classes} {size}",
    )


def _of(network: Normalized) -> str:
    return str(network.normalization)
