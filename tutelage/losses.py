"""Loss functions that two methods or more share, and that users with a loop of their own can take alone.

All compute in float32 and in log-space, sum over the classes and take the mean over the batch.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["batchmean", "mean"]


def cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    r"""Return the mean cross-entropy $H(q', p)$, with $q' = (1 - \epsilon) q + \epsilon / K$, in float32.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`).
        targets: Class indices `[batch]` (or `[batch, ...]`).
        label_smoothing: $\epsilon$, spread uniformly over all K classes.
    """
    return F.cross_entropy(wide(logits), targets, label_smoothing=label_smoothing)


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 4.0,
    *,
    t_squared: bool = True,
    reduction: Reduction = "batchmean",
) -> Tensor:
    r"""Return the distillation loss $T^2 \, \mathrm{KL}(p^t_T \,\|\, p^s_T)$, the mean over the batch.

    Args:
        student_logits: `[batch, class]`.
        teacher_logits: `[batch, class]`; no gradient flows into them.
        temperature: $T$, which divides both.
        t_squared: Whether to multiply by $T^2$, so that gradients keep their size when $T$ changes.
        reduction: `"batchmean"` is the KL divergence. `"mean"` divides it by the number of classes as well: an error
            of much released code, here to reproduce it.

    Raises:
        ValueError: If the two shapes differ.

    Paper: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015.
    """
    check_shapes(student_logits, teacher_logits)
    student = F.log_softmax(wide(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(wide(teacher_logits.detach()) / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True) / _rows(student, reduction)
    return divergence * temperature**2 if t_squared else divergence


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return $-\sum_c p^t_T(c) \log p^s_T(c)$, the mean over the batch: the KL divergence plus the teacher's entropy.

    Args:
        student_logits: `[batch, class]`.
        teacher_logits: `[batch, class]`; no gradient flows into them.
        temperature: $T$, which divides both.

    Raises:
        ValueError: If the two shapes differ.
    """
    check_shapes(student_logits, teacher_logits)
    student = F.log_softmax(wide(student_logits) / temperature, dim=1)
    teacher = F.softmax(wide(teacher_logits.detach()) / temperature, dim=1)
    return -(teacher * student).sum() / _rows(student, "batchmean")


def standardize(logits: Tensor, *, ddof: int = 1) -> Tensor:
    r"""Return logits standardised per row, $(z - \bar z) / \sigma(z)$: only relative distances are left.

    A row of equal logits becomes zeros, with a gradient of zero.

    Args:
        logits: `[batch, class]`.
        ddof: 1 divides the variance by $K - 1$, as the authors' code does; 0 by $K$, as the paper's algorithm has it.

    Paper: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024.
    """
    raw = wide(logits)
    # The mean of equal numbers is not always that number; of zeros it is.
    shifted = raw - raw[:, :1]
    centred = shifted - shifted.mean(1, keepdim=True)
    variance = centred.square().sum(1, keepdim=True) / (logits.shape[1] - ddof)
    limits = torch.finfo(raw.dtype)
    # What rounding leaves of equal logits must not be blown up; and what is too small has no finite gradient.
    equal = variance <= (limits.eps * raw.abs().amax(1, keepdim=True)).square().clamp(min=limits.tiny**0.5)
    return centred * variance.masked_fill(equal, 1.0).rsqrt().masked_fill(equal, 0.0)


def gram(features: Tensor) -> Tensor:
    r"""Return the inner products of a batch's samples, $F F^\top$, `[batch, batch]`, in float32 under autocast too.

    Args:
        features: `[batch, ...]`; each sample is flattened.
    """
    with torch.autocast(features.device.type, enabled=False):
        rows = wide(features).flatten(1)
        return rows @ rows.T


def unit_rows(rows: Tensor, *, shortest: float = 0.0) -> Tensor:
    """Return rows of length one, in float32; a row of zeros stays zeros and has no gradient.

    Args:
        rows: `[row, column]`.
        shortest: Rows below this length count as zeros: a direction has gradients of the order of one over the length,
            and that of rounding errors is none.
    """
    raw = wide(rows)
    # The square of anything shorter underflows.
    shortest = max(shortest, torch.finfo(raw.dtype).tiny ** 0.5)
    is_zero = torch.linalg.vector_norm(raw.detach(), dim=1, keepdim=True) < shortest
    return F.normalize(raw.masked_fill(is_zero, 0.0), dim=1, eps=shortest)


def wide(logits: Tensor) -> Tensor:
    """Return logits in float32, or as they are if wider: half precision loses what distillation lives on."""
    return logits.float() if logits.itemsize < 4 else logits


def check_shapes(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Refuse answers that cannot be compared.

    Raises:
        ValueError: If the two shapes differ.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"The student answers {tuple(student_logits.shape)} and the teacher {tuple(teacher_logits.shape)}: "
            "both need the same classes in the same order."
        )


def _rows(log_probabilities: Tensor, reduction: Reduction) -> int:
    classes = log_probabilities.shape[1]
    rows = log_probabilities.numel() // classes
    return rows if reduction == "batchmean" else rows * classes
