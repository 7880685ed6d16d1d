"""Losses of single tokens with their gradients: cross-entropy, and divergences between two answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.losses import LOG_ZERO


class NextToken:
    r"""The cross-entropy $-\log q_y$ of the token $y$ that comes next. A token without one has a loss of 0."""

    def losses(self, student: Tensor, other: Tensor) -> Tensor:
        """Return the losses, `[row]`, of logits `[row, class]` for the right tokens `[row]`, -1 for none."""
        return F.cross_entropy(student, other, reduction="none", ignore_index=-1)

    def gradients(self, student: Tensor, other: Tensor) -> Tensor:
        """Return $q - 1_y$, `[row, class]`."""
        gradient = student.softmax(1)
        rows = torch.arange(len(other), device=other.device)
        gradient[rows, other.clamp(min=0)] -= 1.0
        return gradient.masked_fill_((other < 0)[:, None], 0.0)


@dataclass(frozen=True)
class Forward:
    r"""$\mathrm{KL}(p_T \,\|\, q_T)$ of the teacher's $p$ and the student's $q$.

    Attributes:
        temperature: $T$, which divides both logits.
    """

    temperature: float = 1.0

    def losses(self, student: Tensor, other: Tensor) -> Tensor:
        """Return the divergences, `[row]`, of logits `[row, class]`."""
        q, p = _logs(student, other, self.temperature)
        # Rounding may leave a little less than zero where both are nearly equal.
        return (p.exp() * (p - q)).sum(1).clamp(min=0.0)

    def gradients(self, student: Tensor, other: Tensor) -> Tensor:
        """Return $(q - p) / T$, `[row, class]`."""
        q, p = _logs(student, other, self.temperature)
        return (q.exp_() - p.exp_()).div_(self.temperature)


@dataclass(frozen=True)
class Reverse:
    r"""$\mathrm{KL}(q_T \,\|\, p_T)$ of the teacher's $p$ and the student's $q$.

    Attributes:
        temperature: $T$, which divides both logits.
    """

    temperature: float = 1.0

    def losses(self, student: Tensor, other: Tensor) -> Tensor:
        """Return the divergences, `[row]`, of logits `[row, class]`."""
        q, p = _logs(student, other, self.temperature)
        return (q.exp() * (q - p)).sum(1).clamp(min=0.0)

    def gradients(self, student: Tensor, other: Tensor) -> Tensor:
        r"""Return $q (\log q - \log p - \mathrm{KL}) / T$, `[row, class]`."""
        q, p = _logs(student, other, self.temperature)
        return _centred(q.exp(), q - p).div_(self.temperature)


@dataclass(frozen=True)
class JensenShannon:
    r"""The generalised Jensen-Shannon divergence of the teacher's $p$ and the student's $q$, both softened.

    $$ \beta \, \mathrm{KL}(p \,\|\, m) + (1 - \beta) \, \mathrm{KL}(q \,\|\, m), \quad m = \beta p + (1 - \beta) q $$

    Attributes:
        temperature: $T$, which divides both logits.
        beta: $\beta$, above 0 and below 1: the teacher's share of the mixture $m$.
    """

    temperature: float = 1.0
    beta: float = 0.5

    def losses(self, student: Tensor, other: Tensor) -> Tensor:
        """Return the divergences, `[row]`, of logits `[row, class]`."""
        q, p = _logs(student, other, self.temperature)
        above_teacher, above_student = self._mixed(q - p)
        ours, theirs = (1 - self.beta) * q.exp() * above_student, self.beta * p.exp() * above_teacher
        return -(ours + theirs).sum(1).clamp(max=0.0)

    def gradients(self, student: Tensor, other: Tensor) -> Tensor:
        r"""Return $(1 - \beta) q (\log q - \log m - \mathrm{KL}(q \,\|\, m)) / T$, `[row, class]`."""
        q, p = _logs(student, other, self.temperature)
        _, above = self._mixed(q - p)
        return _centred(q.exp_(), above.neg_()).mul_((1 - self.beta) / self.temperature)

    def _mixed(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $\log m - \log p$ and $\log m - \log q$ for $d = \log q - \log p$, `[row, class]`.

        The first is $\log(\beta + (1 - \beta) e^d)$. Both are exactly 0 where $d$ is, and no exponential grows.
        """
        share = (1 - self.beta) + (2 * self.beta - 1) * (gap > 0).to(gap.dtype)
        rest = torch.log1p(share * torch.expm1(-gap.abs()))
        return gap.clamp(min=0.0) + rest, rest - gap.clamp(max=0.0)


def _logs(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of both, `[row, class]`; that of a probability of 0 is finite."""
    q, p = ((logits / temperature).log_softmax(1).clamp(min=LOG_ZERO) for logits in (student, teacher))
    return q, p


def _centred(probabilities: Tensor, values: Tensor) -> Tensor:
    """Return the gradient by the logits of the mean of values whose own derivative cancels out."""
    return probabilities * (values - (probabilities * values).sum(1, keepdim=True))
