"""Plain training on the labels, the baseline of every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor, nn

from tutelage.core.method import Method, OptimizerSpec
from tutelage.core.registry import register
from tutelage.data.batch import Batch
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.methods.parts.papers import TF_KD
from tutelage.training.run import Run


@register("supervised", papers=[TF_KD], losses=["cross_entropy"], reads={"targets"}, family="labels", plain=True)
class Supervised(Method):
    r"""The plain student: trained on the labels, with an optional control for the scale of the loss.

    $$ L = s \, H(q, p) $$

    Recipes that weigh the cross-entropy by $1 - \alpha$ and add a small soft term change the scale of the whole
    loss, and with it the balance between gradient and weight decay. The control shows what that alone does. Under SGD
    with momentum and coupled weight decay a scale $s$ is exactly the learning rate $s \cdot lr$ with the weight decay
    $wd / s$.

    Args:
        student: The network to train.
        loss_scale: $s$, above zero.
        scale_by: Apply $s$ to the `loss`, or its exact twin to the `optimizer`. The twin holds for SGD without gradient
            clipping.

    Raises:
        UserError: If the scale is not above zero.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020 (baseline).

    Differences: The loss-scale control is ours; the paper lacks it.
    """

    def __init__(
        self, student: nn.Module, *, loss_scale: float = 1.0, scale_by: Literal["loss", "optimizer"] = "loss"
    ) -> None:
        if not loss_scale > 0:
            raise UserError(f"loss_scale={loss_scale} must be above zero.")
        super().__init__({"ce": loss_scale if scale_by == "loss" else 1.0})
        self.student = FeatureExtractor(student)
        self.optimizer_scale = loss_scale if scale_by == "optimizer" else 1.0

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`."""
        # `loss`, not `supervised`: without targets there is nothing to learn, and an error is right.
        return {"ce": batch.loss(self.student(batch.inputs).logits)}

    def optimizers(self) -> Mapping[str, OptimizerSpec]:
        """Return the one optimizer, scaled where the twin is asked for."""
        params = [p for p in self.parameters() if p.requires_grad]
        scale = self.optimizer_scale
        # A step of lr * (s * gradient + wd * weight) is one of (s * lr) * (gradient + wd / s * weight).
        return {"student": OptimizerSpec(params=params, lr_scale=scale, weight_decay_scale=1 / scale)}


@register(
    "supervised-teacher",
    papers=[TF_KD],
    losses=["cross_entropy"],
    reads={"targets"},
    family="control",
    trains="teacher",
    plain=True,
)
def supervised_teacher(run: Run, make_teacher: Callable[[str], nn.Module], data: Data) -> nn.Module:
    r"""The plain teacher: its architecture trained on the labels from scratch, the baseline of Re-KD.

    $$ L = H(q, p^t) $$

    Args:
        run: The run whose stage this is.
        make_teacher: Makes the teacher afresh.
        data: The data.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020 (baseline).

    Differences: none known.
    """
    return run.fit("distill", Supervised(make_teacher("teacher")), data)
