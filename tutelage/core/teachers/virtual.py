"""Hand-made teachers, whose answers come from no network."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from tutelage.core.teachers.teacher import Teacher, answer_check
from tutelage.data.batch import Batch, Output
from tutelage.data.dataset import Data
from tutelage.errors import UserError
from tutelage.losses import LOG_ZERO, UNLABELLED

Softening = Literal["log-probability", "probability"]


class UniformTeacher(Teacher):
    """A control: a teacher that knows nothing and says so, with zero for every logit.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, batch: Batch) -> Output:
        """Return zeros, `[batch, class, ...]`, with the places that the labels have."""
        labels = batch.labels
        # Labels that are probabilities have an axis of classes, which is no place.
        places = labels.shape[2:] if labels.is_floating_point() else labels.shape[1:]
        # The type of the inputs, and not torch's default, which would widen the losses of a narrower student.
        given = batch.inputs
        kind = given.dtype if isinstance(given, Tensor) and given.is_floating_point() else torch.float32
        return Output(logits=torch.zeros(len(labels), self.num_classes, *places, dtype=kind, device=labels.device))


class VirtualTeacher(Teacher):
    r"""The hand-made teacher of Tf-KD (eq. 8): probability $a$ for the label, the rest shared equally.

    $p^d(k) = a$ for the label and $(1 - a) / (K - 1)$ for every other class, which sums to one.

    Args:
        num_classes: Number of classes $K$, at least two.
        confidence: Probability $a$ of the label, between $1/K$ and 1.
        softening: The quantity that a temperature divides. `"log-probability"` returns $\log p^d$ as logits, so that
            temperature $\tau$ gives $p^{1/\tau} / Z$; `"probability"` returns $p^d$ itself as logits, as the
            authors' code does.
        dtype: The type of its logits; torch's default type if none is given.

    Raises:
        UserError: If the confidence is not between chance and 1, or there are fewer than two classes.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        confidence: float = 0.99,
        softening: Softening = "log-probability",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._dtype = dtype
        if num_classes < 2:
            raise UserError(f"A virtual teacher needs two classes or more, not {num_classes}.")
        if not 1 / num_classes <= confidence <= 1:
            raise UserError(
                f"confidence={confidence} must be between chance, 1/{num_classes}, and 1: it is the probability of the "
                "label."
            )
        self.num_classes, self.confidence, self.softening = num_classes, confidence, softening

    def check_answers(self, data: Data) -> None:
        """Check at the first answer that it has the data's classes. Probabilities are meant here, where there are any.

        Raises:
            UserError: At its first answer, if it has other classes.
        """
        self._awaited = answer_check(data, scores=False)

    def forward(self, batch: Batch) -> Output:
        """Return the virtual logits, `[batch, class, ...]`."""
        return Output(
            logits=virtual_logits(
                batch.labels,
                self.num_classes,
                confidence=self.confidence,
                softening=self.softening,
                dtype=self._dtype,
            )
        )


def virtual_logits(
    labels: Tensor,
    num_classes: int,
    *,
    confidence: float = 0.99,
    softening: Softening = "log-probability",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return what a virtual teacher answers, `[batch, class, ...]`. Without a label all classes get equal logits.

    Args:
        labels: Class indices `[batch]` (or `[batch, ...]`), -1 where there is none.
        num_classes: Number of classes $K$, at least two.
        confidence: Probability $a$ of the label, between $1/K$ and 1.
        softening: What a temperature will divide: `log-probability`, or `probability` as in the authors' code.
        dtype: The type of the logits; torch's default type if none is given.
    """
    # Eq. 8: what the label leaves is shared equally.
    other = (1 - confidence) / (num_classes - 1)
    high, low = confidence, other
    if softening == "log-probability":
        # With a confidence of 1 the others have probability 0; a true -inf would make NaN of 0 times it.
        high, low = math.log(high), math.log(low) if low > 0 else LOG_ZERO
    kind: Any = {"dtype": dtype, "device": labels.device}
    logits = torch.full((len(labels), num_classes, *labels.shape[1:]), low, **kind)
    # Without a label the class that is written below, 0, gets the same value as all others.
    right = torch.full(labels.shape, high, **kind).masked_fill(labels == UNLABELLED, low)
    return logits.scatter(1, labels.clamp(min=0).unsqueeze(1), right.unsqueeze(1))
