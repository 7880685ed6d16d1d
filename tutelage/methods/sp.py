"""Similarity-preserving distillation: samples alike to the teacher are alike to the student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, pair
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.padding import without_padding
from tutelage.features.products import gram, unit_rows

SIMILARITY_PRESERVING = Paper(
    key="tung2019similarity",
    title="Similarity-Preserving Knowledge Distillation",
    authors="Tung, Frederick and Mori, Greg",
    venue="IEEE/CVF International Conference on Computer Vision",
    year=2019,
    arxiv="1907.09682",
)


@register(
    "sp",
    papers=[SIMILARITY_PRESERVING],
    losses=["similarity_loss"],
    reads=(),
    uses={"targets"},
    family="relations",
    exceptions={"parts-of-a-batch-add-up": "the samples of a batch are compared with each other"},
)
class SP(Method):
    r"""Similarity-preserving distillation: samples that are alike to the teacher become alike to the student.

    $$ L = H(q, p) + \beta \, \frac{1}{B^2} \left\|\tilde G^s - \tilde G^t\right\|_F^2, \qquad
       \tilde G_i = \frac{G_i}{\|G_i\|_2}, \qquad G = F F^\top $$

    $F$ holds one flattened map per sample, and $G$ what the samples of a batch have in common. The two networks may
    differ in channels and in resolution. Scaling all features, or rotating them, changes nothing; scaling those of one
    sample does.
    Without labels the first term is left out: the student learns features, and its classifier stays as it is.

    The loss depends on the size of the batch: its largest value falls as $1/B$, a batch of one costs nothing, and of
    several processes each compares the samples of its own part. The weight of 3000 belongs to batches of 64.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside.
        example: Inputs for one forward pass.
        layers: `auto` pairs the last stages; or pairs by name, `student:teacher`, joined by `+`, which are summed.
        beta: $\beta$, zero or more.

    Raises:
        UserError: If `beta` is negative, the teacher has no network, or a layer does not exist.

    Paper: Tung, Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019.

    Differences: The paper's own weight and batch size could not be checked; the default is the setting of the
        literature's tables. A sample whose features are all zero, or rounding errors, has a row of zeros, without a
        gradient.
    """

    def __init__(
        self, student: nn.Module, teacher: Teacher, example: Any, *, layers: str = AUTO, beta: float = 3000.0
    ) -> None:
        if not beta >= 0:
            raise UserError(f"beta={beta} must be zero or more: a negative one drives the similarities apart.")
        super().__init__({"similarity": beta})
        self.student, self.teacher, self.pairs = pair(student, teacher, layers, example, take="last", logits=False)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the sum of the pairs' distances as `similarity`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        terms = []
        for one in self.pairs:
            # Each network leaves out its own padding: samples are compared, so places need not agree.
            features = zip(one.maps(student, teacher), one.masks(student, teacher), strict=True)
            terms.append(similarity_loss(*(without_padding(maps, mask) for maps, mask in features)))
        return {**batch.supervised(student.logits), "similarity": torch.stack(terms).sum()}


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Return $\frac{1}{B^2} \|\tilde G^s - \tilde G^t\|_F^2$, the distance between the similarities within a batch.

    Args:
        student: `[batch, ...]`, features of any shape.
        teacher: `[batch, ...]`, features of any shape; no gradient flows into them.
    """
    # The mean over B x B entries is the 1/B^2 of the equation.
    return (_normalized_gram(student) - _normalized_gram(teacher.detach())).square().mean()


def _normalized_gram(features: Tensor) -> Tensor:
    similarities = gram(features)
    # Features that hold only rounding errors resemble no others.
    is_faint = similarities.detach().diagonal() < torch.finfo(similarities.dtype).eps
    return unit_rows(similarities.masked_fill(is_faint[:, None], 0.0))
