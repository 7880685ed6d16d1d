"""Multi-label classification: every sample has any number of classes, and each class is present or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.criterion import Density
from tutelage.data.offers import Offer
from tutelage.data.targets import class_sets
from tutelage.data.task import Detail, Meter, Metric, Task
from tutelage.errors import UserError
from tutelage.losses import (
    UNLABELLED,
    Reduction,
    binary_cross_entropy,
    binary_kd_loss,
    wide,
)

# By chance, so many logits would lie between 0 and 1 once in a billion answers.
_TELLING = 16


JOIN = "|"
"""What stands between the classes of a sample where they are written."""


class BinaryCrossEntropy:
    """Scores that a sigmoid turns into one probability each, `[batch, class]`."""

    def loss(self, answer: Tensor, targets: Any) -> Tensor:
        """Return `binary_cross_entropy`.

        Args:
            answer: Logits `[batch, class]`.
            targets: 0 and 1, `[batch, class]`; -1 where it is not known.
        """
        return binary_cross_entropy(answer, targets)

    def divergence(
        self,
        student: Tensor,
        teacher: Tensor,
        temperature: float = 1.0,
        *,
        t_squared: bool = True,
        reduction: Reduction = "batchmean",
    ) -> Tensor:
        """Return `binary_kd_loss`: each class by its own sigmoid.

        Raises:
            UserError: If another reduction than `batchmean` is asked for, which belongs to the softmax.
        """
        if reduction != "batchmean":
            raise UserError(f"reduction={reduction!r} is for tasks with one class per sample: use 'batchmean'.")
        return binary_kd_loss(student, teacher, temperature, t_squared=t_squared)

    def mean(self, answers: Tensor) -> Tensor:
        """Return the logit of the members' mean probability, `[batch, class]`.

        Args:
            answers: Logits `[member, batch, class]`.
        """
        raw = wide(answers)
        # log of the mean of p, and of the mean of 1 - p; what they share drops out of the difference.
        return F.logsigmoid(raw).logsumexp(0) - F.logsigmoid(-raw).logsumexp(0)


class MultiLabel(Task):
    """Any number of classes per sample: binary cross-entropy, mean average precision, F1."""

    name = "multi-label"
    title = "multi-label classification"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "map": Metric(title="mean average precision", short="mAP", unit="share", digits=2),
            "f1": Metric(title="F1", short="F1", unit="share", digits=2),
            "bce": Metric(title="binary cross-entropy", short="BCE", unit="nats", higher_is_better=False),
        }
    )
    primary = "map"
    watched = ("map", "bce")
    judges = ("map", "f1", "bce")
    # Neither `classes` nor `labels`: a softmax would make rivals of classes that can occur together.
    offers: ClassVar[frozenset[Offer]] = frozenset({"targets", "answers", "sample-answers", "images"})
    criterion = BinaryCrossEntropy()
    salt = b"multi-label"
    outputs = ("label", "labels")

    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return rows of 0 and 1, float32 `[sample, class]`, -1 where it is not known."""
        return class_sets(values, where=where)

    def count_outputs(self, targets: Tensor) -> int:
        """Return the number of classes."""
        return targets.shape[1]

    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> MultiLabelMeter:
        """Return a fresh meter."""
        return MultiLabelMeter()

    def decided(self, answer: Tensor) -> Tensor:
        """Return which classes are there: those of a probability above a half."""
        return answer > 0

    def answer_columns(self, answer: Tensor, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the names of the classes that are likelier present than not, joined by `|`, and each probability."""
        rows = [JOIN.join(name for name, has in zip(names, row) if has) for row in (answer > 0).tolist()]
        probabilities = answer.double().sigmoid().float()
        found = {"prediction": np.asarray(rows, dtype=object)}
        return found | {f"p_{name}": probabilities[:, number].numpy() for number, name in enumerate(names)}

    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Refuse a network that does not return one score per class."""
        if shape != (samples, outputs):
            raise UserError(
                f"For {samples} samples the {who} returns shape {shape}, but {data} has {outputs} labels. Give the "
                f"{who} a classifier of {outputs} outputs, in the order of the data's columns."
            )

    def mistaken(self, answer: Tensor) -> str | None:
        """Return that an answer is probabilities, where all of it lies between 0 and 1 as behind a last sigmoid."""
        values = answer.detach().float()
        is_between = bool(((values >= 0) & (values <= 1)).all())
        # A few logits may lie there by chance, and all those of an untrained classifier may be zero.
        if answer.numel() < _TELLING or not is_between or not bool(values.any()):
            return None
        return (
            "probabilities, all of them from 0 to 1, where scores before the sigmoid (logits) are read: put through a "
            "sigmoid once more they are nearly equal, and teach next to nothing. Leave out its last sigmoid "
            "(torch.nn.Identity() in its place), or let it answer with answer.logit(eps=1e-6)"
        )


class MultiLabelMeter(Meter):
    """Average precision of each class by scikit-learn, which needs all scores of a class at once: they are kept.

    Not torchmetrics' average precision: it warns of classes that occur in no sample, and here these are left out.
    """

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._loss, self._rows = 0.0, 0

    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Add logits `[batch, class]` and rows of 0 and 1."""
        logits, wanted = answer.float().cpu(), targets.cpu()
        known = wanted != UNLABELLED
        self._scores.append(logits)
        self._targets.append(wanted)
        rows = int(known.any(1).sum())
        if rows:
            # The loss of a batch is a mean over its rows, so it counts as often as it has some.
            self._loss += rows * float(binary_cross_entropy(logits.double(), wanted.double()))
        self._rows += rows

    def merge(self, later: MultiLabelMeter) -> None:
        """Add what another meter saw."""
        self._scores += later._scores
        self._targets += later._targets
        self._loss += later._loss
        self._rows += later._rows

    def compute(self) -> dict[str, float]:
        """Return mean average precision and F1 over the classes that occur, and the mean loss of a sample."""
        # Imported here, because scikit-learn is slow to import.
        from sklearn.metrics import average_precision_score, f1_score

        if not self._rows:
            return {}
        scores, targets = torch.cat(self._scores), torch.cat(self._targets)
        precision, f1 = [], []
        for score, wanted in zip(scores.T, targets.T, strict=True):
            known = wanted != UNLABELLED
            # Without a sample that has the class there is no recall, and so no average precision.
            if not bool((wanted[known] == 1).any()):
                continue
            truth = wanted[known].numpy()
            # Some versions of scikit-learn return numpy's numbers, which checkpoints do not hold.
            precision.append(float(average_precision_score(truth, score[known].numpy())))
            # A logit above 0 is a probability above one half.
            f1.append(float(f1_score(truth, (score[known] > 0).float().numpy())))
        found = {"bce": self._loss / self._rows}
        if precision:
            found |= {"map": sum(precision) / len(precision), "f1": sum(f1) / len(f1)}
        return found


MULTI_LABEL = MultiLabel()
