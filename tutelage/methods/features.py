"""Feature distillation: linear adapters predict the teacher's normalised features, pooled and place by place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, LayerPair, pair
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.adapting import adapting, in_one_type
from tutelage.features.maps import pool_to_smaller
from tutelage.features.padding import mean_over_places
from tutelage.features.products import unit_rows
from tutelage.losses import wide

FEATURE_DISTILLATION = Paper(
    key="wei2022contrastive",
    title="Contrastive Learning Rivals Masked Image Modeling in Fine-tuning via Feature Distillation",
    authors="Wei, Yixuan and Hu, Han and Xie, Zhenda and Zhang, Zheng and Cao, Yue and Bao, Jianmin and Chen, Dong and "
    "Guo, Baining",
    venue="arXiv preprint arXiv:2205.14141",
    year=2022,
    arxiv="2205.14141",
)
AM_RADIO = Paper(
    key="ranzinger2024radio",
    title="AM-RADIO: Agglomerative Vision Foundation Model -- Reduce All Domains Into One",
    authors="Ranzinger, Mike and Heinrich, Greg and Kautz, Jan and Molchanov, Pavlo",
    venue="Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
    year=2024,
    arxiv="2312.06709",
)

Distance = Literal["smooth-l1", "mse", "cosine"]


@register(
    "features",
    papers=[FEATURE_DISTILLATION, AM_RADIO],
    losses=["feature_distances"],
    reads=(),
    uses={"targets"},
    family="features",
)
class Features(Method):
    r"""Feature distillation: a linear adapter predicts the teacher's normalised features, pooled and place by place.

    $$ L = w H(q, p) + \sum_l \Big[ \beta \, d\big(A_l n(\bar F^s_l), n(\bar F^t_l)\big)
       + \gamma \, \frac{1}{hw} \sum_i d\big(B_l n(F^s_{l,i}), n(F^t_{l,i})\big) \Big], \qquad
       n(f) = \frac{f - \mathrm{mean}(f)}{\sqrt{\mathrm{var}(f) + 10^{-5}}} $$

    $F_{l,i}$ are the features at place $i$ of a map, or of a patch token; $\bar F_l$ is their mean over the places. The
    layer norm $n$, over the channels and without parameters, brings the features of any teacher to one scale. $A$ and
    $B$ are linear layers with a bias, trained with the student and thrown away. A pair of one place, such as two
    vectors, has no second term, because both would be the same. The larger map is pooled to the smaller. Padding is
    left out.

    The teacher needs no classifier: a backbone such as `timm:vit_base_patch14_dinov2,num_classes=0` teaches, on images
    with labels or without. Its class token is not one of the places. To learn from it too, or from the backbone's
    output, name the layer that gives it: `--layers layer4:blocks.11+embedding:head`, where `head` is what timm leaves
    in its place.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside, or one whose layers were recorded.
        example: Inputs for one forward pass.
        layers: `auto` pairs the last stages; or pairs by name, `student:teacher`, joined by `+`, which are summed.
        distance: $d$, a mean over the channels: `smooth-l1` is $x^2 / 2\delta$ up to $|x| = \delta$ and
            $|x| - \delta / 2$ beyond, `mse` is $x^2$, and `cosine` is one minus the cosine.
        delta: $\delta$ of `smooth-l1`, above zero.
        ce_weight: $w$, zero or more; at zero, no labels are needed.
        pooled_weight: $\beta$, zero or more.
        places_weight: $\gamma$, zero or more.

    Raises:
        UserError: If a weight is negative, `delta` is not above zero, all features weigh zero, the teacher has no
            layers to read, or a layer does not exist.

    Paper: Wei et al., Contrastive Learning Rivals Masked Image Modeling in Fine-tuning via Feature Distillation, arXiv
        2205.14141: the layer norm without parameters on the teacher's features, the linear adapter at each place, and
        `smooth-l1` with $\delta = 2$. Ranzinger et al., AM-RADIO, CVPR 2024: pooled and spatial features beside each
        other, each with an adapter of its own.

    Differences: Wei et al. match the last feature map alone, without labels and without a layer norm in front of the
        adapter. AM-RADIO's adapters are MLPs, its pooled features are class tokens, compared by their cosine, and it
        learns from several teachers. The weights are our choice: the features of each pair and the labels weigh alike.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        layers: str = AUTO,
        distance: Distance = "smooth-l1",
        delta: float = 2.0,
        ce_weight: float = 1.0,
        pooled_weight: float = 1.0,
        places_weight: float = 1.0,
    ) -> None:
        _check(delta, ce_weight=ce_weight, pooled_weight=pooled_weight, places_weight=places_weight)
        super().__init__({"ce": ce_weight, "pooled": pooled_weight})
        self.student, self.teacher, self.pairs = pair(student, teacher, layers, example, take="last", logits=False)
        self.adapters = adapting(nn.ModuleList(FeatureAdapter(one) for one in self.pairs), student, wide=True)
        self.distance, self.delta = distance, delta
        # Pairs of one place yield no such loss, and each weight must belong to a loss that is yielded.
        if any(adapter.has_places for adapter in self.adapters):
            self.weights = {**self.weights, "places": places_weight}

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, if it has a weight, and the sums over pairs as `pooled` and `places`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        losses = batch.supervised(student.logits) if self.weights["ce"] else {}
        pooled, places = [], []
        for one, adapter in zip(self.pairs, self.adapters, strict=True):
            assert isinstance(adapter, FeatureAdapter)
            ours, theirs, mask = one.compared(student, teacher)
            ours, theirs = pool_to_smaller(wide(ours), wide(theirs))
            whole = (mean_over_places(maps, mask) for maps in (ours, theirs))
            pooled.append(self._far(adapter.pooled, *whole).mean())
            if adapter.places is not None:
                # Channels last: adapter and layer norm act on the channels of each place.
                far = self._far(adapter.places, ours.movedim(1, 3), theirs.movedim(1, 3))
                # The distances as a map of one channel, so that padding does not enter their mean.
                places.append(mean_over_places(far[:, None], mask).mean())
        losses["pooled"] = torch.stack(pooled).sum()
        return losses | ({"places": torch.stack(places).sum()} if places else {})

    def _far(self, adapter: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
        adapted = adapter(normalized(student))
        return feature_distances(adapted, normalized(teacher.detach()), self.distance, delta=self.delta)


class FeatureAdapter(nn.Module):
    """The linear layers from a student's features to the width of the teacher's.

    Args:
        pair: The layers that are compared.

    Attributes:
        pooled: The layer for the mean over the places.
        places: The layer for each place; None if there is only one place.
    """

    def __init__(self, pair: LayerPair) -> None:
        super().__init__()
        ours, theirs = pair.student.channels, pair.teacher.channels
        self.pooled = nn.Linear(ours, theirs)
        # The size at which the pair is compared, after pooling.
        height, width = (min(sizes) for sizes in zip(pair.student.size, pair.teacher.size, strict=True))
        self.places = nn.Linear(ours, theirs) if height * width > 1 else None

    @property
    def has_places(self) -> bool:
        """Whether there are several places to compare."""
        return self.places is not None


def feature_distances(
    adapted: Tensor, teacher: Tensor, distance: Distance = "smooth-l1", *, delta: float = 2.0
) -> Tensor:
    r"""Return how far each adapted feature is from the teacher's, `[...]`: the mean over its channels.

    Args:
        adapted: The student's, `[..., channel]`.
        teacher: The teacher's, the same shape.
        distance: `smooth-l1`, `mse` or `cosine` (one minus the cosine).
        delta: $\delta$ of `smooth-l1`, the difference from which squares become absolute values.
    """
    adapted, teacher = in_one_type(adapted, teacher)
    if distance == "cosine":
        # `unit_rows` takes a matrix: each place is a row. A feature of zeros has no direction, and no gradient.
        ours, theirs = (unit_rows(one.flatten(0, -2)) for one in (adapted, teacher))
        return (1 - (ours * theirs).sum(1)).view(adapted.shape[:-1])
    if distance == "mse":
        return F.mse_loss(adapted, teacher, reduction="none").mean(-1)
    return F.smooth_l1_loss(adapted, teacher, beta=delta, reduction="none").mean(-1)


def normalized(features: Tensor) -> Tensor:
    """Return features at mean zero and variance one over the channels, `[..., channel]`; equal ones become zeros."""
    return F.layer_norm(features, features.shape[-1:])


def _check(delta: float, **weights: float) -> None:
    if not delta > 0:
        raise UserError(f"delta={delta} must be above zero: from there, squares become absolute values.")
    for name, weight in weights.items():
        if not weight >= 0:
            raise UserError(f"{name}={weight} must be zero or more: 0 leaves the term out.")
    if weights["pooled_weight"] == weights["places_weight"] == 0:
        raise UserError(
            "With pooled_weight=0 and places_weight=0 nothing is learned from the teacher: choose supervised."
        )
