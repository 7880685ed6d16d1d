"""BYOT: the deepest exit of a network teaches its shallow exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO
from tutelage.core.registry import Paper, register
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.losses import kd_loss, soft_cross_entropy, wide
from tutelage.methods.kd import check_soft_term
from tutelage.methods.parts.exits import attach

BYOT_PAPER = Paper(
    key="zhang2019your",
    title="Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation",
    authors="Zhang, Linfeng and Song, Jiebo and Gao, Anni and Chen, Jingwei and Bao, Chenglong and Ma, Kaisheng",
    venue="IEEE/CVF International Conference on Computer Vision",
    year=2019,
    arxiv="1905.08094",
)

Variant = Literal["paper", "code", "journal"]


class _Constants(NamedTuple):
    alpha: float
    feature_weight: float


# Where these come from is told under Differences.
_CONSTANTS: Mapping[Variant, _Constants] = {
    "paper": _Constants(0.3, 1e-4),
    "code": _Constants(0.1, 1e-6),
    "journal": _Constants(0.3, 0.03),
}


@register(
    "byot",
    papers=[BYOT_PAPER],
    losses=["kd_loss", "feature_term"],
    reads={"targets", "classes", "sample-answers"},
    family="self",
)
class BYOT(Method):
    r"""Be Your Own Teacher: a network's deepest exit teaches the exits behind its earlier stages.

    $$ L = H(q, p^C) + \sum_{i < C} \left[ (1 - \alpha) H(q, p^i) + \alpha T^2 \, \mathrm{KL}(p^C_T \,\|\, p^i_T)
    + \lambda \|F_i - F_C\|^2 \right] $$

    Exit $C$ is the network's own classifier. Every other one has a branch of its own behind a stage: three
    convolutions, the mean over the places $F_i$, as wide as the classifier's input $F_C$, and a classifier. The answer
    of exit $C$ is a target without gradient. The network ships without the branches; each shallow exit ships as a
    network that ends there. `ensemble` is the log of the mean probability over all exits.

    The feature term, summed over the shallow exits, is by variant:

    - `paper`: squared distance, summed over the channels, the mean over the batch.
    - `code`: the same summed over the batch too, and only where $F_i$ or $F_C$ is above zero. The soft term is the
      cross-entropy with $p^C_T$ as target, times $T^2$; $1 - \alpha$ weighs the deepest cross-entropy too. This is a
      released re-implementation, by an author of MSD.
    - `journal`: the length of the difference over the whole batch, not squared, and none for the exit next to the
      deepest. The soft term is the cross-entropy with $p^C_T$ as target, without $T^2$. This is the code that the
      author released for a later version.

    Args:
        student: The network to train; its classifier must be found, and it must have two stages.
        example: Inputs for one forward pass, from which stages and shapes are known.
        variant: Which losses, `paper`, `code` or `journal`.
        alpha: Share of the soft term; by default 0.3 for `paper` and `journal`, 0.1 for `code`.
        temperature: $T$, above zero.
        feature_weight: $\lambda$; by default 1e-4 for `paper`, 1e-6 for `code`, 0.03 for `journal`.
        t_squared: Whether the soft term of `paper` carries $T^2$; the other variants have their own.
        exits: The layers behind which the shallow exits are, joined by `+`; `auto` takes the ends of all stages but
            the last.
        separable: Whether the branches' large convolutions work on one channel each. Dense ones may cost more than what
            a shallow exit saves, where the network is itself of separable or of few convolutions.

    Raises:
        UserError: If the network has one stage or no classifier that can be found, a layer does not exist, or a number
            is out of its range.

    Paper: Zhang et al., Be Your Own Teacher, ICCV 2019.

    Differences: The paper gives no values of $\alpha$, $T$ and $\lambda$ and no branch; whether its soft term carries
        $T^2$, and how its feature term is reduced over the batch, was not found. In all variants the branch is that of
        `code`, without the modules that this code never uses; `journal` has other branches, with attention, and
        adapters between the widths. The defaults of `paper` are the journal code's $\alpha$ and $T$, and about the
        $\lambda$ of `code` times its batch of 128. The journal code skips one exit's feature term: by its comment the
        shallowest, in fact the one next to the deepest, as here. It reports the mean of the exits' logits as the
        ensemble. The branch ends without a ReLU where the classifier's input has negative values (transformers); where
        sizes do not divide, the map is pooled first. Of several processes each takes the sums of `code` and the length
        of `journal` over its own part of the batch. The exits are found for any network: maps of one place, and a stem
        of one convolution, have none.
    """

    def __init__(
        self,
        student: nn.Module,
        example: Any,
        *,
        variant: Variant = "paper",
        alpha: float | None = None,
        temperature: float = 3.0,
        feature_weight: float | None = None,
        t_squared: bool = True,
        exits: str = AUTO,
        separable: bool = False,
    ) -> None:
        own = _CONSTANTS[variant]
        alpha = own.alpha if alpha is None else alpha
        feature_weight = own.feature_weight if feature_weight is None else feature_weight
        check_soft_term(alpha, temperature)
        if not feature_weight >= 0:
            raise UserError(f"feature_weight={feature_weight} must be zero or more.")
        # The released re-implementation weighs the cross-entropies of all exits alike.
        deepest = 1 - alpha if variant == "code" else 1.0
        super().__init__({"ce": deepest, "exits": 1 - alpha, "soft": alpha, "feature": feature_weight})
        self.variant, self.temperature, self.t_squared = variant, temperature, t_squared
        self.student, self.exits = attach(student, example, kind="bottleneck", exits=exits, separable=separable)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the deepest cross-entropy as `ce`, and the sums over the shallow exits as `exits`, `soft`, `feature`.

        These are their cross-entropies, soft terms and feature terms.
        """
        # The order of the exits is that of the forward pass, so the deepest is the last.
        *shallow, deepest = self.exits(self.student(batch.inputs))
        return {
            "ce": batch.loss(deepest.logits),
            "exits": torch.stack([batch.loss(answer.logits) for answer in shallow]).sum(),
            "soft": torch.stack([self._soft(answer.logits, deepest.logits) for answer in shallow]).sum(),
            "feature": feature_term([answer.embedding for answer in shallow], deepest.embedding, self.variant),
        }

    def _soft(self, logits: Tensor, target: Tensor) -> Tensor:
        # Both losses stop the gradient at the target: the deepest exit learns nothing from the shallow ones.
        if self.variant == "paper":
            return kd_loss(logits, target, self.temperature, t_squared=self.t_squared)
        loss = soft_cross_entropy(logits, target, self.temperature)
        return loss * self.temperature**2 if self.variant == "code" else loss

    def forward(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return the logits of the deepest exit as `student`, those of `exit-1` (shallowest) and on, and `ensemble`."""
        predictions: dict[str, Tensor] = self.exits.predictions(self.student(inputs))
        return predictions

    def members(self) -> Mapping[str, nn.Module]:
        """Return a network for each shallow exit, which ends there."""
        members: dict[str, nn.Module] = self.exits.members(self.student.release())
        return members


def feature_term(shallow: Sequence[Tensor], deepest: Tensor, variant: Variant) -> Tensor:
    """Return the feature term of a variant, the sum over the shallow exits; no gradient flows into the deepest.

    Args:
        shallow: What the classifiers of the shallow exits read, the shallowest first, each `[batch, channel]`.
        deepest: What that of the deepest exit reads, `[batch, channel]`.
        variant: `paper` takes squared distances, `code` those where a feature is above zero, `journal` plain norms.
    """
    target = wide(deepest.detach())
    # The journal's code skips the exit next to the deepest.
    compared = shallow[:-1] if variant == "journal" else shallow
    gaps = [wide(embedding) - target for embedding in compared]
    match variant:
        case "paper":
            # Only here a mean over the batch: the weights of the other variants belong to sums.
            terms = [gap.square().sum() / len(gap) for gap in gaps]
        case "code":
            above = [(embedding > 0) | (target > 0) for embedding in compared]
            terms = [(gap.square() * one).sum() for gap, one in zip(gaps, above, strict=True)]
        case "journal":
            terms = [torch.linalg.vector_norm(gap) for gap in gaps]
    # With a single shallow exit, the journal's variant compares nothing.
    return torch.stack(terms).sum() if terms else target.new_zeros(())
