"""Relational knowledge distillation: samples lie to each other in the student as they do in the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, LayerPair, Seen, pair, reading, taps
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.features.adapting import in_one_type
from tutelage.features.anatomy import EMBEDDING, stages
from tutelage.features.padding import mean_over_places
from tutelage.losses import refuse_second_derivative, under_transform, wide

RELATIONAL = Paper(
    key="park2019relational",
    title="Relational Knowledge Distillation",
    authors="Park, Wonpyo and Kim, Dongju and Lu, Yan and Cho, Minsu",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2019,
    arxiv="1904.05068",
)

Variant = Literal["code", "paper"]
# Of two samples the distance is 1 after normalisation, whatever the network, and there is no angle.
_FEWEST_SAMPLES = 3
# Two megabytes: more would not stay in a processor's cache, and fewer would be many small steps.
_ANGLES_AT_ONCE = 2**19


@register(
    "rkd",
    papers=[RELATIONAL],
    losses=["distance_loss", "angle_loss"],
    reads=(),
    uses={"targets"},
    family="relations",
    exceptions={"parts-of-a-batch-add-up": "the samples of a batch are compared with each other"},
)
class RKD(Method):
    r"""Relational KD: distances between samples, and angles between three of them, become those of the teacher.

    $$ L = H(q, p) + \lambda_D \frac{1}{B^2} \sum_{i,j} \ell(d^s_{ij} - d^t_{ij})
       + \lambda_A \frac{1}{B^3} \sum_{i,j,k} \ell(\cos\angle^s_{jik} - \cos\angle^t_{jik}), \qquad
       d_{ij} = \frac{\|x_i - x_j\|}{\mu}, \quad \ell(\delta) = \begin{cases} \delta^2 / 2 & |\delta| \le 1 \\
       |\delta| - 1/2 & \text{otherwise} \end{cases} $$

    $x$ are the pooled features, which may differ in width; $\mu$ is the mean of all distances of a batch that are not
    zero, and $\angle_{jik}$ the angle at $x_i$ between $x_j$ and $x_k$. Moving, rotating, reflecting or scaling all
    features of a network changes nothing.
    Without labels the first term is left out: the student learns features, and its classifier stays as it is.

    A batch has three samples or more; of two there is nothing to compare. Of several processes each compares the
    samples of its own part. The time that the angles take grows as $B^3$.

    Test accuracy on CIFAR-100 in per cent, from the tables of the CRD paper: by the recipe of the preset, the last
    epoch; learning rate 0.01 for MobileNetV2 and ShuffleNets.

    | teacher and student | RKD |
    |---|---|
    | wrn_40_2 and wrn_16_2, wrn_40_1 | 73.35, 72.22 |
    | resnet56 and resnet20 | 69.61 |
    | resnet110 and resnet20, resnet32 | 69.25, 71.82 |
    | resnet32x4 and resnet8x4 | 71.90 |
    | vgg13 and vgg8, MobileNetV2 | 71.48, 64.52 |
    | ResNet50 and MobileNetV2, vgg8 | 64.43, 71.50 |
    | resnet32x4 and ShuffleNetV1, ShuffleNetV2 | 72.28, 73.21 |
    | wrn_40_2 and ShuffleNetV1 | 72.21 |

    For metric learning the authors use the weights 1 and 2, and no other loss (`--task unlabelled`); the teacher's
    embedding has length one, and the student's has not.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside, or one whose layers were recorded.
        example: Inputs for one forward pass.
        batch_size: Samples in a batch, three or more.
        layers: `auto` takes the classifiers' inputs, and of a network without a classifier the end of its last stage;
            or one pair by name, `student:teacher`. The mean over the places is taken.
        distance_weight: $\lambda_D$, zero or more.
        angle_weight: $\lambda_A$, zero or more.
        variant: `code` is the equation. `paper` takes the means over distinct samples alone, $B (B - 1)$ distances and
            $B (B - 1) (B - 2)$ angles, and so does not depend on the size of the batch.

    Raises:
        UserError: If a weight is negative, the batch is too small, the teacher has no network, a layer does not exist,
            or several pairs are named.

    Paper: Park et al., Relational Knowledge Distillation, CVPR 2019.

    Differences: The paper sums over distinct pairs and triples; `paper` takes their mean. The authors' code takes the
        mean over all of them, equal samples included, which agree whatever is learned: in a batch of 64 its losses are
        0.984 and 0.954 of those of distinct samples, in one of 8 they are 0.875 and 0.656. The default is the code, to
        which the published weights belong. Distances are computed from differences, and angles from distances: the
        authors' products of features lose a hundredth where features lie far from zero, and overflow in float16.
        Samples that are alike up to rounding have a distance of zero without a gradient, where the code has 1e-6.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        batch_size: int,
        *,
        layers: str = AUTO,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        variant: Variant = "code",
    ) -> None:
        _check(batch_size, distance_weight=distance_weight, angle_weight=angle_weight)
        super().__init__({"distance": distance_weight, "angle": angle_weight})
        seen = Seen.of(student, teacher, example)
        # The embedding is not the end of a stage, so the pairing by stages does not find it.
        if layers == AUTO:
            paired = reading(student, teacher, [embeddings(student, teacher, seen)], seen, logits=False)
        else:
            paired = pair(student, teacher, layers, seen, logits=False)
        self.student, self.teacher, self.pairs = paired
        if len(self.pairs) > 1:
            raise UserError(f"layers={layers!r} names {len(self.pairs)} pairs, and rkd compares one: the embeddings.")
        self.variant = variant

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, and the losses of distances and angles as `distance` and `angle`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        # A map becomes one vector a sample; a vector is a map of one place.
        ours, theirs = pooled(self.pairs[0], student, teacher)
        return {
            **batch.supervised(student.logits),
            "distance": distance_loss(ours, theirs, variant=self.variant),
            "angle": angle_loss(ours, theirs, variant=self.variant),
        }


