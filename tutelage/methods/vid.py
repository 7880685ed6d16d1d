"""Variational information distillation: the student's features predict the teacher's as well as they can."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, pair
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.maps import pool_to_smaller
from tutelage.features.padding import mean_of_squares
from tutelage.features.products import mean_square
from tutelage.losses import wide

VARIATIONAL_INFORMATION = Paper(
    key="ahn2019variational",
    title="Variational Information Distillation for Knowledge Transfer",
    authors="Ahn, Sungsoo and Hu, Shell Xu and Damianou, Andreas and Lawrence, Neil D. and Dai, Zhenwen",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2019,
    arxiv="1904.05835",
)


@register(
    "vid", papers=[VARIATIONAL_INFORMATION], losses=["gaussian_loss"], reads=(), uses={"targets"}, family="features"
)
class VID(Method):
    r"""Variational information distillation: the teacher's features are likely, given the student's.

    $$ L = H(q, p) + \beta \sum_l \left\langle \frac{\left(\mu_l(F^s_l) - F^t_l\right)^2}{2 \sigma_{l,c}^2}
       + \frac{1}{2} \log \sigma_{l,c}^2 \right\rangle, \qquad \sigma^2 = \log(1 + e^\alpha) + \epsilon $$

    The mean $\langle \cdot \rangle$ is over samples, channels $c$ and places. The mean $\mu$ of the Gaussian comes from
    a regressor of three 1x1 convolutions; its variance is one number per channel of the teacher. Both are trained with
    the student: a channel that the student cannot predict gets a large variance, and a small weight. The larger map is
    pooled to the smaller. The loss may be negative, and is not zero where student and teacher agree.
    Without labels the first term is left out: the student learns features, and its classifier stays as it is.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside.
        example: Inputs for one forward pass.
        layers: `auto` pairs the ends of the stages; or pairs by name, `student:teacher`, joined by `+`.
        beta: $\beta$, zero or more.
        initial_variance: $\sigma^2$ of each channel before training, above `eps`.
        eps: $\epsilon$, the smallest variance, above zero.

    Raises:
        UserError: If `beta` is negative, `eps` is not above zero or `initial_variance` not above `eps`, the teacher has
            no network, or a layer does not exist.

    Paper: Ahn et al., Variational Information Distillation for Knowledge Transfer, CVPR 2019.

    Differences: Regressor, weight, initial variance and the mean over all elements are those of the literature's
        tables; the paper's own could not be checked. The constant $\frac{1}{2} \log 2\pi$ is left out. The convolutions
        start as PyTorch starts them.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        layers: str = AUTO,
        beta: float = 1.0,
        initial_variance: float = 5.0,
        eps: float = 1e-5,
    ) -> None:
        if not beta >= 0:
            raise UserError(f"beta={beta} must be zero or more: a negative one drives the features apart.")
        super().__init__({"information": beta})
        self.student, self.teacher, self.pairs = pair(student, teacher, layers, example, take="stages", logits=False)
        self.guesses = nn.ModuleList(
            GaussianGuess(one.student.channels, one.teacher.channels, initial_variance=initial_variance, eps=eps)
            for one in self.pairs
        )
        for guess in adapting(self.guesses, student):
            assert isinstance(guess, GaussianGuess)
            # Once more, because what was rounded to one type is not exact in a wider one.
            guess.start_at(initial_variance)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the sum of the pairs' negative log-likelihoods as `information`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        # The sum over the layers l of the equation.
        terms = [guess(*pair.compared(student, teacher)) for guess, pair in zip(self.guesses, self.pairs)]
        return {**batch.supervised(student.logits), "information": torch.stack(terms).sum()}


class GaussianGuess(nn.Module):
    r"""A guess of the teacher's map from the student's: a Gaussian with a regressed mean, a variance per channel.

    Args:
        student_channels: Channels of the student's map.
        teacher_channels: Channels of the teacher's map.
        initial_variance: $\sigma^2$ before training, above `eps`.
        eps: $\epsilon$, the smallest variance, above zero.

    Attributes:
        regressor: The mean, from the student's map.
        scale: $\alpha$, `[channel]`, trained like any other parameter.

    Raises:
        UserError: If `eps` is not above zero, or `initial_variance` not above `eps`.
    """

    def __init__(
        self, student_channels: int, teacher_channels: int, *, initial_variance: float = 5.0, eps: float = 1e-5
    ) -> None:
        super().__init__()
        if not 0 < eps < initial_variance < math.inf:
            raise UserError(
                f"eps={eps} must be above zero, and initial_variance={initial_variance} finite and above eps."
            )
        self.regressor = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
        )
        self.eps = eps
        # A parameter, and so trained: some released code keeps it in a plain list, where it stays as it starts.
        self.scale = nn.Parameter(torch.empty(teacher_channels))
        self.start_at(initial_variance)

    def start_at(self, variance: float) -> None:
        r"""Give each channel a variance, above `eps`.

        Args:
            variance: $\sigma^2$.
        """
        # The variance is softplus(alpha) + eps.
        excess = variance - self.eps
        # The inverse of the softplus, written so that no exponential overflows.
        nn.init.constant_(self.scale, excess + math.log(-math.expm1(-excess)))

    @property
    def variance(self) -> Tensor:
        r"""The variance $\sigma^2$ of each channel, `[channel]`."""
        return F.softplus(wide(self.scale)) + self.eps

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the negative log-likelihood of the teacher's map given the student's, a scalar.

        Args:
            student: `[batch, channel, height, width]`.
            teacher: `[batch, channel, height, width]`, with its own sizes; no gradient flows into it.
            mask: Places of both that are not padding, `[batch, 1, height, width]`.
        """
        # The student's map stays in its own type, which is the regressor's.
        student, teacher = pool_to_smaller(student, wide(teacher))
        return gaussian_loss(self.regressor(student), teacher, self.variance, mask)


def gaussian_loss(mean: Tensor, teacher: Tensor, variance: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return $\frac{1}{2} \left((\mu - F^t)^2 / \sigma_c^2 + \log \sigma_c^2\right)$, the mean over all elements.

    Args:
        mean: $\mu$, `[batch, channel, height, width]`.
        teacher: $F^t$, the same; no gradient flows into it.
        variance: $\sigma^2$, `[channel]`, above zero.
        mask: Places that are not padding, `[batch, 1, height, width]`. The mean is taken within each sample first.
    """
    spread = wide(variance)
    # All places of a channel share one variance, so the mean over the channel can be taken first.
    error = wide(mean) - wide(teacher.detach())
    squared = mean_square(error, (0, 2, 3)) if mask is None else mean_of_squares(error, mask)
    return 0.5 * (squared / spread + spread.log()).mean()
