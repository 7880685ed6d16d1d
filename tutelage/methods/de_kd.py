"""De-KD: distillation from a teacher that was stopped early."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tutelage.core.registry import register
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.losses import Reduction
from tutelage.methods.kd import KD
from tutelage.methods.parts.papers import TF_KD
from tutelage.methods.supervised import Supervised
from tutelage.training.run import Run
from tutelage.training.state import Stop


@register(
    "de-kd",
    papers=[TF_KD],
    losses=["kd_loss"],
    reads={"targets", "answers"},
    reads_if={"standardize": {"classes"}, "reduction=mean": {"classes"}},
    family="logits",
)
def de_kd(
    run: Run,
    student: nn.Module,
    make_teacher: Callable[[str], nn.Module],
    data: Data,
    *,
    teacher_epochs: int | None = None,
    teacher_accuracy: float | None = None,
    temperature: float = 4.0,
    alpha: float = 0.9,
    reduction: Reduction = "batchmean",
    standardize: bool = False,
) -> nn.Module:
    r"""De-KD: the teacher is stopped after a few epochs of its normal schedule, or at a given accuracy.

    $$ L = (1 - \alpha) H(q, p) + \alpha T^2 \, \mathrm{KL}(p^{poor}_T \,\|\, p^s_T) $$

    Several settings in one comparison draw the curve of student accuracy over teacher accuracy:
    `tutelage compare supervised de-kd:teacher_epochs=1 de-kd:teacher_epochs=5 de-kd:teacher_epochs=20 ...`

    Args:
        run: The run whose stages these are.
        student: The network to train.
        make_teacher: Makes the teacher afresh.
        data: The data.
        teacher_epochs: Epochs after which the teacher is stopped; one, if no accuracy is given either.
        teacher_accuracy: Validation accuracy at which the teacher is stopped, a fraction.
        temperature: $T$.
        alpha: Weight of the soft term.
        reduction: `batchmean`, or `mean` to divide the soft term by the number of classes, as the authors' code does.
        standardize: Whether the soft term reads standardised logits (LSKD, see `kd`), with the LSKD authors' variance.

    Raises:
        UserError: If `teacher_epochs` is below 1, or there are no validation data for `teacher_accuracy`.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020.

    Differences: The soft term carries $T^2$ and is not divided by $K$ (`reduction="mean"` divides).
    """
    if teacher_epochs is not None and teacher_epochs < 1:
        raise UserError(f"teacher_epochs={teacher_epochs} must be 1 or more.")
    if teacher_accuracy is not None and data.validation is None:
        raise UserError("teacher_accuracy= is measured on validation data, and there are none. Give teacher_epochs=.")
    if teacher_epochs is None and teacher_accuracy is None:
        teacher_epochs = 1
    method = Supervised(make_teacher("teacher"))
    stop = Stop(after=teacher_epochs, at_score=teacher_accuracy)
    # The last weights, because the best ones so far would be a better teacher than the one that was stopped.
    poor = run.fit("poor-teacher", method, data, stop=stop, keep="last")
    if data.test is not None:
        run.note(teacher_scores=run.evaluate("poor-teacher-scores", poor, data))
    # The student is a plain KD student: only its teacher is poor.
    distillation = KD(
        student,
        FrozenTeacher(poor),
        temperature=temperature,
        alpha=alpha,
        reduction=reduction,
        standardize=standardize,
    )
    return run.fit("distill", distillation, data)
