"""Knowledge distillation, and two controls that take the teacher's knowledge away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import register
from tutelage.core.teachers import ShuffledTeacher, Teacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import Reduction, standardize
from tutelage.methods.parts.papers import HINTON, LSKD, TF_KD


@register(
    "kd",
    papers=[HINTON, LSKD],
    losses=["kd_loss"],
    reads={"answers"},
    uses={"targets"},
    reads_if={"standardize": {"classes"}, "reduction=mean": {"classes"}},
    family="logits",
)
class KD(Method):
    r"""Knowledge distillation: the student matches the teacher's softened probabilities.

    $$ L = (1 - \alpha) H(q, p) + \alpha T^2 \, \mathrm{KL}(p^t_T \,\|\, p^s_T) $$

    Both terms are those of the data's task. With several classes for each sample, each class has its own sigmoid.
    Numbers have squared errors, and no temperature. Without labels the first term is left out.

    With `standardize` it is LSKD: the soft term reads both logits as $(z - \bar z) / \sigma(z)$, sample by sample, so
    that the confidence of both networks has no effect. Its published weights, at temperature 2, are 0.1 for the
    cross-entropy and 9 for the soft term: `kd:standardize=true,temperature=2,multiplier=10`. Never give plain KD such a
    weight: in the paper's ablation (resnet32x4 to resnet8x4, CIFAR-100, temperature 2) weights of 0.9, 9 and 18 lead
    plain KD to 73.60, 73.33 and 63.45 %, and standardised KD to 74.14, 76.62 and 76.33 %.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits.
        temperature: $T$, which softens both, above zero.
        alpha: Weight of the soft term, from 0 to 1.
        t_squared: Whether the soft term is multiplied by $T^2$; eq. 4 of the Tf-KD paper leaves it out.
        reduction: `batchmean`, or `mean` to divide the soft term by the number of classes as much released code does.
        multiplier: Factor on the soft term, as the Tf-KD authors' code has for some networks.
        standardize: Whether the soft term reads standardised logits; the cross-entropy never does.
        standardize_ddof: 1 divides the variance by $K - 1$, as the LSKD authors' code does; 0 by $K$, as their paper
            has it, which softens as if the temperature were lower by the factor $\sqrt{1 - 1/K}$.

    Raises:
        UserError: If `alpha` is not between 0 and 1, or the temperature is not above zero.

    Paper: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015. `standardize`: Sun et al., Logit
        Standardization in Knowledge Distillation, CVPR 2024.

    Differences: The paper writes a soft cross-entropy; the KL divergence has the same gradient and is zero where
        student and teacher agree. The Tf-KD authors' code is `reduction="mean"`. The LSKD authors' code adds 1e-7 to
        $\sigma$, and gives equal logits gradients of order 1e7; here they become zeros, without gradient. Of two
        classes standardising leaves only which is ahead, and no gradient.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        *,
        temperature: float = 4.0,
        alpha: float = 0.9,
        t_squared: bool = True,
        reduction: Reduction = "batchmean",
        multiplier: float = 1.0,
        standardize: bool = False,
        standardize_ddof: Literal[0, 1] = 1,
    ) -> None:
        check_soft_term(alpha, temperature)
        # Losses are reported without their weights, so `kd` shows the same with any multiplier.
        super().__init__({"ce": 1 - alpha, "kd": alpha * multiplier})
        self.student, self.teacher = FeatureExtractor(student), teacher
        self.temperature, self.t_squared, self.reduction = temperature, t_squared, reduction
        self.standardize, self.standardize_ddof = standardize, standardize_ddof

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the soft term as `kd`."""
        student, teacher = self.student(batch.inputs).logits, self.teacher(batch).logits
        # Before standardising, because the cross-entropy reads raw logits.
        hard = batch.supervised(student)
        if self.standardize:
            student, teacher = (standardize(logits, ddof=self.standardize_ddof) for logits in (student, teacher))
        options: Any = {"t_squared": self.t_squared, "reduction": self.reduction}
        return {**hard, "kd": batch.criterion.divergence(student, teacher, self.temperature, **options)}


@register(
    "kd-uniform-teacher",
    papers=[HINTON, TF_KD],
    losses=["kd_loss"],
    reads={"targets", "classes", "labels"},
    family="control",
)
def kd_uniform_teacher(student: nn.Module, num_classes: int, *, temperature: float = 4.0, alpha: float = 0.9) -> KD:
    r"""KD from a uniform teacher: all its logits are zero, a control for what softening alone does.

    $$ L = (1 - \alpha) H(q, p) + \alpha T^2 \, \mathrm{KL}(1/K \,\|\, p^s_T) $$

    At high temperature the soft term is a penalty on the centred logits, $\|\tilde z\|^2 / 2K$.

    Args:
        student: The network to train.
        num_classes: Number of classes $K$.
        temperature: $T$.
        alpha: Weight of the soft term.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020.

    Differences: The control is ours; the paper's poorest teacher is one epoch old.
    """
    # All logits are equal, so the probabilities are 1/K at any temperature.
    return KD(student, UniformTeacher(num_classes), temperature=temperature, alpha=alpha)


@register(
    "kd-shuffled-teacher",
    papers=[HINTON, TF_KD],
    losses=["kd_loss"],
    reads={"answers"},
    uses={"targets"},
    family="control",
    exceptions={"parts-of-a-batch-add-up": "each process shuffles its own part of the batch"},
)
def kd_shuffled_teacher(student: nn.Module, teacher: Teacher, *, temperature: float = 4.0, alpha: float = 0.9) -> KD:
    r"""KD from a shuffled teacher: its answers change places within the batch, a control.

    $$ L = (1 - \alpha) H(q, p) + \alpha T^2 \, \mathrm{KL}(p^t_T(x_{\pi(b)}) \,\|\, p^s_T(x_b)) $$

    The soft targets keep their entropy and their mean, but say nothing about the sample.

    Args:
        student: The network to train.
        teacher: The teacher whose answers are shuffled.
        temperature: $T$.
        alpha: Weight of the soft term.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020.

    Differences: The control is ours; the paper lacks it.
    """
    return KD(student, ShuffledTeacher(teacher), temperature=temperature, alpha=alpha)


def check_soft_term(alpha: float, temperature: float) -> None:
    """Refuse weights and temperatures that are out of their range.

    Raises:
        UserError: If `alpha` is not between 0 and 1, or the temperature is not above zero.
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha={alpha} must be between 0 and 1.")
    if not temperature > 0:
        raise UserError(f"temperature={temperature} must be above zero.")
