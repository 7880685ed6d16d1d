"""Unlabelled data: a student learns from a teacher alone, and its embedding is measured where there are labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.criterion import CROSS_ENTROPY, Density
from tutelage.data.offers import EVERYTHING, OF_LABELS, Offer
from tutelage.data.targets import class_indices, labelled
from tutelage.data.task import Detail, Meter, Metric, Task

NEIGHBOURS = 20
# Weights of the neighbours' votes fall off with their distance as exp(similarity / temperature).
_TEMPERATURE = 0.07
# Rows of the matrix of similarities that exist at once: the whole matrix grows with the square of the split.
_AT_ONCE = 1024


class Unlabelled(Task):
    """Inputs without targets. Labels of a test split are only used to measure the embedding."""

    name = "unlabelled"
    title = "learning without labels"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {"knn_accuracy": Metric(title="k-NN accuracy", short="k-NN acc.", unit="share", digits=2)}
    )
    primary = "knn_accuracy"
    watched = ("knn_accuracy",)
    judges = watched
    offers: ClassVar[frozenset[Offer]] = EVERYTHING - OF_LABELS
    # For the divergence from a teacher's scores. Its loss is never asked for, as no target reaches training.
    criterion = CROSS_ENTROPY
    hides_targets = True
    salt = b"unlabelled"
    measures = "embedding"

    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return class indices, for splits that the embedding is measured on."""
        return class_indices(values, where=where)

    def count_outputs(self, targets: Tensor) -> int:
        """Return the number of classes of the samples that are measured."""
        return int(targets.max()) + 1

    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> NeighbourMeter:
        """Return a fresh meter."""
        return NeighbourMeter()

    def answer_columns(self, answer: Tensor, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the embedding, a column for each of its numbers."""
        return {f"embedding {number}": values.numpy() for number, values in enumerate(answer.flatten(1).T)}

    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Accept any answer, because the classifier's answer is not measured."""


class NeighbourMeter(Meter):
    r"""Accuracy of a vote of the nearest other samples of the split: leave one out, cosine similarity.

    Each of the $k = 20$ nearest neighbours votes for its class with weight $\exp(s / 0.07)$.

    Paper: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018; as used to
        compare embeddings by Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021.

    Differences: The neighbours are the other samples of the split that is measured, because training samples have no
        labels here.
    """

    def __init__(self) -> None:
        self._embeddings: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Add embeddings `[batch, value]` and class indices."""
        known = labelled(targets)
        # Of length one, so that an inner product is a cosine.
        self._embeddings.append(F.normalize(answer.flatten(1).float().cpu()[known], dim=1))
        self._labels.append(targets.cpu()[known])

    def merge(self, later: NeighbourMeter) -> None:
        """Add what another meter saw."""
        self._embeddings += later._embeddings
        self._labels += later._labels

    def compute(self) -> dict[str, float]:
        """Return the share of samples whose neighbours vote for their class."""
        labels = torch.cat(self._labels) if self._labels else torch.empty(0)
        if len(labels) <= 1:
            return {}
        embeddings, right = torch.cat(self._embeddings), 0
        for start in range(0, len(labels), _AT_ONCE):
            part = embeddings[start : start + _AT_ONCE]
            similarity = part @ embeddings.T
            # No sample votes for itself.
            similarity[torch.arange(len(part)), torch.arange(start, start + len(part))] = -torch.inf
            nearest, places = similarity.topk(min(NEIGHBOURS, len(labels) - 1), dim=1)
            votes = torch.zeros(len(part), int(labels.max()) + 1)
            votes.scatter_add_(1, labels[places], (nearest / _TEMPERATURE).exp())
            right += int((votes.argmax(1) == labels[start : start + len(part)]).sum())
        return {"knn_accuracy": right / len(labels)}


UNLABELLED = Unlabelled()
