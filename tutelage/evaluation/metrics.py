"""Accuracy, calibration and class similarity of logits. All sums are in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import UserError


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Return the fraction of samples whose target class has the highest logit.

    Args:
        logits: Scores before the softmax, `[sample, class]`.
        targets: Class indices, `[sample]`.

    Raises:
        UserError: If the shapes do not match or there is no sample.
    """
    _check(logits, targets)
    return float((logits.argmax(dim=1) == targets).double().mean())


def nll(logits: Tensor, targets: Tensor) -> float:
    """Return the mean negative log-likelihood of the targets, in nats.

    Args:
        logits: Scores before the softmax, `[sample, class]`.
        targets: Class indices, `[sample]`.

    Raises:
        UserError: If the shapes do not match or there is no sample.
    """
    _check(logits, targets)
    return float(F.cross_entropy(logits.double(), targets))


def reliability(logits: Tensor, targets: Tensor, *, bins: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return mean confidence, accuracy and number of samples in bins of equal width over the confidence.

    Bin $m$ of $M$ holds the samples whose highest probability lies in $((m-1)/M, m/M]$. Empty bins are zero.

    Args:
        logits: Scores before the softmax, `[sample, class]`.
        targets: Class indices, `[sample]`.
        bins: The number of bins.

    Returns:
        Confidence `[bins]` and accuracy `[bins]` in float64, and count `[bins]` in int64.

    Raises:
        UserError: If the shapes do not match, there is no sample, or `bins` is below 1.
    """
    _check(logits, targets)
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    return reliability_of(confidence, predicted == targets, bins=bins)


def reliability_of(confidence: Tensor, right: Tensor, *, bins: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result of `reliability`, from confidences instead of logits.

    Args:
        confidence: Highest probability of each answer, float64 `[sample]`.
        right: Whether each answer is right, bool `[sample]`.
        bins: The number of bins.

    Raises:
        UserError: If `bins` is below 1.
    """
    if bins < 1:
        raise UserError(f"The number of bins is {bins}: give 1 or more.")
    # Rounding can make a probability slightly exceed 1, which would fall into a bin that does not exist.
    position = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    count = torch.bincount(position, minlength=bins)
    # Empty bins divide by one rather than zero, so they stay zero.
    filled = count.clamp(min=1)
    return (
        torch.bincount(position, weights=confidence, minlength=bins) / filled,
        torch.bincount(position, weights=right.double(), minlength=bins) / filled,
        count,
    )


def expected_calibration_error(logits: Tensor, targets: Tensor, *, bins: int = 15) -> float:
    r"""Return the expected calibration error, $\sum_m \frac{|B_m|}{n} |acc(B_m) - conf(B_m)|$.

    Paper: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, Eq. 3.

    Args:
        logits: Scores before the softmax, `[sample, class]`.
        targets: Class indices, `[sample]`.
        bins: The number of bins of equal width; the paper takes 15.

    Raises:
        UserError: If the shapes do not match, there is no sample, or `bins` is below 1.
    """
    _check(logits, targets)
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    return calibration_error(confidence, predicted == targets, bins=bins)


def calibration_error(confidence: Tensor, right: Tensor, *, bins: int = 15) -> float:
    """Return the result of `expected_calibration_error`, from confidences instead of logits.

    Args:
        confidence: Highest probability of each answer, float64 `[sample]`.
        right: Whether each answer is right, bool `[sample]`.
        bins: The number of bins.

    Raises:
        UserError: If `bins` is below 1.
    """
    mean, correct, count = reliability_of(confidence, right, bins=bins)
    return float(((mean - correct).abs() * count).sum() / count.sum())


def class_similarity(logits: Tensor, targets: Tensor, *, temperature: float = 4.0) -> Tensor:
    r"""Return the dark knowledge of a network: its mean softened answer to the samples of each class.

    Row $i$ is the mean of $softmax(z / T)$ over the samples of class $i$; a class without samples has a row of zeros.

    Args:
        logits: Scores before the softmax, `[sample, class]`.
        targets: Class indices, `[sample]`.
        temperature: $T$; a higher one shows more of the improbable classes.

    Returns:
        float64 `[class, class]`: the true class, and the class of the probability.

    Raises:
        UserError: If the shapes do not match, there is no sample, or the temperature is not above 0.
    """
    total, count = sums_by_class(logits, targets, temperature=temperature)
    return total / count.clamp(min=1)[:, None]


def sums_by_class(logits: Tensor, targets: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the numerator and the denominator of `class_similarity`, which can be added up batch by batch.

    Args:
        logits: Scores before the softmax, `[sample, class]`.
        targets: Class indices, `[sample]`.
        temperature: $T$, by which the logits are divided before the softmax.

    Returns:
        The sum of the probabilities over the samples of each class, float64 `[class, class]`, and the number of these
        samples, int64 `[class]`.
    """
    _check(logits, targets)
    if temperature <= 0:
        raise UserError(f"The temperature is {temperature:g}: give a number above 0.")
    probability = (logits.double() / temperature).softmax(dim=1)
    classes = logits.shape[1]
    total = probability.new_zeros(classes, classes).index_add_(0, targets, probability)
    return total, torch.bincount(targets, minlength=classes)


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or not len(targets):
        raise UserError(
            f"Logits {list(logits.shape)} and targets {list(targets.shape)} do not match: give [sample, class] and "
            "[sample], with at least one sample."
        )
    if int(targets.min()) < 0 or int(targets.max()) >= logits.shape[1]:
        raise UserError(
            f"Targets go from {int(targets.min())} to {int(targets.max())}, but the logits have {logits.shape[1]} "
            "classes: number the classes from 0."
        )