def embeddings(student: nn.Module, teacher: Teacher, seen: Seen) -> LayerPair:
    """Return the inputs of both classifiers as a pair; for a network without a classifier, the end of its last stage.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside, or one whose layers were recorded.
        seen: The traces of both on an example.

    Raises:
        UserError: If a network has no layers to read.
    """
    try:
        ours = taps(student, [EMBEDDING], seen.student, who="student")[EMBEDDING]
    except UserError:
        # A backbone without a classifier: its features end with its last stage.
        ours = stages(student, seen.student)[-1]
    try:
        theirs = teacher.taps([EMBEDDING], seen.teacher)[EMBEDDING]
    except UserError:
        theirs = teacher.stages(seen.teacher)[-1]
    return LayerPair(ours, theirs)


def pooled(pair: LayerPair, student: Output, teacher: Output) -> tuple[Tensor, Tensor]:
    """Return the means of both layers of a pair over their places, `[batch, channel]` each."""
    maps, masks = pair.maps(student, teacher), pair.masks(student, teacher)
    return mean_over_places(maps[0], masks[0]), mean_over_places(maps[1], masks[1])


def distance_loss(student: Tensor, teacher: Tensor, *, variant: Variant = "code") -> Tensor:
    r"""Return $\frac{1}{B^2} \sum_{i,j} \ell(d^s_{ij} - d^t_{ij})$, of distances divided by their mean, a scalar.

    Args:
        student: Features `[batch, channel]`.
        teacher: Features `[batch, channel]` of any width; no gradient flows into them.
        variant: `code` is the equation; `paper` divides by $B (B - 1)$. Both are 0 for fewer than three samples.

    Paper: Park et al., Relational Knowledge Distillation, CVPR 2019.
    """
    # The diagonal is zero in both networks, so only the divisor differs between the variants.
    total = F.smooth_l1_loss(*in_one_type(distances(student), distances(teacher.detach())), reduction="sum")
    count = len(student)
    return total / (count**2 if variant == "code" else max(1, count * (count - 1)))


