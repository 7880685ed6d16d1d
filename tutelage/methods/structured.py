"""Structured distillation: a student of pixels matches answers, how places are alike, and what a critic sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.logit_maps import reading_logit_maps
from tutelage.core.method import Method, OptimizerSpec, Progress, Update
from tutelage.core.pairing import AUTO, LayerPair, Seen, pair
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.logit_map import logit_map
from tutelage.features.maps import pool_to_smaller
from tutelage.features.trace import Trace
from tutelage.losses import kd_loss, soft_cross_entropy, wide
from tutelage.methods.parts.affinity import nodes_of, pairwise_bytes, pairwise_loss
from tutelage.methods.parts.critic import Critic, Game, critic_loss, gradient_penalty, judged

STRUCTURED = Paper(
    key="liu2019structured",
    title="Structured Knowledge Distillation for Semantic Segmentation",
    authors="Liu, Yifan and Chen, Ke and Liu, Chris and Qin, Zengchang and Luo, Zhenbo and Wang, Jingdong",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2019,
    arxiv="1903.04197",
)
CRITIC = "critic"
_PENALTY = 10.0
_PIXEL_WEIGHT = 10.0
_PATCH = 2

Variant = Literal["paper", "code"]


@register(
    "structured",
    papers=[STRUCTURED],
    reads={"answers", "maps", "images"},
    uses={"targets"},
    reads_if={"pixel_weight": {"classes"}},
    family="relations",
    losses=["kd_loss", "pairwise_loss", "critic_loss"],
    exceptions={"parts-of-a-batch-add-up": "the points of the gradient penalty are drawn anew for each part"},
)
class Structured(Method):
    r"""Structured distillation: pixels' answers, how places are alike, and a critic of whole maps of answers.

    $$ L = H(q, p) + \lambda_1 L_{pi} + \lambda_2 L_{pa} - \lambda_3 E[D(S)], \qquad
       L_{pi} = \mathrm{KL}(p^t \,\|\, p^s), \quad
       L_{pa} = \frac{1}{R^2} \sum_{i,j} (a^s_{ij} - a^t_{ij})^2, \quad a_{ij} = \cos(f_i, f_j) $$

    The critic $D$ minimises $E[D(S)] - E[D(T)] + 10 \, E[(\|\nabla D\| - 1)^2]$. $f_i$ are nodes: pooled patches of the
    map before the classifier, of which both networks may have any width. The student steps first, then the critic, once
    a batch each. A weight of zero leaves its term out. Images without labels learn by all terms but the first.

    Maps of one number a place, such as depths, have no $L_{pi}$, as in the paper: their pixels learn from the targets.
    The critic judges the numbers themselves.

    Two variants differ in what the paper writes and the authors' code does:

    | | `paper` | `code` |
    |---|---|---|
    | pixels | KL divergence, the mean over the batch | cross-entropy, the sum over the batch |
    | nodes | averages of patches of 2x2 places | maxima of patches of half the map's sides |
    | lengths of nodes | with a gradient | constants for the gradient |
    | the critic judges | probabilities beside the image | logits alone |
    | the critic's layers | batch norm, ReLU | spectral norm, leaky ReLU |
    | the critic's own loss | as it is | times $\lambda_3$ |

    Args:
        student: The network to train.
        teacher: A teacher with a network inside.
        example: Inputs for one forward pass.
        pixel_weight: $\lambda_1$ of the pixels' answers; by default 10, as the paper and the code have, and 0 for maps
            of one number a place.
        pair_weight: $\lambda_2$ of the pairs; the paper has 10, the authors' run 0.5.
        holistic_weight: $\lambda_3$ of the critic; the paper and the code have 0.1.
        variant: `paper` or `code`, as above.
        layers: The layer whose nodes are compared: `auto` is the input of the classifier; or a pair,
            `student:teacher`.
        patch: Side of a node's patch in places; by default 2 for `paper` and half of each side for `code`.
        adversarial: `wgan-gp`, or `hinge`, which has no gradient penalty.
        critic_lr_scale: The critic's learning rate, as a share of the student's: 0.04 is 4e-4 to 0.01.

    Raises:
        UserError: If a hyper-parameter is out of range, or all three weights are zero.

    Paper: Liu et al., Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019; Structured Knowledge
        Distillation for Dense Prediction, TPAMI 2020.

    Differences: The paper prints $\mathrm{KL}(p^s \| p^t)$; its code minimises the other order, as all distillation
        does, and so does `paper` here. The normaliser of $L_{pa}$ is printed upside down; here it is the number of
        pairs. All nodes are compared with all others, the best of the paper's neighbourhoods. Maps of logits are
        compared at the stride at which they are computed. Nodes shorter than 3e-4 hold rounding errors, and count as
        zeros. Where a map is too small for the critic's five convolutions, it is enlarged, and the last kernel is as
        large as what is left; 0.01 is added to the variances of its batch norms. The default is `code`, to which the
        published numbers belong: batch norms in a critic, as in `paper`, make its gradient penalty unstable. The paper
        gives no weight of $L_{pa}$ apart from $\lambda_1$; the default is that of the authors' run. In `code`, weights
        depend on the batch size, as they do there. The auxiliary head's loss is every method's, with the weight of 0.4
        that it has there. `hinge` is not in the paper.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        pixel_weight: float | None = None,
        pair_weight: float = 0.5,
        holistic_weight: float = 0.1,
        variant: Variant = "code",
        layers: str = AUTO,
        patch: int | None = None,
        adversarial: Game = "wgan-gp",
        critic_lr_scale: float = 0.04,
    ) -> None:
        trace = Trace.of(student, example)
        outputs = trace.logits.shape[1]
        if pixel_weight is None:
            pixel_weight = _PIXEL_WEIGHT if outputs > 1 else 0.0
        weights = {"pixels": pixel_weight, "pairs": pair_weight, "fooling": holistic_weight}
        _check(weights, patch, critic_lr_scale, outputs)
        taught = {name: weight for name, weight in weights.items() if weight}
        penalised = {"penalty": _PENALTY * (holistic_weight if variant == "code" else 1.0)}
        own = {CRITIC: holistic_weight if variant == "code" else 1.0}
        own |= penalised if adversarial == "wgan-gp" else {}
        super().__init__(taught | (own if holistic_weight else {}))
        self.variant, self.patch, self.adversarial, self.critic_lr_scale = variant, patch, adversarial, critic_lr_scale
        self.pairs = _nodes(student, teacher, layers, example) if pair_weight else ()
        self.student, self.teacher, self._logit_maps = reading_logit_maps(student, teacher, example, self.pairs)
        self.critic: Critic | None = None
        if holistic_weight:
            self.critic = adapting(self._critic_for(example, outputs), student, wide=True)

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield the student's losses, then the critic's on the same maps without gradients."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        ours, theirs = self._logit_maps.of(student, teacher)
        losses = {**batch.supervised(student.logits), **self.auxiliary(batch)}
        if "pixels" in self.weights:
            losses["pixels"] = self._pixels(ours, theirs)
        if self.pairs:
            losses["pairs"] = self._pairs(student, teacher)
        if self.critic is None:
            yield Update(losses)
            return
        images = batch.inputs if self.variant == "paper" else None
        real, fake = judged(theirs.detach(), images), judged(ours, images)
        yield Update(losses | {"fooling": -self.critic(fake).mean()})
        fake = fake.detach()
        told = {CRITIC: critic_loss(self.critic(real), self.critic(fake), self.adversarial)}
        if self.adversarial == "wgan-gp":
            share = torch.rand(len(real), device=real.device, dtype=real.dtype)
            told["penalty"] = gradient_penalty(self.critic, real, fake, share)
        yield Update(told, CRITIC)

    def optimizers(self) -> Mapping[str, OptimizerSpec]:
        """Return the run's optimizer of the student, and one of the critic with a learning rate of its own."""
        critic = [] if self.critic is None else list(self.critic.parameters())
        known = {id(parameter) for parameter in critic}
        ours = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        found = {"student": OptimizerSpec(params=ours)}
        return found | ({CRITIC: OptimizerSpec(params=critic, lr_scale=self.critic_lr_scale)} if critic else {})

    def memory_of_terms(self, samples: int) -> Mapping[str, int]:
        """Return the memory of the pairs of nodes."""
        if not self.pairs:
            return {}
        one = self.pairs[0]
        size = tuple(min(sides) for sides in zip(one.student.size, one.teacher.size))
        nodes = math.prod(-(-side // step) for side, step in zip(size, self._patch((size[0], size[1]))))
        return {"pairs": pairwise_bytes(samples, nodes, (one.student.channels, one.teacher.channels))}

    def _pixels(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.variant == "code":
            return soft_cross_entropy(student, teacher, 1.0) * len(student)
        return kd_loss(student, teacher, 1.0)

    def _pairs(self, student: Output, teacher: Output) -> Tensor:
        is_code = self.variant == "code"
        maps = self.pairs[0].maps(student, teacher)
        if maps[0].shape[2:] != maps[1].shape[2:]:
            maps = pool_to_smaller(wide(maps[0]), wide(maps[1]))
        patch = self._patch((maps[1].shape[2], maps[1].shape[3]))
        ours, theirs = (nodes_of(one, patch, "max" if is_code else "average") for one in maps)
        return pairwise_loss(ours, theirs, detach_norm=is_code)

    def _patch(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of a node's patch on a map of a size."""
        if self.patch is not None:
            return self.patch, self.patch
        if self.variant == "paper":
            return _PATCH, _PATCH
        return max(1, size[0] // 2), max(1, size[1] // 2)

    def _critic_for(self, example: Any, outputs: int) -> Critic:
        layers = (self._logit_maps.student, self.student), (self._logit_maps.teacher, self.teacher)
        shapes = [example.shape if layer is None else network.shapes[layer] for layer, network in layers]
        height, width = (min(shape[side] for shape in shapes) for side in (2, 3))
        channels = outputs + (example.shape[1] if self.variant == "paper" else 0)
        return Critic(channels, (height, width), spectral=self.variant == "code")


def _nodes(student: nn.Module, teacher: Teacher, layers: str, example: Any) -> tuple[LayerPair, ...]:
    """Return the pair of layers whose nodes are compared: the classifiers' inputs, or else the last stages."""
    seen = Seen.of(student, teacher, example)
    if layers == AUTO:
        found = logit_map(student, seen.student), logit_map(teacher.inner_network(), seen.teacher)
        if None not in found:
            layers = ":".join(f"{name}:in" for name in found)
    return pair(student, teacher, layers, seen, take="last").pairs[:1]


def _check(weights: Mapping[str, float], patch: int | None, critic_lr_scale: float, outputs: int) -> None:
    for name, weight in weights.items():
        if not weight >= 0:
            raise UserError(f"The weight of {name} is {weight}: it must be zero or more, and zero leaves the term out.")
    if outputs == 1 and weights["pixels"]:
        raise UserError(
            f"pixel_weight={weights['pixels']:g} compares probabilities of classes, and the student answers each place "
            "with one number: leave it out."
        )
    if not any(weights.values()):
        raise UserError("All three weights are zero, which leaves nothing of the teacher: choose supervised.")
    if (patch is not None and patch < 1) or not critic_lr_scale > 0:
        raise UserError(f"patch={patch} and critic_lr_scale={critic_lr_scale} must be above zero.")
