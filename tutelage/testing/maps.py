"""Toy maps: a class at each place of an image, as a task of another package would have them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.data.criterion import CROSS_ENTROPY, Density
from tutelage.data.offers import Offer
from tutelage.data.task import Detail, Meter, Metric, Task
from tutelage.errors import UserError
from tutelage.losses import UNLABELLED
from tutelage.testing.toys import CLASSES, ToyNetwork


class ToyMapNetwork(nn.Module):
    """Two convolutions, an enlargement to the size of the images, and a classifier of each place.

    Args:
        width: Channels of the first convolution.
        batch_norm: Whether to normalise; without it, samples of a batch do not see each other.
        outputs: How many numbers it answers each place with.
    """

    def __init__(self, width: int, *, batch_norm: bool = True, outputs: int = CLASSES) -> None:
        super().__init__()
        body = ToyNetwork(width, batch_norm=batch_norm)
        self.layer1, self.layer2 = body.layer1, body.layer2
        self.classifier = nn.Conv2d(2 * width, outputs, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits `[batch, class, height, width]`."""
        coarse = self.layer2(self.layer1(inputs))
        # Enlarged first, so that the classifier works at the size of the labels.
        logits: Tensor = self.classifier(F.interpolate(coarse, inputs.shape[2:], mode="bilinear", align_corners=False))
        return logits


class Maps(Task):
    """A class at each place of an image, -1 where there is none: a task as another package would write it."""

    name = "maps"
    title = "maps of classes"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType({"accuracy": Metric(title="accuracy", unit="share")})
    primary = "accuracy"
    watched = ("accuracy",)
    offers: ClassVar[frozenset[Offer]] = frozenset({"targets", "answers", "maps", "classes", "labels", "images"})
    criterion = CROSS_ENTROPY
    # Keeps fingerprints of equal numbers apart from those of another task.
    salt = b"maps"

    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return the labels as they are."""
        return torch.as_tensor(values)

    def count_outputs(self, targets: Tensor) -> int:
        """Return one more than the highest label."""
        return int(targets.max()) + 1

    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> MapMeter:
        """Return a fresh meter."""
        return MapMeter()

    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Refuse an answer that is not a map of scores."""
        if len(shape) != 4 or shape[:2] != (samples, outputs):
            raise UserError(f"The {who} answers with shape {shape}, and {data} has {outputs} classes at each place.")


class MapMeter(Meter):
    """The share of the labelled places that are right."""

    def __init__(self) -> None:
        self.right, self.known = 0, 0

    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Take in logits `[batch, class, height, width]` and labels `[batch, height, width]`."""
        # A place without a label is -1, which no answer is, so it never counts as right.
        self.right += int((answer.argmax(1) == targets).sum())
        self.known += int((targets != UNLABELLED).sum())

    def merge(self, later: MapMeter) -> None:
        """Add what another meter saw."""
        self.right += later.right
        self.known += later.known

    def compute(self) -> dict[str, float]:
        """Return the accuracy."""
        return {"accuracy": self.right / self.known} if self.known else {}
