"""Label smoothing, and the one that matches a Tf-KD setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import register
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import cross_entropy
from tutelage.methods.parts.papers import LABEL_SMOOTHING, TF_KD
from tutelage.methods.tf_kd_reg import equivalent_smoothing


@register(
    "label-smoothing",
    papers=[LABEL_SMOOTHING, TF_KD],
    losses=["cross_entropy"],
    reads={"classes", "labels"},
    family="labels",
)
class LabelSmoothing(Method):
    r"""Label smoothing: a share of the label's mass goes to all classes (eq. 1).

    $$ L = s \, H(q', p), \qquad q' = (1 - \epsilon) q + \epsilon / K $$

    Args:
        student: The network to train.
        num_classes: Number of classes $K$.
        smoothing: $\epsilon$, from 0 to 1.
        variant: `uniform` spreads $\epsilon$ over all K classes, the label among them. `others` leaves
            $1 - \epsilon$ on the label and spreads $\epsilon$ over the other $K - 1$, as the Tf-KD authors' code does;
            it equals `uniform` with $\epsilon K / (K - 1)$.
        loss_scale: $s$, above zero.

    Raises:
        UserError: If the smoothing is not between 0 and 1, or the scale is not above zero.

    Paper: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016.

    Differences: The Tf-KD authors' code fixes $\epsilon = 0.1$ over the other classes: `variant="others"`.
    """

    def __init__(
        self,
        student: nn.Module,
        num_classes: int,
        *,
        smoothing: float = 0.1,
        variant: Literal["uniform", "others"] = "uniform",
        loss_scale: float = 1.0,
    ) -> None:
        # Spread over all classes, a part returns to the label; this larger share has the same effect as the given one.
        uniform = smoothing if variant == "uniform" else smoothing * num_classes / (num_classes - 1)
        if not 0 <= uniform <= 1:
            raise UserError(
                f"smoothing={smoothing} must be between 0 and 1, and leave the label no less than another class."
            )
        if not loss_scale > 0:
            raise UserError(f"loss_scale={loss_scale} must be above zero.")
        super().__init__({"ce": loss_scale})
        self.student = FeatureExtractor(student)
        self.smoothing = uniform

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy against smoothed labels as `ce`."""
        logits = self.student(batch.inputs).logits
        return {"ce": cross_entropy(logits, batch.labels, label_smoothing=self.smoothing)}


@register(
    "matched-label-smoothing",
    papers=[TF_KD, LABEL_SMOOTHING],
    losses=["cross_entropy"],
    reads={"classes", "labels"},
    family="control",
)
def matched_label_smoothing(
    student: nn.Module,
    num_classes: int,
    *,
    alpha: float = 0.1,
    temperature: float = 20.0,
    confidence: float = 0.99,
    multiplier: float = 1.0,
    variant: Literal["paper", "code"] = "code",
) -> LabelSmoothing:
    r"""Matched label smoothing: the share and the loss scale of a Tf-KD_reg setting, a control.

    $$ (1 - \alpha) H(q, p) + w \, H(\tilde p^d, p) = s \, H(q', p), \qquad s = 1 - \alpha + w $$

    For `variant="code"` it is the same loss up to a constant, because the virtual teacher's softened distribution keeps
    two levels and the student is not softened. For `variant="paper"` it matches at $\tau = 1$, where eq. 9 is exactly
    label smoothing with $\epsilon = \alpha (1 - a) K / (K - 1)$.

    Args:
        student: The network to train.
        num_classes: Number of classes $K$.
        alpha: Soft weight of the setting to match.
        temperature: Its temperature.
        confidence: Its virtual teacher's confidence $a$.
        multiplier: Its multiplier (`code` only).
        variant: Its variant.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020.

    Differences: The control is ours; the paper lacks it.
    """
    # With the scale, because it changes the balance between the gradient and weight decay.
    smoothing, scale = equivalent_smoothing(
        num_classes,
        alpha=alpha,
        temperature=temperature,
        confidence=confidence,
        multiplier=multiplier,
        variant=variant,
    )
    return LabelSmoothing(student, num_classes, smoothing=smoothing, loss_scale=scale)
