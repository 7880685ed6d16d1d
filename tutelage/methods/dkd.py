"""Decoupled knowledge distillation: KD in two parts, so that the other classes count even if the teacher is sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.core.schedules import Schedule, linear, ramp
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import UNLABELLED, check_shapes, check_temperature, kd_loss, standardize, wide
from tutelage.methods.parts.papers import LSKD

# The authors' recipe for CIFAR-100: a warm-up of 20 epochs in a run of 240.
PUBLISHED_RAMP, PUBLISHED_EPOCHS = 20, 240

DECOUPLED = Paper(
    key="zhao2022decoupled",
    title="Decoupled Knowledge Distillation",
    authors="Zhao, Borui and Cui, Quan and Song, Renjie and Qiu, Yiyu and Liang, Jiajun",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2022,
    arxiv="2203.08679",
)


@register(
    "dkd", papers=[DECOUPLED, LSKD], losses=["dkd_losses"], reads={"targets", "classes", "labels"}, family="logits"
)
class DKD(Method):
    r"""Decoupled KD: one weight for the teacher's certainty of the label, one for its answer to the other classes.

    $$ L = H(q, p) + w(e) \, T^2 \left[ \alpha \, \mathrm{KL}(b^t_T \,\|\, b^s_T)
       + \beta \, \mathrm{KL}(\hat p^t_T \,\|\, \hat p^s_T) \right], \qquad
       b = (p(y), 1 - p(y)), \quad \hat p(k) = \frac{p(k)}{1 - p(y)} \text{ for } k \ne y $$

    The terms are TCKD and NCKD. KD is their sum with the weights 1 and $1 - p^t_T(y)$, sample by sample: the surer the
    teacher, the less its KD says of the other classes. With two classes TCKD is KD, and NCKD is zero by identity.

    The published $\beta$, with $\alpha = 1$; on CIFAR-100 $T = 4$ and `ramp_epochs=20`, on ImageNet $T = 1$ and
    `ramp_epochs=1`:

    | teacher and student | $\beta$ |
    |---|---|
    | resnet56 and resnet20, resnet110 and resnet32 | 2 |
    | wrn_40_2 and wrn_16_2 or wrn_40_1, vgg13 and vgg8 or MobileNetV2 | 6 |
    | resnet32x4 and resnet8x4, ShuffleNetV1 or V2; wrn_40_2 and ShuffleNetV1; ResNet50 and MobileNetV2 | 8 |
    | ImageNet: ResNet34 and ResNet18 | 0.5 |
    | ImageNet: ResNet50 and MobileNetV1 | 2 |

    With `standardize` both terms read standardised logits (LSKD, see `kd`). The LSKD authors multiply both weights by
    9 to 18, with $\beta$ 2 or 8 and $T$ 2 or 3: resnet56 and resnet20 are
    `dkd:standardize=true,temperature=3,alpha=18,beta=36`. Such weights are not for raw logits.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits.
        temperature: $T$, above zero.
        alpha: $\alpha$, weight of TCKD, zero or more.
        beta: $\beta$, weight of NCKD, zero or more.
        ramp_epochs: Epochs $E$ over which the two weights rise, $w(e) = \min(e / E, 1)$ in epoch $e = 1, 2, ...$; 1 is
            no warm-up. By default the published 20 of 240, and in a shorter run the same share: the weights rise batch
            by batch, and reach their full value after a twelfth of it.
        standardize: Whether both terms read standardised logits; the cross-entropy never does.
        standardize_ddof: 1 divides the variance by $K - 1$ (the LSKD authors' code), 0 by $K$ (their paper).

    Raises:
        UserError: If a hyper-parameter is out of range, or the labels are not class indices.

    Paper: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022. `standardize`: Sun et al., Logit Standardization in
        Knowledge Distillation, CVPR 2024.

    Differences: The default of `beta` is the commonest of the published. In a run of less than 20 epochs the authors'
        warm-up never ends; ours is shortened, and is theirs from 240 epochs on. It is not called `warmup_epochs`,
        because that is the learning rate's. The other classes are gathered before the softmax, and all is computed in
        log-space; the authors' code subtracts 1000 from the label's logit and takes logarithms of probabilities, which
        are infinite for a sure student. With `standardize`, the cross-entropy still weighs 1.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        *,
        temperature: float = 4.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        ramp_epochs: int | None = None,
        standardize: bool = False,
        standardize_ddof: Literal[0, 1] = 1,
    ) -> None:
        if not temperature > 0:
            raise UserError(f"temperature={temperature} must be above zero.")
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if not weight >= 0:
                raise UserError(f"{name}={weight} must be zero or more.")
        if ramp_epochs is not None and ramp_epochs < 1:
            raise UserError(f"ramp_epochs={ramp_epochs} must be 1 or more; with 1 there is no warm-up.")
        super().__init__({"tckd": rising(alpha, ramp_epochs), "nckd": rising(beta, ramp_epochs)})
        self.student, self.teacher = FeatureExtractor(student), teacher
        self.temperature, self.standardize, self.standardize_ddof = temperature, standardize, standardize_ddof

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, and the parts of KD as `tckd` and `nckd`, times the squared temperature."""
        student, teacher = self.student(batch.inputs).logits, self.teacher(batch).logits
        _check(student, teacher, batch.labels)
        # Before standardising, because the cross-entropy reads raw logits.
        hard = batch.loss(student)
        if self.standardize:
            student, teacher = (standardize(logits, ddof=self.standardize_ddof) for logits in (student, teacher))
        target_class, other_classes = dkd_losses(student, teacher, batch.labels, self.temperature)
        return {"ce": hard, "tckd": target_class, "nckd": other_classes}


def dkd_losses(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 4.0
) -> tuple[Tensor, Tensor]:
    r"""Return the two parts of KD, which the paper weighs by $\alpha$ and $\beta$; means over the labelled places.

    They are TCKD, $T^2 \mathrm{KL}(b^t_T \,\|\, b^s_T)$, and NCKD, $T^2 \mathrm{KL}(\hat p^t_T \,\|\, \hat p^s_T)$.

    Args:
        student_logits: `[batch, class]` (or `[batch, class, ...]`).
        teacher_logits: The same; no gradient flows into them.
        labels: Class indices `[batch]` (or `[batch, ...]`), -1 where there is none.
        temperature: $T$, which divides both.

    Raises:
        ValueError: If the shapes do not fit each other, or the temperature is not above zero.
    """
    _check(student_logits, teacher_logits, labels)
    check_temperature(temperature)
    labelled = labels != UNLABELLED
    (sure, others), (teacher_sure, teacher_others) = (
        decouple(wide(logits) / temperature, labels) for logits in (student_logits, teacher_logits)
    )
    # The parts are divided by T already, so they are compared at temperature 1.
    square = temperature**2
    return (
        square * kd_loss(sure, teacher_sure, 1.0, counted=labelled),
        square * kd_loss(others, teacher_others, 1.0, counted=labelled),
    )


def decouple(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits of the label against all others, `[batch, 2]`, and of the others alone, `[batch, class - 1]`.

    Args:
        logits: `[batch, class]`, or `[batch, class, ...]`, which gives as many places.
        labels: Class indices, `[batch]` or `[batch, ...]`. Results for unlabelled samples (-1) have no meaning.
    """
    # An unlabelled sample takes class 0, only because `gather` needs an index; it is not counted.
    label = labels.clamp(min=0).unsqueeze(1)
    others = torch.arange(logits.shape[1] - 1, device=logits.device).view(-1, *[1] * (labels.ndim - 1))
    # The other classes in their order: below the label as they are, from the label on the next one.
    rest = torch.where(others < label, logits[:, :-1], logits[:, 1:])
    # The logit of "any other class" is the logsumexp of theirs: the softmax of the two is b of the equation.
    return torch.cat([logits.gather(1, label), rest.logsumexp(1, keepdim=True)], 1), rest


def rising(weight: float, epochs: int | None) -> Schedule:
    """Return a weight that rises over some epochs. None takes the published 20 of 240, or fewer in a shorter run.

    Args:
        weight: The final weight, zero or more.
        epochs: Number of epochs over which it rises, at least one.
    """
    if epochs is not None:
        return ramp(weight, epochs=epochs)
    by_epochs = ramp(weight, epochs=PUBLISHED_RAMP)
    by_share = linear(0.0, weight, until=PUBLISHED_RAMP / PUBLISHED_EPOCHS)
    # The larger of the two: a short run reaches the full weight too.
    return lambda progress: max(by_epochs(progress), by_share(progress))


def _check(student: Tensor, teacher: Tensor, labels: Tensor) -> None:
    check_shapes(student, teacher)
    # The shape of logits without their axis of classes.
    wanted = (len(student), *student.shape[2:])
    if labels.is_floating_point() or labels.shape != wanted:
        raise UserError(
            f"dkd treats the label's class separately, so labels must be class indices of shape {wanted}; "
            f"these are {labels.dtype} of shape {tuple(labels.shape)}. Leave out mixup and soft labels."
        )
