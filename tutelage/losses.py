"""Loss functions that two methods or more share, and that users with a loop of their own can take alone.

Axis 1 is the class axis: logits are `[batch, class]`, or `[batch, class, ...]` with as many places as follow. There is
one reduction: the sum over the classes, and the mean over the batch and its places. A place whose label is -1 does not
count in a loss that reads labels; of several processes each takes the mean over the labelled places of its own part.

Half precision is computed in float32; float32 and float64 stay what they are. All of it is done in log-space.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import UserError

Reduction = Literal["batchmean", "mean"]
# Stands for the class of a sample or place that has none.
UNLABELLED = -1
# In place of log 0, which makes 0 * log 0 a NaN: its exponential is 0 at any temperature.
LOG_ZERO = -1e30
# That of 1 into the smallest normal number of float32.
_MOST_HALVINGS = 126


def cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    r"""Return the mean cross-entropy $H(q', p)$, with $q' = (1 - \epsilon) q + \epsilon / K$.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`).
        targets: Class indices `[batch]` (or `[batch, ...]`), -1 where there is no label; or probabilities in the shape
            of the logits.
        label_smoothing: $\epsilon$, spread uniformly over all K classes.

    Returns:
        The mean over all places that have a label; 0, with a gradient of 0, where none has.
    """
    loss = F.cross_entropy(wide(logits), targets, label_smoothing=label_smoothing, ignore_index=UNLABELLED)
    # A mean over nothing would be NaN. Asked of the targets, because a NaN of the network's must stay one.
    return loss.where((targets != UNLABELLED).any(), 0.0)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Return the cross-entropy of independent yes-or-no questions, $-\sum_c q_c \log p_c + (1 - q_c) \log (1 - p_c)$.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`); $p = \sigma(z)$.
        targets: 1 where a class is there, 0 where it is not, -1 where it is not known; or probabilities. In the shape
            of the logits.

    Returns:
        The sum over the classes, the mean over all places with at least one known answer; 0, with a gradient of 0,
        where none has.

    Raises:
        ValueError: If the two shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"The network returns shape {tuple(logits.shape)}, and the targets have shape {tuple(targets.shape)}: each "
            "class needs a 0 or a 1."
        )
    raw, known = wide(logits), targets != UNLABELLED
    losses = F.binary_cross_entropy_with_logits(raw, targets.to(raw.dtype), reduction="none")
    return losses.masked_fill(~known, 0.0).sum() / known.any(1).sum().clamp(min=1)


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 4.0,
    *,
    t_squared: bool = True,
    reduction: Reduction = "batchmean",
    counted: Tensor | None = None,
) -> Tensor:
    r"""Return the distillation loss $T^2 \, \mathrm{KL}(p^t_T \,\|\, p^s_T)$, the mean over batch and places.

    Args:
        student_logits: `[batch, class]` (or `[batch, class, ...]`).
        teacher_logits: The same; no gradient flows into them.
        temperature: $T$, which divides both.
        t_squared: Whether to multiply by $T^2$, so that gradients keep their size when $T$ changes.
        reduction: `"batchmean"` is the KL divergence. `"mean"` divides it by the number of classes as well: an error
            of much released code, here to reproduce it.
        counted: Which samples, or places, count, `[batch, ...]` of true or false; all by default. The mean over none
            is 0.

    Raises:
        ValueError: If the two shapes differ, or the temperature is not above zero.

    Paper: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015.
    """
    check_shapes(student_logits, teacher_logits)
    each = divergences(student_logits, teacher_logits, temperature)
    each = each if counted is None else each.where(counted, 0.0)
    divergence = each.sum() / _rows(student_logits, reduction, counted)
    return divergence * temperature**2 if t_squared else divergence


def binary_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 4.0,
    *,
    t_squared: bool = True,
    reduction: Reduction = "batchmean",
) -> Tensor:
    r"""Return the distillation loss of yes-or-no questions, $T^2 \sum_c \mathrm{KL}(b^t_c \,\|\, b^s_c)$.

    $b_c$ is the Bernoulli distribution of $\sigma(z_c / T)$, the answer to whether class $c$ is there.

    Args:
        student_logits: `[batch, class]` (or `[batch, class, ...]`).
        teacher_logits: The same; no gradient flows into them.
        temperature: $T$, which divides both.
        t_squared: Whether to multiply by $T^2$, so that gradients keep their size when $T$ changes.
        reduction: `batchmean` is the divergence; `mean` divides it by the number of classes as well.

    Returns:
        The sum over the classes, the mean over the batch and its places.

    Raises:
        ValueError: If the two shapes differ, or the temperature is not above zero.
    """
    check_shapes(student_logits, teacher_logits)
    check_temperature(temperature)
    student, teacher = wide(student_logits) / temperature, wide(teacher_logits.detach()) / temperature
    yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    # 1 - sigmoid(z) is sigmoid(-z), of which less is lost to rounding.
    no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    divergence = (yes + no).sum() / _rows(student, reduction)
    return divergence * temperature**2 if t_squared else divergence


def divergences(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *, dim: int = 1) -> Tensor:
    r"""Return $\mathrm{KL}(p^t_T \,\|\, p^s_T)$ of each sample: logits without their dimension of classes.

    Only $p^s - p^t$ is kept for the backward pass, and so there is no second derivative: `create_graph` is refused.
    Under the transforms of `torch.func`, such as `grad` and `vmap`, torch differentiates it by itself.

    Args:
        student_logits: `[batch, class]`, or any shape.
        teacher_logits: The same; no gradient flows into them.
        temperature: $T$, which divides both.
        dim: The dimension of classes.

    Raises:
        ValueError: If the temperature is not above zero.
    """
    check_temperature(temperature)
    if under_transform():
        student, teacher = (wide(one) / temperature for one in (student_logits, teacher_logits.detach()))
        gap = teacher.log_softmax(dim) - student.log_softmax(dim)
        return (teacher.softmax(dim) * gap).sum(dim)
    found: Tensor = _Divergences.apply(student_logits, teacher_logits.detach(), temperature, dim)
    return found


