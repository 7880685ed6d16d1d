"""MSD: all exits of a network teach each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method, Progress
from tutelage.core.pairing import AUTO
from tutelage.core.registry import Paper, register
from tutelage.core.schedules import Schedule, cosine
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.losses import check_temperature, wide
from tutelage.methods.kd import check_soft_term
from tutelage.methods.parts.exits import attach

MSD_PAPER = Paper(
    key="luan2019msd",
    title="MSD: Multi-Self-Distillation Learning via Multi-classifiers within Deep Neural Networks",
    authors="Luan, Yunteng and Zhao, Hanyu and Yang, Zhi and Dai, Yafei",
    venue="arXiv preprint arXiv:1911.09418",
    year=2019,
    arxiv="1911.09418",
)

Annealing = Literal["meant", "printed"]


@register(
    "msd",
    papers=[MSD_PAPER],
    losses=["mutual_kl", "feature_term"],
    reads={"targets", "classes", "sample-answers"},
    family="self",
)
class MSD(Method):
    r"""Multi-self-distillation: every exit of a network learns from every other.

    $$ L = (1 - \alpha) \sum_n H(q, p^n) + \frac{\alpha \tau^2}{N - 1} \sum_i \sum_{j \ne i}
    \mathrm{KL}(p^i_\tau \,\|\, p^j_\tau) + \beta \sum_{n < N} \|F_n - F_N\|^2, \quad
    \beta = \tfrac12 (1 + \cos \pi f) (\beta_b - \beta_e) + \beta_e $$

    $f$ is the share of the run that is done. Exit $N$ is the network's own classifier. Every other one has a branch of
    its own behind a stage: one residual block for each later stage, with the channels and the stride of that stage,
    then the mean over the places $F_n$, as wide as the classifier's input $F_N$, and a classifier. Gradients flow into
    both sides of each term. The network ships without the branches; each shallow exit ships as a network that ends
    there. `ensemble` is the log of the mean probability over all exits.

    The squared distances are summed over the channels, and are means over the batch.

    Args:
        student: The network to train; its classifier must be found, and it must have two stages.
        example: Inputs for one forward pass, from which stages and shapes are known.
        alpha: Share of the soft terms.
        temperature: $\tau$, above zero.
        beta_start: $\beta_b$, weight of the feature term at the start.
        beta_end: $\beta_e$, its weight at the end.
        annealing: `meant`, or `printed`: $\tfrac12 (1 + \cos(\pi f) (\beta_b - \beta_e)) + \beta_e$, which begins near
            one half for any small $\beta_b$, and stays there.
        t_squared: Whether the soft terms carry $\tau^2$.
        detach: Whether the first side of each soft term, and $F_N$, are targets without gradient.
        exits: The layers behind which the shallow exits are, joined by `+`; `auto` takes the ends of all stages but
            the last.
        separable: Whether the branches' large convolutions work on one channel each. Dense ones may cost more than what
            a shallow exit saves, where the network is itself of separable or of few convolutions.

    Raises:
        UserError: If the network has one stage or no classifier that can be found, a layer does not exist, or a number
            is out of its range.

    Paper: Luan et al., MSD: Multi-Self-Distillation Learning via Multi-classifiers within Deep Neural Networks, 2019.

    Differences: The paper's values of $\alpha$, $\tau$, $\beta_b$ and $\beta_e$ were not found, nor its reduction over
        the batch: $\alpha$ and $\tau$ are those of an author's code for BYOT, whose feature weight, times its batch of
        128, is about our mean $\beta$. Its soft term carries $\tau^2$, which the printed formula lacks
        (`t_squared=False`). The printed annealing has a parenthesis in the wrong place. $\beta$ changes with each step,
        where the paper's changes with each epoch. The paper says nothing of stopped gradients. A branch's blocks are a
        ResNet's whatever the network; a 1x1 convolution follows where the last stage is not as wide as the classifier's
        input, or that has negative values (transformers). The exits are found for any network: maps of one place, and a
        stem of one convolution, have none.
    """

    def __init__(
        self,
        student: nn.Module,
        example: Any,
        *,
        alpha: float = 0.1,
        temperature: float = 3.0,
        beta_start: float = 2e-4,
        beta_end: float = 0.0,
        annealing: Annealing = "meant",
        t_squared: bool = True,
        detach: bool = False,
        exits: str = AUTO,
        separable: bool = False,
    ) -> None:
        check_soft_term(alpha, temperature)
        if not (beta_start >= 0 and beta_end >= 0):
            raise UserError(f"beta_start={beta_start} and beta_end={beta_end} must be zero or more.")
        # The weight of the features is the only one that changes during the run.
        beta = cosine(beta_start, beta_end) if annealing == "meant" else printed(beta_start, beta_end)
        super().__init__({"ce": 1 - alpha, "soft": alpha, "feature": beta})
        self.temperature, self.t_squared, self.detach = temperature, t_squared, detach
        self.student, self.exits = attach(student, example, kind="residual", exits=exits, separable=separable)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the sums over the exits of cross-entropies, as `ce`, and of `soft` and `feature` terms."""
        answers = self.exits(self.student(batch.inputs))
        logits = [answer.logits for answer in answers]
        soft = mutual_kl(logits, self.temperature, detach=self.detach)
        return {
            "ce": torch.stack([batch.loss(one) for one in logits]).sum(),
            "soft": soft * self.temperature**2 if self.t_squared else soft,
            "feature": feature_term([answer.embedding for answer in answers], detach=self.detach),
        }

    def forward(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return the logits of the deepest exit as `student`, those of `exit-1` (shallowest) and on, and `ensemble`."""
        predictions: dict[str, Tensor] = self.exits.predictions(self.student(inputs))
        return predictions

    def members(self) -> Mapping[str, nn.Module]:
        """Return a network for each shallow exit, which ends there."""
        members: dict[str, nn.Module] = self.exits.members(self.student.release())
        return members


def mutual_kl(logits: Sequence[Tensor], temperature: float, *, detach: bool = False) -> Tensor:
    r"""Return $\frac{1}{N-1} \sum_i \sum_{j \ne i} \mathrm{KL}(p^i_\tau \,\|\, p^j_\tau)$.

    It is the mean over the batch and its places.

    Args:
        logits: Logits of each exit, two or more, `[batch, class]` (or `[batch, class, ...]`).
        temperature: $\tau$.
        detach: Whether $p^i$ is a target, into which no gradient flows.

    Raises:
        ValueError: If the temperature is not above zero.
    """
    check_temperature(temperature)
    logs = [F.log_softmax(wide(one) / temperature, dim=1) for one in logits]
    # Rows are the samples times their places: sums over classes, means over the rest.
    total, rows = logs[0].new_zeros(()), logs[0].numel() // logs[0].shape[1]
    for one, other in combinations(logs, 2):
        # Each side is a target once, so the two directions cannot share one product.
        if detach:
            for target, log in ((one.detach(), other), (other.detach(), one)):
                total = total + F.kl_div(log, target, reduction="sum", log_target=True) / rows
        else:
            # Both directions in one product: no large numbers cancel where the two answers agree.
            total = total + ((one.exp() - other.exp()) * (one - other)).sum() / rows
    return total / (len(logs) - 1)


def feature_term(embeddings: Sequence[Tensor], *, detach: bool = False) -> Tensor:
    r"""Return $\sum_{n < N} \|F_n - F_N\|^2$, the mean over the batch.

    Args:
        embeddings: What the classifiers of all exits read, the deepest last, each `[batch, channel]`.
        detach: Whether $F_N$ is a target, into which no gradient flows.
    """
    deepest = wide(embeddings[-1])
    # The paper says nothing of stopped gradients, so by default the deepest exit learns from the shallow ones as well.
    deepest = deepest.detach() if detach else deepest
    gaps = torch.stack([wide(embedding) - deepest for embedding in embeddings[:-1]])
    return gaps.square().sum() / len(deepest)


def printed(start: float, end: float) -> Schedule:
    r"""Return the schedule as the paper prints it, $\tfrac12 (1 + \cos(\pi f) (\beta_b - \beta_e)) + \beta_e$."""

    def value(progress: Progress) -> float:
        # As printed: the parenthesis closes behind the weights instead of behind the cosine.
        return 0.5 * (1 + math.cos(math.pi * progress.fraction) * (start - end)) + end

    return value
