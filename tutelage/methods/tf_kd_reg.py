"""Tf-KD by regularisation: a hand-made virtual teacher instead of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import register
from tutelage.core.teachers.virtual import Softening, VirtualTeacher, virtual_logits
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.adapting import number_type, wide_type
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import UNLABELLED, check_temperature, kd_loss
from tutelage.methods.kd import check_soft_term
from tutelage.methods.parts.papers import TF_KD

Variant = Literal["paper", "code"]


__all__ = ["TfKDReg", "equivalent_smoothing", "virtual_distribution", "virtual_logits", "virtual_loss"]


@register(
    "tf-kd-reg",
    papers=[TF_KD],
    losses=["virtual_loss", "virtual_logits"],
    reads={"targets", "classes", "labels"},
    family="labels",
)
class TfKDReg(Method):
    r"""Tf-KD by a virtual teacher: one that is always right and knows nothing else (eq. 9).

    $$ L = (1 - \alpha) H(q, p) + \alpha \tau^2 \, \mathrm{KL}(p^d_\tau \,\|\, p_\tau), \qquad
       p^d(k) = a \text{ for the label, } \tfrac{1 - a}{K - 1} \text{ otherwise} $$

    Args:
        student: The network to train.
        num_classes: Number of classes $K$.
        temperature: $\tau$, above zero.
        alpha: Weight of the soft term, from 0 to 1.
        confidence: $a$, from chance to 1.
        variant: `paper` softens teacher and student by $\tau$, the teacher as $(p^d)^{1/\tau} / Z$. `code` is the
            released code: the probabilities $p^d$ divided by $\tau$ taken as logits, a student that is not softened, a
            soft term divided by $K$ and multiplied by `multiplier`, never by $\tau^2$.
        t_squared: Whether `paper` multiplies by $\tau^2$. Eq. 9 as printed does not, which leaves a soft term whose
            gradient is of order $1/\tau^2$ and does next to nothing; so the default is to multiply.
        multiplier: For `code`: factor on the soft term.

    Raises:
        UserError: If a hyper-parameter is out of range.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020.

    Differences: By default the soft term carries $\tau^2$, which eq. 9 lacks (`t_squared=False` is eq. 9 to the
        letter). The authors' code is another loss than their equation, and is label smoothing for every $\tau$:
        `variant="code"`; `matched-label-smoothing` gives the equal label smoothing.
    """

    def __init__(
        self,
        student: nn.Module,
        num_classes: int,
        *,
        temperature: float = 20.0,
        alpha: float = 0.1,
        confidence: float = 0.99,
        variant: Variant = "paper",
        t_squared: bool = True,
        multiplier: float = 1.0,
    ) -> None:
        check_soft_term(alpha, temperature)
        if variant == "paper" and multiplier != 1:
            raise UserError("multiplier= belongs to variant=code; the paper's equation has none.")
        if variant == "code" and not t_squared:
            raise UserError("t_squared= belongs to variant=paper; the released code never multiplies by it.")
        super().__init__({"ce": 1 - alpha, "virtual": alpha if variant == "paper" else alpha * multiplier})
        self.student = FeatureExtractor(student)
        softening: Softening = "log-probability" if variant == "paper" else "probability"
        # The type in which the student's logits are compared.
        dtype = wide_type(number_type(student))
        self.teacher = VirtualTeacher(num_classes, confidence=confidence, softening=softening, dtype=dtype)
        self.temperature, self.variant, self.t_squared = temperature, variant, t_squared

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the soft term as `virtual`."""
        student, teacher = self.student(batch.inputs).logits, self.teacher(batch).logits
        soft = virtual_loss(
            student, teacher, batch.labels, self.temperature, variant=self.variant, t_squared=self.t_squared
        )
        return {"ce": batch.loss(student), "virtual": soft}


def virtual_loss(
    student_logits: Tensor,
    virtual_logits: Tensor,
    labels: Tensor,
    temperature: float = 20.0,
    *,
    variant: Variant = "paper",
    t_squared: bool = True,
) -> Tensor:
    r"""Return $\tau^2 \, \mathrm{KL}(p^d_\tau \,\|\, p_\tau)$ from the virtual teacher, the mean over labelled places.

    Args:
        student_logits: `[batch, class]` (or `[batch, class, ...]`).
        virtual_logits: The virtual teacher's, as `virtual_logits` makes them; no gradient flows into them.
        labels: Class indices `[batch]` (or `[batch, ...]`), -1 where there is none.
        temperature: $\tau$.
        variant: `paper` softens both; `code` the teacher alone, and divides by the number of classes.
        t_squared: Whether `paper` multiplies by $\tau^2$.

    Raises:
        ValueError: If the two shapes differ, or the temperature is not above zero.
    """
    check_temperature(temperature)
    labelled = labels != UNLABELLED
    if variant == "paper":
        return kd_loss(student_logits, virtual_logits, temperature, t_squared=t_squared, counted=labelled)
    # Divided here instead of by `kd_loss`, so that only the teacher is softened.
    return kd_loss(student_logits, virtual_logits / temperature, 1.0, reduction="mean", counted=labelled)


def virtual_distribution(
    num_classes: int, *, confidence: float = 0.99, temperature: float = 1.0, variant: Variant = "paper"
) -> tuple[float, float]:
    r"""Return the softened virtual teacher: its probability of the label, and of each other class.

    Args:
        num_classes: Number of classes $K$.
        confidence: $a$.
        temperature: $\tau$.
        variant: `paper`: $p^{1/\tau} / Z$; `code`: $\mathrm{softmax}(p / \tau)$.
    """
    check_temperature(temperature)
    label, other = confidence, (1 - confidence) / (num_classes - 1)
    if variant == "paper":
        # There are two levels only, so their ratio and the sum of one give both.
        ratio = (other / label) ** (1 / temperature)
    else:
        ratio = math.exp((other - label) / temperature)
    high = 1 / (1 + (num_classes - 1) * ratio)
    return high, high * ratio


def equivalent_smoothing(
    num_classes: int,
    *,
    alpha: float,
    temperature: float,
    confidence: float = 0.99,
    multiplier: float = 1.0,
    variant: Variant = "code",
) -> tuple[float, float]:
    r"""Return the smoothing $\epsilon$ and the loss scale $s$ of the label smoothing that equals a Tf-KD_reg setting.

    Exact for `variant="code"` at any temperature; for `variant="paper"` at $\tau = 1$, the temperature being ignored.

    Args:
        num_classes: Number of classes $K$.
        alpha: Soft weight.
        temperature: $\tau$.
        confidence: $a$.
        multiplier: Factor on the soft term (`code` only).
        variant: `paper` or `code`.
    """
    if variant == "paper":
        weight, (_, other) = alpha, virtual_distribution(num_classes, confidence=confidence)
    else:
        # The released code divides its soft term by the number of classes.
        weight = alpha * multiplier / num_classes
        _, other = virtual_distribution(num_classes, confidence=confidence, temperature=temperature, variant="code")
    scale = 1 - alpha + weight
    # Each other class has weight * other of the mixture's mass, which label smoothing writes as scale * epsilon / K.
    return weight / scale * other * num_classes, scale
