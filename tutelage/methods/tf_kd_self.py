"""Tf-KD by self-training: a network is its own teacher; and the control that trains as long without one."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tutelage.core.registry import register
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.sources import Data
from tutelage.losses import Reduction
from tutelage.methods.kd import KD
from tutelage.methods.parts.papers import TF_KD
from tutelage.methods.supervised import Supervised
from tutelage.training.run import Run


@register(
    "tf-kd-self",
    papers=[TF_KD],
    losses=["kd_loss"],
    reads={"targets", "answers"},
    reads_if={"standardize": {"classes"}, "reduction=mean": {"classes"}},
    family="generations",
)
def tf_kd_self(
    run: Run,
    make_student: Callable[[str], nn.Module],
    data: Data,
    *,
    temperature: float = 6.0,
    alpha: float = 0.9,
    reduction: Reduction = "batchmean",
    multiplier: float = 1.0,
    standardize: bool = False,
) -> nn.Module:
    r"""Tf-KD by self-training: train a network, then distill it into a fresh copy of itself (eq. 7).

    $$ L = (1 - \alpha) H(q, p) + \alpha \tau^2 \, \mathrm{KL}(p^{self}_\tau \,\|\, p_\tau) $$

    Args:
        run: The run whose stages these are.
        make_student: Makes the network afresh.
        data: The data.
        temperature: $\tau$.
        alpha: Weight of the soft term.
        reduction: `batchmean`, or `mean` to divide the soft term by the number of classes, as the authors' code does.
        multiplier: Factor on the soft term; the authors' code has 1, 50 or 100, depending on the network.
        standardize: Whether the soft term reads standardised logits (LSKD, see `kd`), with the LSKD authors' variance.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020.

    Differences: The soft term carries $\tau^2$ and is not divided by $K$. The defaults are the authors' setting for
        ResNet18 on CIFAR-100 once their 1/100 and their multiplier of 50 are undone: a share of the soft term of 0.905
        at $\tau = 6$.
    """
    teacher = run.fit("self-teacher", Supervised(make_student("self-teacher")), data)
    method = KD(
        # The name decides the seed: the student does not start from the weights that its teacher started from.
        make_student("student"),
        FrozenTeacher(teacher),
        temperature=temperature,
        alpha=alpha,
        reduction=reduction,
        multiplier=multiplier,
        standardize=standardize,
    )
    return run.fit("distill", method, data)


@register("double-training", papers=[TF_KD], losses=["cross_entropy"], reads={"targets"}, family="control")
def double_training(run: Run, make_student: Callable[[str], nn.Module], data: Data) -> nn.Module:
    r"""Double training: on the labels, then once more from those weights: the effect of a second training alone.

    $$ L = H(q, p), \text{ twice} $$

    Args:
        run: The run whose stages these are.
        make_student: Makes the network afresh.
        data: The data.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020 (a switch of the
        released code).

    Differences: none known.
    """
    # The same object goes on, so the second training starts from the weights of the first.
    network = run.fit("first", Supervised(make_student("student")), data)
    return run.fit("distill", Supervised(network), data)
