"""Which part of a teacher's answer a recording keeps, how it is stored, and how logits are restored from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.errors import UserError, unknown
from tutelage.features.ending import ABSENT
from tutelage.losses import LOG_ZERO

Values = Literal["float32", "float16"]
VALUES: dict[Values, str] = {"float32": "<f4", "float16": "<f2"}
SCHEMES = ("full", "hard", "smoothed", "top5", "top5-renormalized", "none")


@dataclass(frozen=True)
class Quantization:
    r"""What is kept of a distribution $p$ over $K$ classes, and what is restored from it.

    `full` keeps the logits. All others keep the classes of the $k$ highest probabilities, and restore

    $$q_c = p_c \text{ if } c \text{ is kept, else } \frac{1 - \sum_{j \text{ kept}} p_j}{K - k}$$

    (`smoothed` with $k = 1$, `topk` with more). The `renormalized` schemes restore
    $q_c = p_c / \sum_{j \text{ kept}} p_j$ if $c$ is kept, else 0. `hard` is the one-hot vector of the likeliest class.
    `none` keeps no answers, for recordings of layers alone.

    Attributes:
        name: The scheme's name, as users write it.
        kept: How many classes are kept, $k$; None keeps all logits.
        spread: Whether the rest of the probability is spread over the other classes.

    Paper: Shen and Xing, A Fast Knowledge Distillation Framework for Visual Recognition, ECCV 2022.
    """

    name: str
    kept: int | None
    spread: bool

    @classmethod
    def parse(cls, text: str) -> Quantization:
        """Read a scheme: `full`, `hard`, `smoothed`, `none`, `top5` or `top5-renormalized`, with any number for the 5.

        Raises:
            UserError: If there is no such scheme.
        """
        match text:
            case "none":
                # 0 keeps nothing, None keeps all logits.
                return cls(text, 0, False)
            case "full":
                return cls(text, None, False)
            case "hard" | "smoothed":
                return cls(text, 1, text == "smoothed")
        found = re.fullmatch(r"top([1-9]\d*)(-renormalized)?", text)
        if found is None:
            raise unknown("scheme of what to keep", text, SCHEMES)
        return cls(text, int(found[1]), found[2] is None)

    def __str__(self) -> str:
        return self.name

    @property
    def keeps_answers(self) -> bool:
        """Whether anything is kept of an answer."""
        return self.kept != 0

    def check(self, classes: int) -> None:
        """Refuse to keep more classes than there are.

        Raises:
            UserError: If there are fewer.
        """
        if self.kept is not None and self.kept > classes:
            raise UserError(f"--keep {self} keeps {self.kept} classes, but there are {classes}: keep fewer, or full.")

    def fields(self, classes: int, values: Values) -> list[tuple[str, str, tuple[int]]]:
        """Return the fields of a row that hold an answer, as numpy describes them.

        Args:
            classes: The number of classes $K$.
            values: How logits and probabilities are stored.

        Raises:
            UserError: If more classes are to be kept than there are, or there is no such type.
        """
        self.check(classes)
        if values not in VALUES:
            raise unknown("type of stored values", values, VALUES)
        if not self.keeps_answers:
            return []
        if self.kept is None:
            return [("logits", VALUES[values], (classes,))]
        indices = ("classes", class_type(classes), (self.kept,))
        return [indices] if self.name == "hard" else [indices, ("probabilities", VALUES[values], (self.kept,))]

    def pack(self, logits: Tensor, *, values: Values = "float32") -> dict[str, NDArray[Any]]:
        """Return what is stored of logits, by field; probabilities are of temperature 1, the highest first.

        Args:
            logits: `[batch, class]`, on any device.
            values: How logits and probabilities are stored.

        Raises:
            UserError: If the logits are not a matrix, are not finite or do not fit the type, or have too few classes.
        """
        if not self.keeps_answers:
            return {}
        if logits.ndim != 2:
            raise UserError(f"Answers of the shape {list(logits.shape)} cannot be recorded, only [batch, class].")
        self.check(logits.shape[1])
        logits = logits.detach().float()
        # Checked here: a NaN that was recorded would come back in every run that replays it.
        if not bool(logits.isfinite().all()):
            raise UserError(
                "The teacher's logits are not finite: compute in float32 (--precision 32-true). If that does not help, "
                "its weights are damaged."
            )
        if self.kept is None:
            return {"logits": as_values(logits, values, what="logits")}
        highest, classes = logits.softmax(dim=1).topk(self.kept, dim=1)
        indices = classes.cpu().numpy().astype(class_type(logits.shape[1]))
        if self.name == "hard":
            return {"classes": indices}
        if not self.spread:
            # What is left out counts as impossible, so the kept classes share all of the probability.
            highest = highest / highest.sum(dim=1, keepdim=True)
        return {"classes": indices, "probabilities": as_values(highest, values, what="probabilities")}

    def fill(self, rows: NDArray[Any], logits: Tensor, *, values: Values = "float32") -> None:
        """Store logits in rows, in the form that `pack` returns.

        Args:
            rows: Structured rows `[batch]` that hold the fields of `fields`; changed in place.
            logits: `[batch, class]`, on any device.
            values: How logits and probabilities are stored.

        Raises:
            UserError: If the logits are not a matrix, are not finite or do not fit the type, or have too few classes.
        """
        for field, kept in self.pack(logits, values=values).items():
            rows[field] = kept

    def logits(self, rows: NDArray[Any], classes: int) -> Tensor:
        """Return logits whose softmax is the restored distribution, float32 `[batch, class]`; `ABSENT` without any.

        Args:
            rows: Structured rows that hold the fields of `fields`.
            classes: The number of classes $K$.
        """
        if not self.keeps_answers:
            return ABSENT
        if self.kept is None:
            return torch.from_numpy(rows["logits"].astype(np.float32))
        kept = rows["classes"].astype(np.int64)
        if self.name == "hard":
            probability = np.ones(kept.shape)
        else:
            probability = rows["probabilities"].astype(np.float64)
        total = probability.sum(axis=1, keepdims=True)
        # Rounding can make the sum exceed 1. If no rest is spread, the kept probabilities must sum to exactly 1.
        spread = self.spread and self.kept < classes
        probability /= np.maximum(total, 1) if spread else total
        rest = np.maximum(1 - total, 0) / (classes - self.kept) if spread else np.zeros_like(total)
        restored = np.empty((len(rows), classes), dtype=np.float32)
        # The rest for all classes, then the kept ones over it.
        restored[:] = _log(rest)
        restored[np.arange(len(rows))[:, None], kept] = _log(probability)
        return torch.from_numpy(restored)


def class_type(classes: int) -> str:
    """Return the narrower of the two types in which class indices are stored."""
    return "<u2" if classes <= 2**16 else "<u4"


def as_values(tensor: Tensor, values: Values, *, what: str) -> NDArray[Any]:
    """Return a tensor as an array of the stored type.

    Args:
        tensor: Of any shape, on any device.
        values: The stored type.
        what: The tensor's name in the message.

    Raises:
        UserError: If a value is not finite, or overflows in this type.
    """
    stored = tensor.detach().to(getattr(torch, values)).cpu()
    if not bool(stored.isfinite().all()):
        largest = float(tensor.detach().abs().max())
        remedy = "store them in float32 (--values float32)" if values != "float32" else "check the teacher"
        raise UserError(f"The {what} go up to {largest:g} and cannot be stored in {values}: {remedy}.")
    array: NDArray[Any] = stored.numpy().astype(VALUES[values], copy=False)
    return array


def _log(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    logarithm: NDArray[np.float64] = np.log(probability, out=np.full_like(probability, LOG_ZERO), where=probability > 0)
    return logarithm
