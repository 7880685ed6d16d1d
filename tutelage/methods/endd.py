"""Ensemble distribution distillation: the student learns how the members' answers are spread, as a Dirichlet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method, OptimizerSpec, Progress, Update
from tutelage.core.registry import register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.data.criterion import Density
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import check_shapes, wide
from tutelage.methods.end import MEMBERS_ALONE, is_single, members_of, refuse_recordings
from tutelage.methods.parts.annealing import Annealing
from tutelage.methods.parts.papers import ENDD
from tutelage.system.console import Reporter

Heat = Literal["both", "ensemble", "dirichlet"]
# Above exp(10), about 22,026, a concentration grows in a straight line: it then stays finite, and keeps a gradient that
# can lower it again.
_STRAIGHT_FROM = 10.0


@register(
    "endd", papers=[ENDD], losses=["dirichlet_nll"], reads={"classes"}, family="ensembles", exceptions=MEMBERS_ALONE
)
class EnDD(Method):
    r"""Ensemble distribution distillation: a Dirichlet distribution over the members' answers, without labels.

    $$ L = -T^2 \, \frac{1}{M} \sum_{m=1}^M \log \frac{\mathrm{Dir}(\tilde\pi_m; \alpha)}{\mathrm{Dir}(\tilde\pi_m; 1)},
    \quad \alpha = \exp(z / T), \quad \pi_m = \mathrm{softmax}(z_m / T), \quad
    \tilde\pi_m = (1 - \epsilon) \pi_m + \epsilon / K $$

    $$ -\log \mathrm{Dir}(\pi; \alpha) = \sum_k \log \Gamma(\alpha_k) - \log \Gamma(\alpha_0)
    - \sum_k (\alpha_k - 1) \log \pi_k, \quad \alpha_0 = \sum_k \alpha_k $$

    The student is an ordinary network: it predicts $\mathrm{softmax}(z)$, and how large its logits are says how far the
    members agree. So it tells knowledge uncertainty, where the training data said nothing, from data uncertainty, where
    classes overlap (`tutelage evaluate`). Give several teachers, `--teacher A B C`, or `--ensemble 5`; the paper finds
    20 better than 5, and little beyond.

    Members that agree have an unbounded likelihood: $\epsilon$ and the falling temperature keep it in hand, and are not
    optional. $T$ stays for a share of the run, falls in a straight line to 1, and stays there. Curvature grows with the
    concentrations, so gradients are clipped even if the run's settings do not clip.

    Args:
        student: The network to train; its logits are the logarithms of the concentrations.
        teacher: The ensemble; any other teacher is an ensemble of one, from which no knowledge uncertainty can be
            learned.
        reporter: Receives a note if the ensemble has only one member.
        temperature: $T$ of the beginning, 1 or above.
        hold: Share of the run over which $T$ stays.
        fall: Share of the run over which $T$ falls to 1.
        smoothing: $\epsilon$, the share of the uniform distribution in the members' answers, from 0 to below 1.
        heat: What $T$ divides: `both`; the `ensemble` alone, without the factor $T^2$; or the `dirichlet` alone.
        gradient_norm: Largest gradient norm of a step; 0 leaves that to the run's settings.

    Raises:
        UserError: If the temperature is below 1, a share is out of its range, the norm is negative, or the teacher is a
            recording, which holds only the mean of the ensemble.

    Paper: Malinin, Mlodozeniec, Gales, Ensemble Distribution Distillation, ICLR 2020.

    Differences: The loss is counted from that of the flat Dirichlet, which is $-\log \Gamma(K)$, so that it can be
        compared with itself while $T$ falls; the gradient is the same. The authors' code adds $10^{-8}$ inside each
        logarithm, which is not needed in log-space. A concentration above 22,026 grows in a straight line. $T$ falls by
        the batch, the authors' by the epoch. The values of their runs are not known: thirds of the run are those of a
        published reproduction, whose $T = 10$ over 90 epochs is the preset's. In runs of a few dozen epochs that leaves
        no time to come down from the logits of the beginning, so the default is 4. $\epsilon = 10^{-3}$ is the default
        of the authors' code. It clips gradients at a norm of 10, at learning rates that are not known; 1 suits the
        defaults of a run. The members see the augmented image that the student sees, the authors' the image itself.
        Auxiliary data are left out, and of the code's variants that of $\exp(z T)$.
    """

    density: Density = "dirichlet"

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        reporter: Reporter | None = None,
        *,
        temperature: float = 4.0,
        hold: float = 1 / 3,
        fall: float = 1 / 3,
        smoothing: float = 1e-3,
        heat: Heat = "both",
        gradient_norm: float = 1.0,
    ) -> None:
        if not 0 <= smoothing < 1:
            raise UserError(f"smoothing={smoothing} must be at least 0 and below 1.")
        if not gradient_norm >= 0:
            raise UserError(f"gradient_norm={gradient_norm} must be zero or more: 0 keeps the run's own clipping.")
        refuse_recordings(teacher, "endd")
        super().__init__()
        self.temperature = Annealing(temperature=temperature, hold=hold, fall=fall)
        self.student, self.teacher = FeatureExtractor(student), teacher
        self.smoothing, self.heat, self.gradient_norm = smoothing, heat, gradient_norm
        if reporter is not None and is_single(teacher):
            text = "With one teacher, endd cannot learn knowledge uncertainty: give several, --teacher A B C, or"
            reporter.note(f"{text} --ensemble 5.", once=True)

    def optimizers(self) -> Mapping[str, OptimizerSpec]:
        """Return one optimizer, `student`, whose gradients are clipped."""
        params = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # None leaves the clipping to the run's settings.
        return {"student": OptimizerSpec(params=params, clip_norm=self.gradient_norm or None)}

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield the loss as `endd`."""
        members, temperature = members_of(self.teacher(batch)), self.temperature(progress)
        logits = self.student(batch.inputs).logits
        if self.heat != "ensemble":
            logits = wide(logits) / temperature
        if self.heat != "dirichlet":
            members = wide(members) / temperature
        # The constant is minus the loss of the flat Dirichlet, so that values at different temperatures can be
        # compared.
        loss = dirichlet_nll(logits, members, smoothing=self.smoothing) + math.lgamma(logits.shape[1])
        yield Update({"endd": loss if self.heat == "ensemble" else loss * temperature**2})


