"""UNIX: samples are scored, sorted, mixed and cut before they are distilled."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import UNLABELLED, kd_loss, wide
from tutelage.models.modes import keeping_statistics

XU = Paper(
    key="xu2020computation",
    title="Computation-Efficient Knowledge Distillation via Uncertainty-Aware Mixup",
    authors="Xu, Guodong and Liu, Ziwei and Loy, Chen Change",
    venue="arXiv preprint arXiv:2012.09413",
    year=2020,
    arxiv="2012.09413",
)

Strategy = Literal["entropy", "confidence", "margin", "random"]


@register(
    "unix",
    papers=[XU],
    losses=["kd_loss", "mixed_cross_entropy"],
    reads={"images", "classes"},
    reads_if={"ce_weight": {"labels"}},
    family="logits",
    exceptions={
        "accepts-other-teachers": "a recorded answer belongs to one image, and the teacher is asked about two in one",
        "parts-of-a-batch-add-up": "a batch is sorted, cut and mixed within itself",
    },
)
class UNIX(Method):
    r"""UNIX: distillation on fewer samples, mixed more strongly the more certain the student is of them.

    The student answers a batch of $n$ without a gradient. Its samples are sorted, the most uncertain first; sample $i$
    is mixed with a random one of the batch, and the last are left out:

    $$ \tilde x_i = (1 - \lambda c_i) \, x_{r(i)} + \lambda c_i \, x_{\pi(i)}, \quad
    c_i = \sigma\Big(w \Big(\frac{i}{n} - \frac{2b - 1}{2n}\Big)\Big), \quad \lambda \sim U(0, 1), \quad i < k $$

    $$ L = \frac{T^2}{k} \sum_{i < k} \mathrm{KL}(p^t_T(\tilde x_i) \,\|\, p^s_T(\tilde x_i)) + \beta L_{CE}, \quad
    L_{CE} = \frac{1}{k} \sum_{i < k} \big[ (1 - \lambda c_i) H(y_{r(i)}, p) + \lambda c_i H(y_{\pi(i)}, p) \big] $$

    $r$ sorts, $\pi$ is a random permutation, $\lambda$ is one number a batch. Both networks answer $k$ mixtures instead
    of $n$ images: `compute_ratio` gives what that saves, with the cost of the scoring.

    Args:
        student: The network to train.
        teacher: Any live teacher that gives logits; it is asked about the mixtures.
        strategy: What uncertain means: the highest `entropy`, the lowest `confidence` (largest probability), the
            lowest `margin` (difference of the two largest); `random` scores nothing.
        steepness: $w$, zero or more: how fast the mixing grows along the order.
        pivot: $b / n$, from 0 to 1: the share of the batch that is mixed by less than half of $\lambda$.
        kept: $k / n$, above 0, up to 1: the share of the batch that is trained on.
        temperature: $T$, above zero.
        ce_weight: $\beta$, zero or more. At zero, no labels are needed.
        scoring_statistics: Whether the running statistics of batch norm are `kept` while the student scores, so that
            they move once a step, with the mixtures; or `updated` by both.

    Raises:
        UserError: If a number is out of its range, the inputs are not images, or the teacher's answers are recorded.

    Paper: Xu, Liu, Loy, Computation-Efficient Knowledge Distillation via Uncertainty-Aware Mixup, arXiv 2012.09413;
        Pattern Recognition, 2023.

    Differences: The authors' code fixes $n = 64$, $b = 32$, $k = 48$; here they are shares, rounded to samples. Its
        scoring moves the running statistics of batch norm as well: `scoring_statistics="updated"`. Its baseline, KD by
        the same code, is `strategy="random", pivot=1, kept=1, steepness=1000`, where $\lambda c_i$ is below 0.0005 in a
        batch of 64; ours then scores nothing. The margin is one of probabilities, which is our reading. Uncertainty is
        computed in log-space, where the entropy of a sure answer is finite. Several processes sort and mix their own
        parts of a batch.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        *,
        strategy: Strategy = "entropy",
        steepness: float = 10.0,
        pivot: float = 0.5,
        kept: float = 0.75,
        temperature: float = 4.0,
        ce_weight: float = 0.0,
        scoring_statistics: Literal["kept", "updated"] = "kept",
    ) -> None:
        _check(steepness, pivot, kept, temperature, ce_weight)
        teacher.must_be_live("unix asks the teacher about mixtures of images")
        super().__init__({"ce": ce_weight} if ce_weight else {})
        self.student, self.teacher = FeatureExtractor(student), teacher
        self.strategy, self.steepness, self.pivot, self.kept = strategy, steepness, pivot, kept
        self.temperature, self.scoring_statistics = temperature, scoring_statistics

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the soft term as `kd` and, if it has a weight, the mixed cross-entropy as `ce`."""
        samples, device = len(batch), _images(batch.inputs).device
        share = mixing_shares(samples, self.steepness, self.pivot, self.kept, device=device)
        # The authors draw from Beta(1, 1), which is this uniform distribution.
        share = torch.rand((), device=device) * share
        # The surest samples come last and are left out.
        first = self._order(batch)[: len(share)]
        second = torch.randperm(samples, device=device)[: len(share)]
        asked = None if batch.teacher_inputs is None else mix(batch.teacher_inputs, first, second, share)
        # Nothing else of the batch is passed on: it belongs to single samples, and a mixture is none of them.
        mixed = Batch(inputs=mix(batch.inputs, first, second, share), teacher_inputs=asked)
        # The teacher answers the mixtures themselves: its answer to a mixture is not the mixture of its answers.
        student, teacher = self.student(mixed.inputs).logits, self.teacher(mixed).logits
        losses = {"kd": kd_loss(student, teacher, self.temperature)}
        if "ce" in self.weights:
            losses["ce"] = mixed_cross_entropy(student, batch.labels[first], batch.labels[second], share)
        return losses

    @torch.no_grad()
    def _order(self, batch: Batch) -> Tensor:
        """Return the samples of a batch, the most uncertain first, `[batch]`."""
        if self.strategy == "random":
            return torch.randperm(len(batch), device=_images(batch.inputs).device)
        with keeping_statistics(self.student) if self.scoring_statistics == "kept" else nullcontext():
            # In the mode of training, as in the authors' code; only the running statistics may stay.
            logits = self.student(batch.inputs).logits
        # Autocast keeps the weights cast above, in some versions without gradients, and would use them again.
        torch.clear_autocast_cache()
        return uncertainty(logits, self.strategy).argsort(descending=True, stable=True)


def uncertainty(logits: Tensor, strategy: Literal["entropy", "confidence", "margin"]) -> Tensor:
    r"""Return the uncertainty of answers, `[batch]`: the entropy, $-\log \max_c p_c$, or the negative margin.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`, of which the mean over the places is returned).
        strategy: The measure: `entropy`, `confidence` (largest probability) or `margin` (of the two largest).
    """
    log_p = F.log_softmax(wide(logits), dim=1)
    match strategy:
        case "entropy":
            # From log-probabilities, so that a probability of zero adds zero.
            found = -(log_p.exp() * log_p).sum(1)
        case "confidence":
            # Sorting by -log(max p) gives the same order as sorting by 1 - max p.
            found = -log_p.amax(1)
        case "margin":
            largest = log_p.exp().topk(2, dim=1).values
            found = largest[:, 1] - largest[:, 0]
    return found if found.ndim == 1 else found.flatten(1).mean(1)


def mixing_shares(
    samples: int, steepness: float, pivot: float, kept: float, *, device: torch.device | str = "cpu"
) -> Tensor:
    r"""Return $c_i = \sigma(w (i/n - (2b - 1) / 2n))$ of the first $k$ samples in the order, `[k]`, in float32.

    Args:
        samples: Samples $n$ in the batch.
        steepness: $w$.
        pivot: $b / n$.
        kept: $k / n$.
        device: Where to compute it.
    """
    # i of the equation, for the samples that are kept.
    rank = torch.arange(kept_samples(kept, samples), device=device, dtype=torch.float32)
    # (2b - 1) / 2n is (b - 1/2) / n.
    return torch.sigmoid(steepness * ((rank - round(pivot * samples) + 0.5) / samples))


def mix(images: Any, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    r"""Return $(1 - s_i) \, x_{r(i)} + s_i \, x_{\pi(i)}$, `[k, ...]`, computed in float32, in the images' dtype.

    Args:
        images: $x$, `[batch, ...]`, floats.
        first: $r$, `[k]`.
        second: $\pi$, `[k]`.
        share: $s$, `[k]`, from 0 to 1.

    Raises:
        UserError: If the images are not floats.
    """
    images = _images(images)
    one, other = wide(images[first]), wide(images[second])
    return torch.lerp(one, other, share.to(one.dtype).view(-1, *[1] * (images.ndim - 1))).to(images.dtype)


def mixed_cross_entropy(logits: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    r"""Return $(1 - s) H(y, p) + s H(y', p)$, the mean over batch and places where both labels are known.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`).
        first: Class indices $y$, `[batch]` (or `[batch, ...]`), -1 where there is none.
        second: Class indices $y'$ of the same shape, -1 where there is none.
        share: $s$, `[batch]`.
    """
    one, other = (
        F.cross_entropy(wide(logits), labels, reduction="none", ignore_index=UNLABELLED) for labels in (first, second)
    )
    # A mixture counts only if both of its labels are known.
    known, share = (first != UNLABELLED) & (second != UNLABELLED), share.view(-1, *[1] * (one.ndim - 1))
    return ((1 - share) * one + share * other).where(known, 0.0).sum() / known.sum().clamp(min=1)


def kept_samples(kept: float, batch_size: int) -> int:
    """Return how many samples of a batch are trained on, at least one.

    Args:
        kept: Their share.
        batch_size: Samples in the batch.
    """
    return max(1, round(kept * batch_size))


def compute_ratio(kept: float, batch_size: int, rho: float) -> float:
    r"""Return the computation of UNIX as a share of KD's, $k/n + 1/(\rho + 2)$.

    The authors count a student's forward and backward pass as two forward passes. A step of KD then costs
    $n (F_t + 2 F_s)$, and one of UNIX $k (F_t + 2 F_s) + n F_s$. With `strategy="random"` the last term is missing.

    Args:
        kept: The share of the batch that is trained on, $k / n$ before it is rounded to samples.
        batch_size: Samples $n$ in a batch.
        rho: $\rho = F_t / F_s$, the multiply-adds of the teacher's forward pass over the student's.
    """
    return kept_samples(kept, batch_size) / batch_size + 1 / (rho + 2)


def _images(inputs: Any) -> Tensor:
    if not (isinstance(inputs, Tensor) and inputs.is_floating_point()):
        raise UserError("unix mixes images, which are tensors of floats: for other inputs, choose a method such as kd.")
    return inputs


def _check(steepness: float, pivot: float, kept: float, temperature: float, ce_weight: float) -> None:
    if not 0 < kept <= 1:
        raise UserError(f"kept={kept} must be a share of the batch, above 0 and up to 1: 0.75 is 48 samples of 64.")
    if not 0 <= pivot <= 1:
        raise UserError(f"pivot={pivot} must be a share of the batch, from 0 to 1: 0.5 is 32 samples of 64.")
    if not temperature > 0:
        raise UserError(f"temperature={temperature} must be above zero.")
    for name, value in (("steepness", steepness), ("ce_weight", ce_weight)):
        if not value >= 0:
            raise UserError(f"{name}={value} must be zero or more.")