class _Divergences(torch.autograd.Function):
    """KL divergences, and the difference of the probabilities, which is their gradient.

    By itself autograd would keep log-probabilities of the student and probabilities of the teacher, and would make two
    tensors more of that size on its way back.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float, dim: int) -> Tensor:
        log_teacher = (wide(teacher) / temperature).log_softmax(dim)
        log_student = (wide(student) / temperature).log_softmax(dim)
        gap = log_teacher - log_student
        # Processors take a hundred times as long for an exponential below the smallest normal number.
        probabilities = torch.threshold_(log_teacher, -87.0, -math.inf).exp_()
        ctx.save_for_backward(log_student.exp_().sub_(probabilities))
        ctx.dtype, ctx.temperature, ctx.dim = student.dtype, temperature, dim
        return gap.mul_(probabilities).sum(dim)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        refuse_second_derivative()
        (difference,) = ctx.saved_tensors
        gradient = difference * (upstream / ctx.temperature).unsqueeze(ctx.dim)
        return gradient.to(ctx.dtype), None, None, None


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return $-\sum_c p^t_T(c) \log p^s_T(c)$, the mean over batch and places.

    It is the KL divergence plus the teacher's entropy.

    Args:
        student_logits: `[batch, class]` (or `[batch, class, ...]`).
        teacher_logits: The same; no gradient flows into them.
        temperature: $T$, which divides both.

    Raises:
        ValueError: If the two shapes differ, or the temperature is not above zero.
    """
    check_shapes(student_logits, teacher_logits)
    check_temperature(temperature)
    student = F.log_softmax(wide(student_logits) / temperature, dim=1)
    teacher = F.softmax(wide(teacher_logits.detach()) / temperature, dim=1)
    return -(teacher * student).sum() / _rows(student, "batchmean")


def standardize(logits: Tensor, *, ddof: int = 1) -> Tensor:
    r"""Return logits standardised at each place, $(z - \bar z) / \sigma(z)$: only relative distances are left.

    A row of equal logits becomes zeros, with a gradient of zero. Where some stand for $\log 0$, such as the -1e30 of a
    recording, two levels are left: those, and all others.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`).
        ddof: 1 divides the variance by $K - 1$, as the authors' code does; 0 by $K$, as the paper's algorithm has it.

    Paper: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024.
    """
    raw = wide(logits)
    largest = raw.detach().abs().amax(1, keepdim=True)
    # A power of two, so that scaling is exact: the square of -1e30 would be infinite.
    scale = torch.exp2(-largest.log2().floor().clamp(0, _MOST_HALVINGS))
    # The mean of equal numbers is not always that number; of zeros it is.
    raw = raw * scale
    shifted = raw - raw[:, :1]
    centred = shifted - shifted.mean(1, keepdim=True)
    variance = centred.square().sum(1, keepdim=True) / (logits.shape[1] - ddof)
    limits = torch.finfo(raw.dtype)
    # What rounding leaves of equal logits must not be blown up; and what is too small has no finite gradient.
    equal = variance <= (limits.eps * scale * largest).square().clamp(min=limits.tiny**0.5)
    return centred * variance.masked_fill(equal, 1.0).rsqrt().masked_fill(equal, 0.0)


def wide(logits: Tensor) -> Tensor:
    """Return logits in float32, or as they are if wider: half precision loses what distillation lives on."""
    return logits.float() if logits.itemsize < 4 else logits


def refuse_second_derivative() -> None:
    """Refuse a backward pass that is to be differentiated again, where the gradient was kept as a constant.

    Raises:
        RuntimeError: If it is to be differentiated again.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "This loss has no second derivative: leave out create_graph=True, or write it with log_softmax and "
            "torch.nn.functional.kl_div."
        )


def under_transform() -> bool:
    """Return whether a transform of `torch.func` is at work, such as `grad` or `vmap`.

    It takes a hand-written gradient only in a form that would keep more for the backward pass.
    """
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that cannot divide logits.

    Raises:
        UserError: If it is not above zero and finite.
    """
    if isinstance(temperature, int | float) and not 0 < temperature < math.inf:
        raise UserError(f"temperature={temperature} must be above zero and finite: it divides the logits.")


def check_shapes(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Refuse answers that cannot be compared.

    Raises:
        ValueError: If the two shapes differ.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"The student returns shape {tuple(student_logits.shape)}, and the teacher {tuple(teacher_logits.shape)}: "
            "both need the same classes in the same order."
        )


def _rows(logits: Tensor, reduction: Reduction, counted: Tensor | None = None) -> Tensor | int:
    """Return what a sum over batch, classes and places is divided by."""
    classes = logits.shape[1]
    rows = logits.numel() // classes if counted is None else counted.sum().clamp(min=1)
    return rows if reduction == "batchmean" else rows * classes


def log_mean_probability(logits: Tensor) -> Tensor:
    """Return the log of the members' mean probability `[batch, class]`, computed in log-space.

    Args:
        logits: `[member, batch, class]` (or `[member, batch, class, ...]`).
    """
    return wide(logits).log_softmax(2).logsumexp(0) - math.log(len(logits))
