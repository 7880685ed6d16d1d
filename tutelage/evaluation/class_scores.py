"""Scores that weigh the classes: F1, balanced accuracy, Matthews' correlation. For data whose classes are unequal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from tutelage.data.task import Metric

OF_CLASSES: Mapping[str, Metric] = MappingProxyType(
    {
        "f1": Metric(title="F1", short="F1", unit="share", digits=2),
        "macro_f1": Metric(title="macro F1", short="macro F1", unit="share", digits=2),
        "balanced_accuracy": Metric(title="balanced accuracy", short="bal. acc.", unit="share", digits=2),
        "mcc": Metric(title="MCC", short="MCC", digits=3),
    }
)
"""The scores, by name."""


@dataclass(frozen=True)
class Counts:
    """How often each class occurs, float64 `[class]`.

    Attributes:
        wanted: Among the labels.
        answered: Among the answers.
        right: Among the answers that are right.
    """

    wanted: Tensor
    answered: Tensor
    right: Tensor


def counts_of(labels: Tensor, predicted: Tensor, *, classes: int) -> Counts:
    """Return how often each class occurs.

    Not as a confusion matrix, which grows with the square of the number of classes.

    Args:
        labels: Class indices, `[sample]`.
        predicted: The classes that were answered, `[sample]`.
        classes: How many classes there are.
    """
    wanted, answered, right = (
        torch.bincount(found, minlength=classes).double() for found in (labels, predicted, labels[labels == predicted])
    )
    return Counts(wanted, answered, right)


def score_of(name: str, counts: Counts) -> float:
    """Return a score by its name in `OF_CLASSES`."""
    return _SCORES[name](counts)


def f1(counts: Counts) -> float:
    """Return the F1 of the second class: the harmonic mean of precision and recall; 0 if the class never occurs."""
    return float(_f1(counts)[1])


def macro_f1(counts: Counts) -> float:
    """Return the mean F1 over the classes that occur among labels or answers."""
    occurs = counts.wanted + counts.answered > 0
    return float(_f1(counts)[occurs].mean())


def balanced_accuracy(counts: Counts) -> float:
    """Return the mean, over the classes that occur among the labels, of the share that is answered right."""
    occurs = counts.wanted > 0
    return float((counts.right[occurs] / counts.wanted[occurs]).mean())


def mcc(counts: Counts) -> float:
    r"""Return Matthews' correlation coefficient, for any number of classes.

    With $n$ samples, $c$ of them right, and $t_k$ and $p_k$ how often class $k$ occurs among labels and answers,

    $$ \frac{c n - \sum_k t_k p_k}{\sqrt{(n^2 - \sum_k p_k^2)(n^2 - \sum_k t_k^2)}} $$

    It is 0 where labels or answers are all of one class.

    Paper: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, Computational
        Biology and Chemistry 2004.
    """
    total = counts.wanted.sum()
    above = counts.right.sum() * total - counts.wanted @ counts.answered
    below = (total**2 - counts.answered.square().sum()) * (total**2 - counts.wanted.square().sum())
    return float(above / below.sqrt()) if below > 0 else 0.0


def _f1(counts: Counts) -> Tensor:
    """Return the F1 of each class, 0 for one that does not occur."""
    # A class that occurs nowhere divides zero by one rather than by zero.
    return 2 * counts.right / (counts.wanted + counts.answered).clamp(min=1)


_SCORES = {"f1": f1, "macro_f1": macro_f1, "balanced_accuracy": balanced_accuracy, "mcc": mcc}
