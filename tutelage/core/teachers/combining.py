"""How the answers of several teachers become one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from tutelage.data.criterion import Criterion
from tutelage.data.dataset import Data
from tutelage.errors import UserError, unknown
from tutelage.losses import UNLABELLED

How = Literal["mean", "weighted", "surest", "label"]


@dataclass(frozen=True)
class Together:
    """How several teachers answer together.

    Attributes:
        how: `mean` is the task's mean of all answers, of probabilities the log of their mean; `weighted` a weighted
            mean of the answers themselves, such as logits; `surest` the answer of one teacher for each sample, the one
            with the largest probability; `label` that of the one which gives the label the largest probability.
        weights: For `weighted`: one for each teacher; all count the same by default.

    Raises:
        UserError: If there is no such way, or the weights are negative, all zero or not for it.
    """

    how: How = "mean"
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise unknown("way for teachers to answer together", self.how, get_args(How))
        if self.weights and self.how != "weighted":
            raise UserError(f"teacher_weights are for teachers=weighted, not for teachers={self.how}.")
        sound = all(0 <= weight < math.inf for weight in self.weights) and any(self.weights)
        if self.weights and not sound:
            raise UserError(f"teacher_weights={list(self.weights)} must be zero or more, and one of them above zero.")

    @property
    def name(self) -> str | None:
        """What tells it from the mean; None if it is the mean."""
        return None if self.how == "mean" else " ".join([self.how, *map(str, self.weights)])

    def check_count(self, teachers: int) -> None:
        """Refuse a number of teachers for which it makes no sense.

        Raises:
            UserError: If there are fewer than two, but for the mean, or not as many as weights.
        """
        if self.how != "mean" and teachers < 2:
            raise UserError(f"teachers={self.how} is for several teachers: name two or more (--teacher A B).")
        if self.weights and len(self.weights) != teachers:
            raise UserError(
                f"There are {teachers} teachers and {len(self.weights)} teacher_weights: give each teacher one."
            )

    def check_serves(self, data: Data) -> None:
        """Refuse data on which teachers cannot be chosen in this way.

        Raises:
            UserError: If the answers are no scores of classes, or the samples have no class.
        """
        needed = {"surest": "classes", "label": "labels"}.get(self.how)
        if needed is not None and needed not in data.offers:
            raise UserError(
                f"teachers={self.how} chooses by probabilities of {needed}, which {data.name} ({data.task.title}) does "
                "not have: take teachers=mean or teachers=weighted."
            )

    def combined(self, members: Tensor, criterion: Criterion, targets: Any = None) -> Tensor:
        """Return one answer, `[batch, class, ...]`.

        Args:
            members: The teachers' answers, `[member, batch, class, ...]`.
            criterion: What the task makes of answers.
            targets: The batch's targets, for `label`.
        """
        match self.how:
            case "mean":
                return criterion.mean(members)
            case "weighted":
                return weighted_mean(members, self.weights)
            case "surest":
                return chosen(members, surest(members))
            case "label":
                return chosen(members, rightest(members, targets))


MEAN = Together()


def weighted_mean(members: Tensor, weights: Sequence[float] = ()) -> Tensor:
    """Return the weighted mean of the members' answers, `[batch, ...]`.

    Args:
        members: `[member, batch, ...]`.
        weights: One for each member, of any sum; equal ones by default.
    """
    if not weights:
        return members.mean(0)
    shares = torch.tensor(weights, dtype=members.dtype, device=members.device)
    mean: Tensor = torch.tensordot(shares / shares.sum(), members, 1)
    return mean


def surest(members: Tensor) -> Tensor:
    """Return which member gives some class the largest probability, `[batch, ...]`; of several the first.

    Args:
        members: Logits `[member, batch, class, ...]`.
    """
    return members.log_softmax(2).amax(2).argmax(0)


def rightest(members: Tensor, labels: Tensor) -> Tensor:
    """Return which member gives the label the largest probability, `[batch, ...]`; without a label, the surest.

    Args:
        members: Logits `[member, batch, class, ...]`.
        labels: Class indices `[batch, ...]`, -1 where there is none; or probabilities `[batch, class, ...]`, of which
            the mean log-probability counts.
    """
    log_p = members.log_softmax(2)
    if labels.is_floating_point():
        return (labels * log_p).sum(2).argmax(0)
    own = labels.clamp(min=0)[None, :, None].expand(len(members), -1, -1, *labels.shape[1:])
    return torch.where(labels == UNLABELLED, surest(members), log_p.gather(2, own)[:, :, 0].argmax(0))


def chosen(members: Tensor, which: Tensor) -> Tensor:
    """Return the answer of one member for each sample and place, `[batch, class, ...]`.

    Args:
        members: `[member, batch, class, ...]`.
        which: Number of the member, `[batch, ...]`.
    """
    return members.gather(0, which[None, :, None].expand(1, -1, members.shape[2], *which.shape[1:]))[0]
