"""Attention transfer: the student's attention maps match the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, LayerPair, pair
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.maps import pool_to_smaller
from tutelage.features.padding import places, without_padding
from tutelage.features.products import mean_square, unit_rows
from tutelage.losses import wide

ATTENTION_TRANSFER = Paper(
    key="zagoruyko2017paying",
    title="Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks via "
    "Attention Transfer",
    authors="Zagoruyko, Sergey and Komodakis, Nikos",
    venue="International Conference on Learning Representations",
    year=2017,
    arxiv="1612.03928",
)

Variant = Literal["code", "paper"]


@register("at", papers=[ATTENTION_TRANSFER], losses=["attention_loss"], reads=(), uses={"targets"}, family="features")
class AT(Method):
    r"""Attention transfer: the student's attention maps match the teacher's, stage by stage.

    $$ L = H(q, p) + \beta \sum_l \mathrm{AT}(F^s_l, F^t_l), \qquad
       \mathrm{AT} = \frac{1}{hw} \|a^s - a^t\|_2^2, \qquad
       a = \frac{\sum_c F_c^2}{\left\|\sum_c F_c^2\right\|_2} $$

    An attention map has one value per place, so the two networks may differ in channels; the larger map is pooled to
    the smaller. Neither the scale of a map, nor its sign, nor the order of its channels matters.
    Without labels the first term is left out: the student learns features, and its classifier stays as it is.

    The published weight belongs to maps of the size that CIFAR networks have: $\beta \mathrm{AT}$ is at most
    $2 \beta / hw$, so 31 for a last map of 8x8 places but 500 for one of 2x2, where it drowns the labels. Give small
    maps a smaller $\beta$.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside.
        example: Inputs for one forward pass.
        layers: `auto` pairs the ends of the stages; or pairs by name, `student:teacher`, joined by `+`.
        beta: $\beta$, zero or more.
        variant: `code` is the square above. `paper` is the norm itself, $\frac{1}{2hw} \|a^s - a^t\|_2$.

    Raises:
        UserError: If `beta` is negative, the teacher has no network, a layer does not exist, or a pair of layers has
            only one place, where all attention maps are equal.

    Paper: Zagoruyko, Komodakis, Paying More Attention to Attention: Improving the Performance of Convolutional Neural
        Networks via Attention Transfer, ICLR 2017.

    Differences: The paper has $\frac{\beta}{2}$ times the norm, not squared; its authors' code has the mean of squares,
        over batch and places, with a weight of 1000, and so have the tables of the literature. The default is the code:
        the published weight belongs to it, and its gradient falls to zero as the maps meet, while that of the norm
        keeps its length and changes its direction. In the variant `paper` the division by the number of places is our
        choice, as if the paper's weight were $10^3$ over places and batch, which we know second-hand; so the default of
        `beta` fits both variants. A map of zeros has an attention of zeros, without a gradient. So does a map whose
        activations are below about 1e-4: it holds only rounding errors, such as those of a batch norm on black images.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        layers: str = AUTO,
        beta: float = 1000.0,
        variant: Variant = "code",
    ) -> None:
        if not beta >= 0:
            raise UserError(f"beta={beta} must be zero or more: a negative one drives the attention maps apart.")
        super().__init__({"attention": beta})
        self.student, self.teacher, self.pairs = pair(student, teacher, layers, example, take="stages", logits=False)
        self.variant = variant
        for one in self.pairs:
            _check_places(one)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the sum of the pairs' distances as `attention`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        # The equation's sum over the layers l; a pair may be of other sizes than the next.
        found = [pair.compared(student, teacher) for pair in self.pairs]
        terms = [attention_loss(ours, theirs, variant=self.variant, mask=mask) for ours, theirs, mask in found]
        return {**batch.supervised(student.logits), "attention": torch.stack(terms).sum()}


def attention_loss(
    student: Tensor, teacher: Tensor, *, variant: Variant = "code", mask: Tensor | None = None
) -> Tensor:
    r"""Return how far apart two attention maps are, $\frac{1}{hw} \|a^s - a^t\|_2^2$, the mean over the batch.

    Args:
        student: `[batch, channel, height, width]`.
        teacher: `[batch, channel, height, width]`, with its own sizes; no gradient flows into it.
        variant: `"code"` is the square, between 0 and $\frac{2}{hw}$; `"paper"` is $\frac{1}{2hw} \|a^s - a^t\|_2$.
        mask: Places of both that are not padding, `[batch, 1, height, width]`; $hw$ is then their number.
    """
    teacher = teacher.detach()
    # The maps are pooled, not their attention: squares come after pooling, as in the authors' code.
    if student.shape[2:] != teacher.shape[2:]:
        student, teacher = pool_to_smaller(wide(student), wide(teacher))
    difference = attention_map(student, mask) - attention_map(teacher, mask)
    if variant == "code":
        # Without padding, one mean over batch and places. With it, each sample is divided by its own number of places.
        squares = difference.square()
        return squares.mean() if mask is None else (squares.sum(1) / places(mask)).mean()
    norm: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return norm.mean() / (2 * difference.shape[1]) if mask is None else (norm / (2 * places(mask))).mean()


def attention_map(maps: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the attention map: the activity at each place, $\sum_c F_c^2$, scaled to length one, `[batch, place]`.

    Args:
        maps: `[batch, channel, height, width]`. A map that holds only rounding errors has an attention of zeros.
        mask: Its places, `[batch, 1, height, width]`; padding is never active.
    """
    activity = mean_square(without_padding(maps, mask), (1,)).flatten(1)
    # The row holds squares, so this length belongs to activations of about 1e-4 in float32.
    return unit_rows(activity, shortest=torch.finfo(activity.dtype).eps)


def _check_places(pair: LayerPair) -> None:
    height, width = (min(sizes) for sizes in zip(pair.student.size, pair.teacher.size))
    if height * width == 1:
        raise UserError(
            f"The layers {pair} are compared at a single place, where every attention map is 1 and teaches nothing. "
            "Name layers with maps in layers=, or choose a method for vectors."
        )
