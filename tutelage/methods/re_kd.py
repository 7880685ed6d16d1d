"""Re-KD: the student teaches its teacher."""

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
    "re-kd",
    papers=[TF_KD],
    losses=["kd_loss"],
    reads={"targets", "answers"},
    reads_if={"standardize": {"classes"}, "reduction=mean": {"classes"}},
    family="logits",
    trains="teacher",
)
def re_kd(
    run: Run,
    make_student: Callable[[str], nn.Module],
    make_teacher: Callable[[str], nn.Module],
    data: Data,
    *,
    temperature: float = 4.0,
    alpha: float = 0.5,
    reduction: Reduction = "batchmean",
    standardize: bool = False,
) -> nn.Module:
    r"""Re-KD: a trained student teaches a fresh network of the teacher's architecture, which is returned.

    $$ L = (1 - \alpha) H(q, p^t) + \alpha T^2 \, \mathrm{KL}(p^s_T \,\|\, p^t_T) $$

    Compare it with `supervised-teacher`, not with the plain student.

    Args:
        run: The run whose stages these are.
        make_student: Makes the small network afresh.
        make_teacher: Makes the large network afresh.
        data: The data.
        temperature: $T$.
        alpha: Weight of the soft term.
        reduction: `batchmean`, or `mean` to divide the soft term by the number of classes, as the authors' code does.
        standardize: Whether the soft term reads standardised logits (LSKD, see `kd`), with the LSKD authors' variance.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020.

    Differences: The authors' settings (0.6 at temperature 20, divided by the number of classes) leave a soft share of
        1.5 % and scale the whole loss by 0.406. Ours is a real soft term at the loss's full scale.
    """
    # The roles are exchanged: the small network is trained first, and then answers as the teacher.
    small = run.fit("student", Supervised(make_student("student")), data)
    method = KD(
        make_teacher("teacher"),
        FrozenTeacher(small),
        temperature=temperature,
        alpha=alpha,
        reduction=reduction,
        standardize=standardize,
    )
    return run.fit("distill", method, data)