def angle_loss(student: Tensor, teacher: Tensor, *, variant: Variant = "code") -> Tensor:
    r"""Return $\frac{1}{B^3} \sum_{i,j,k} \ell(\cos\angle^s_{jik} - \cos\angle^t_{jik})$, a scalar.

    Args:
        student: Features `[batch, channel]`.
        teacher: Features `[batch, channel]` of any width; no gradient flows into them.
        variant: `code` is the equation; `paper` divides by $B (B - 1) (B - 2)$. Both are 0 for fewer than three
            samples.

    Paper: Park et al., Relational Knowledge Distillation, CVPR 2019.
    """
    count, is_paper = len(student), variant == "paper"
    ours = distances(student)
    theirs = distances(teacher.detach()).to(ours.dtype)
    if under_transform():
        gaps = cosines(ours) - cosines(theirs)
        gaps = gaps * ~torch.eye(count, dtype=torch.bool, device=gaps.device) if is_paper else gaps
        total = F.smooth_l1_loss(gaps, torch.zeros_like(gaps), reduction="sum")
    else:
        total = _AngleLoss.apply(ours, theirs, is_paper)
    return total / (max(1, count * (count - 1) * (count - 2)) if is_paper else count**3)


def distances(features: Tensor) -> Tensor:
    """Return the distances between samples, divided by the mean of those that are not zero, `[batch, batch]`.

    Args:
        features: `[batch, channel]`. Samples that differ by no more than rounding errors have a distance of zero.
    """
    raw = wide(features).flatten(1)
    # Of differences, not of products: no digits are lost where features lie far from zero.
    found = torch.cdist(raw, raw, compute_mode="donot_use_mm_for_euclid_dist")
    # Up to a few units in the last place of the largest features.
    rounding = 4 * torch.finfo(raw.dtype).eps * torch.linalg.vector_norm(raw.detach(), dim=1).max()
    apart = found.detach() > rounding
    found = found.where(apart, 0.0)
    mean: Tensor = found.sum() / apart.sum().clamp(min=1)
    # Where all samples coincide there is no mean to divide by; all distances are zero then.
    return found / mean.where(apart.any(), 1.0)


def cosines(sides: Tensor, first: int = 0, end: int | None = None) -> Tensor:
    """Return the cosine of the angle at sample i between samples j and k, `[i, j, k]`; 0 where j or k is at i.

    Args:
        sides: Distances between samples, `[batch, batch]`.
        first: The first i.
        end: The last i and one more; by default all are taken.
    """
    inverse, squares = _inverse(sides), sides.square()
    own, others = inverse[first:end], squares[first:end]
    # By the law of cosines: no tensor of sample by sample by channel is needed.
    twice = others[:, :, None] + others[:, None, :] - squares
    return twice * (own[:, :, None] * own[:, None, :] / 2)


class _AngleLoss(torch.autograd.Function):
    """The sum over all angles, and its gradient with respect to the student's distances.

    Some samples at a time: autograd would keep several numbers for each three samples.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, distinct: bool) -> Tensor:
        inverse, total = _inverse(student), student.new_zeros(())
        of_sides, opposite = torch.zeros_like(student), torch.zeros_like(student)
        step = max(1, _ANGLES_AT_ONCE // max(1, student.numel()))
        for first in range(0, len(student), step):
            angles, own = cosines(student, first, first + step), inverse[first : first + step]
            gaps = angles - cosines(teacher, first, first + step)
            if distinct:
                gaps.diagonal(dim1=1, dim2=2).zero_()
            slopes = gaps.clamp(-1, 1)
            total += (slopes * (gaps - slopes / 2)).sum()
            # Each side stands in an angle twice, as its first and as its second.
            along = (slopes * (own[:, None, :] - own[:, :, None] * angles)).sum(2)
            of_sides[first : first + step] = 2 * along * (own > 0)
            opposite += (slopes * (own[:, :, None] * own[:, None, :])).sum(0)
        ctx.save_for_backward(of_sides - opposite * student)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        refuse_second_derivative()
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None


def _inverse(sides: Tensor) -> Tensor:
    """Return one over each distance, and zero for a distance of zero."""
    apart = sides > 0
    return torch.where(apart, 1 / sides.where(apart, 1.0), 0.0)


def _check(batch_size: int, **weights: float) -> None:
    for name, weight in weights.items():
        if not weight >= 0:
            raise UserError(f"{name}={weight} must be zero or more: a negative one drives the relations apart.")
    if batch_size < _FEWEST_SAMPLES:
        raise UserError(
            f"batch_size={batch_size} is too small to compare the distances between samples: take "
            f"{_FEWEST_SAMPLES} or more."
        )