def dirichlet_nll(logits: Tensor, members: Tensor, *, smoothing: float = 1e-3) -> Tensor:
    r"""Return $-\frac{1}{M} \sum_m \log \mathrm{Dir}(\tilde\pi_m; \exp z)$, the mean over the batch and its places.

    Only the mean of the members' log-probabilities matters. It is computed in float64 if the device supports it.

    Args:
        logits: The logarithms $z$ of the concentrations, `[batch, class]` (or `[batch, class, ...]`).
        members: The members' logits `[member, batch, class, ...]`; no gradient flows into them.
        smoothing: $\epsilon$, the share of the uniform distribution in the members' answers.

    Raises:
        ValueError: If the shapes do not fit each other.

    Paper: Malinin, Mlodozeniec, Gales, Ensemble Distribution Distillation, ICLR 2020.
    """
    check_shapes(logits, members[0])
    raw = _precise(logits)
    # alpha = exp(z) up to z = 10, then exp(10) (z - 9): the value and the slope agree where they meet.
    beyond = (raw - _STRAIGHT_FROM).clamp(min=0)
    log_alpha = raw.clamp(max=_STRAIGHT_FROM) + torch.log1p(beyond)
    # The logarithm of alpha_0, the sum of the concentrations.
    log_sum = log_alpha.logsumexp(1)
    alpha = log_alpha.exp()
    # log gamma(a) = log gamma(1 + a) - log(a): near zero `a` itself may underflow, but its logarithm does not.
    normaliser = (torch.lgamma(1 + alpha) - log_alpha).sum(1) - (torch.lgamma(1 + log_sum.exp()) - log_sum)
    evidence = ((alpha - 1) * _smoothed(_precise(members.detach()), smoothing).mean(0)).sum(1)
    return (normaliser - evidence).mean().to(wide(logits).dtype)


def _smoothed(members: Tensor, smoothing: float) -> Tensor:
    r"""Return $\log((1 - \epsilon) \pi + \epsilon / K)$."""
    answers = members.log_softmax(2)
    # `math.log` of zero would fail, and there is no floor to add.
    if smoothing == 0:
        return answers
    floor = answers.new_tensor(math.log(smoothing / answers.shape[2]))
    return torch.logaddexp(answers + math.log1p(-smoothing), floor)


def _precise(values: Tensor) -> Tensor:
    # MPS has no float64.
    return wide(values) if values.device.type == "mps" else values.double()
