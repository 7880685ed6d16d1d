"""Born-Again Networks: generations of one architecture, each taught by the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import FrozenTeacher, Teacher
from tutelage.data.batch import Batch
from tutelage.data.criterion import Criterion, CrossEntropy
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import UNLABELLED, soft_cross_entropy, wide
from tutelage.methods.supervised import Supervised
from tutelage.models.ensemble import Ensemble
from tutelage.training.run import Run

BORN_AGAIN = Paper(
    key="furlanello2018born",
    title="Born-Again Neural Networks",
    authors="Furlanello, Tommaso and Lipton, Zachary C and Tschannen, Michael and Itti, Laurent and Anandkumar, Anima",
    venue="International Conference on Machine Learning",
    year=2018,
    arxiv="1805.04770",
)

Variant = Literal["ban", "ban+l", "cwtm", "dkpp"]


class BornAgain(Method):
    r"""One generation, which learns the answers of the generation before it.

    $$ L = -\sum_c p^t(c) \log p^s(c) \; [\, + H(q, p^s) \,] $$

    Args:
        student: The new generation.
        teacher: The previous one.
        variant: `ban`: the teacher's probabilities alone. `ban+l`: the labels as well. Two controls: `cwtm` weighs the
            label loss of each sample by the teacher's confidence, $w_b = \max_c p^t_b / \sum_u \max_c p^t_u$; `dkpp`
            permutes the teacher's probabilities of all classes but its first choice.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, *, variant: Variant = "ban") -> None:
        super().__init__()
        self.student, self.teacher, self.variant = FeatureExtractor(student), teacher, variant

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the soft term as `teacher` and the label term as `ce`, if the variant has them."""
        student, teacher = self.student(batch.inputs).logits, self.teacher(batch).logits
        if self.variant == "cwtm":
            return {"ce": confidence_weighted(student, teacher, batch.labels)}
        if self.variant == "dkpp":
            teacher = permute_dark_knowledge(teacher)
        soft = {"teacher": _imitation(batch.criterion, student, teacher)}
        return soft | ({"ce": batch.loss(student)} if self.variant == "ban+l" else {})


def _imitation(criterion: Criterion, student: Tensor, teacher: Tensor) -> Tensor:
    # For classes the paper's loss: the divergence plus the teacher's entropy, which has no gradient.
    is_of_classes = isinstance(criterion, CrossEntropy)
    return soft_cross_entropy(student, teacher) if is_of_classes else criterion.divergence(student, teacher)


def confidence_weighted(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
    """Return the label loss weighted by the teacher's confidence; the weights of all labelled places sum to one.

    Args:
        student_logits: `[batch, class]` (or `[batch, class, ...]`).
        teacher_logits: The teacher's logits, of the same shape.
        targets: Class indices `[batch]` (or `[batch, ...]`), -1 where there is no label.
    """
    # A place without a label gets no share.
    confidence = wide(teacher_logits).softmax(1).amax(1) * (targets != UNLABELLED)
    # The clamp is for a batch without any label: its loss is 0, not NaN.
    shares = confidence / confidence.sum().clamp(min=torch.finfo(confidence.dtype).tiny)
    losses = F.cross_entropy(wide(student_logits), targets, reduction="none", ignore_index=UNLABELLED)
    return (shares * losses).sum()


def permute_dark_knowledge(logits: Tensor) -> Tensor:
    """Return logits in which all but the largest of each sample, or place, are put in a random order.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`).
    """
    # Each place is permuted by itself, so places become rows.
    if logits.ndim > 2:
        rows = logits.movedim(1, -1)
        return permute_dark_knowledge(rows.flatten(0, -2)).view(rows.shape).movedim(-1, 1)
    top = logits.argmax(1, keepdim=True)
    # In float32: half precision draws equal numbers, which would favour some orders.
    rank = torch.rand(logits.shape, device=logits.device).scatter(1, top, -1.0).argsort(1)
    # The first column of `rank` is the largest logit's own place; the others come in random order.
    places = torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
    rest = places[places != top].view(len(logits), -1)
    return torch.empty_like(logits).scatter(1, torch.cat([top, rest], 1), logits.gather(1, rank))


@register(
    "born-again",
    papers=[BORN_AGAIN],
    losses=["soft_cross_entropy", "confidence_weighted"],
    reads={"targets", "answers"},
    reads_if={"variant=cwtm": {"classes", "labels"}, "variant=dkpp": {"classes"}},
    family="generations",
)
def born_again(
    run: Run,
    make_student: Callable[[str], nn.Module],
    data: Data,
    *,
    generations: int = 3,
    variant: Variant = "ban",
) -> nn.Module:
    r"""Born-Again Networks: each generation is taught by the one before; the last one is returned.

    $$ L_k = -\sum_c p^{k-1}(c) \log p^k(c) $$

    Generation 0 learns from the labels. The report shows every generation, and the ensemble of all of them, which
    averages their probabilities.

    Args:
        run: The run whose stages these are.
        make_student: Makes the network afresh, with a new seed for each generation.
        data: The data.
        generations: Number of networks trained in all, two or more.
        variant: The loss: `ban` (the teacher's probabilities), `ban+l` (the labels too), or the controls `cwtm` (labels
            weighted by the teacher's confidence) and `dkpp` (the teacher's other classes permuted).

    Raises:
        UserError: If there are fewer than two generations.

    Paper: Furlanello et al., Born-Again Neural Networks, ICML 2018.

    Differences: Without classes, the task's divergence takes the place of the soft cross-entropy. Both have the same
        gradient.
    """
    if generations < 2:
        raise UserError(
            f"generations={generations} must be 2 or more: each one after the first learns from the one before."
        )
    # Each name gives a generation a seed and a folder of its own.
    networks = [run.fit("generation-0", Supervised(make_student("generation-0")), data)]
    for number in range(1, generations):
        method = BornAgain(make_student(f"generation-{number}"), FrozenTeacher(networks[-1]), variant=variant)
        networks.append(run.fit(f"generation-{number}", method, data))
    # The ensemble is no training stage, so it is scored here, and the generations beside it.
    if data.test is not None:
        scored = {f"generation-{number}": network for number, network in enumerate(networks)}
        scored[f"ensemble of {generations}"] = Ensemble(networks)
        run.note(members={name: run.evaluate(f"scores-{name}", net, data) for name, net in scored.items()})
    return networks[-1]
