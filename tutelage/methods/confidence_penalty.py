"""The confidence penalty: a regulariser that softens a network's answers by a penalty on certainty."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import wide

CONFIDENCE_PENALTY = Paper(
    key="pereyra2017regularizing",
    title="Regularizing Neural Networks by Penalizing Confident Output Distributions",
    authors="Pereyra, Gabriel and Tucker, George and Chorowski, Jan and Kaiser, Lukasz and Hinton, Geoffrey",
    venue="arXiv preprint arXiv:1701.06548",
    year=2017,
    arxiv="1701.06548",
)


@register(
    "confidence-penalty",
    papers=[CONFIDENCE_PENALTY],
    losses=["negative_entropy"],
    reads={"targets", "classes"},
    family="labels",
)
class ConfidencePenalty(Method):
    r"""Confidence penalty: cross-entropy, and a reward for the entropy of the prediction.

    $$ L = H(q, p) - \beta H(p), \qquad H(p) = -\sum_c p(c) \log p(c) $$

    Label smoothing adds $\mathrm{KL}(u \,\|\, p)$, the penalty $\mathrm{KL}(p \,\|\, u)$: the same two distributions,
    the other way round.

    Args:
        student: The network to train.
        beta: $\beta$, zero or more.

    Raises:
        UserError: If `beta` is negative.

    Paper: Pereyra et al., Regularizing Neural Networks by Penalizing Confident Output Distributions, 2017.

    Differences: The default of `beta` is our choice. The hinge that stops the penalty above a given entropy, and its
        annealing, are left out.
    """

    def __init__(self, student: nn.Module, *, beta: float = 0.1) -> None:
        if not beta >= 0:
            raise UserError(f"beta={beta} must be zero or more: a negative one rewards certainty.")
        super().__init__({"negative_entropy": beta})
        self.student = FeatureExtractor(student)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the negative entropy, the mean over the batch, as `negative_entropy`."""
        logits = self.student(batch.inputs).logits
        return {"ce": batch.loss(logits), "negative_entropy": negative_entropy(logits)}


def negative_entropy(logits: Tensor) -> Tensor:
    r"""Return $\sum_c p(c) \log p(c)$, the mean over the batch and its places.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`).
    """
    # In log-space, because a probability that underflows to zero still has a finite logarithm.
    log_probabilities = wide(logits).log_softmax(1)
    return (log_probabilities.exp() * log_probabilities).sum(1).mean()
