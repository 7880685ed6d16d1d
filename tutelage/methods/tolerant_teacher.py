"""The tolerant teacher: a teacher that keeps its second choices alive, and the generations that it teaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import wide
from tutelage.methods.kd import KD
from tutelage.training.run import Run

TOLERANT = Paper(
    key="yang2019training",
    title="Training Deep Neural Networks in Generations: A More Tolerant Teacher Educates Better Students",
    authors="Yang, Chenglin and Xie, Lingxi and Qiao, Siyuan and Yuille, Alan L",
    venue="AAAI Conference on Artificial Intelligence",
    year=2019,
    arxiv="1805.05551",
)


def top_score_difference(logits: Tensor, top: int) -> Tensor:
    r"""Return $f_{a_1} - \frac{1}{K-1} \sum_{k=2}^{K} f_{a_k}$ of the sorted softmax, the mean over batch and places.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`).
        top: $K$, the top class counted, from 2 to the number of classes.
    """
    # Gradients flow through the sorted values, not through the order.
    largest = wide(logits).softmax(1).topk(top, dim=1).values
    return (largest[:, 0] - largest[:, 1:].mean(1)).mean()


class TolerantTeacher(Method):
    r"""The patriarch: trained on the labels, with a penalty on the lead of its first choice.

    $$ L = \eta H(q, f) + (1 - \eta) \Big[ f_{a_1} - \tfrac{1}{K-1} \sum_{k=2}^{K} f_{a_k} \Big] $$

    Args:
        network: The network to train.
        num_classes: Number of classes.
        top: $K$, the number of choices that are compared, the first one included.
        eta: $\eta$, weight of the labels, from 0 to 1.

    Raises:
        UserError: If `top` exceeds the classes, or `eta` is not between 0 and 1.
    """

    def __init__(self, network: nn.Module, num_classes: int, *, top: int = 5, eta: float = 0.6) -> None:
        if not 2 <= top <= num_classes:
            raise UserError(f"top={top} must be from 2 to the number of classes, {num_classes}.")
        if not 0 <= eta <= 1:
            raise UserError(f"eta={eta} must be between 0 and 1.")
        super().__init__({"ce": eta, "tolerance": 1 - eta})
        self.student, self.top = FeatureExtractor(network), top

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the top score difference as `tolerance`."""
        logits = self.student(batch.inputs).logits
        return {"ce": batch.loss(logits), "tolerance": top_score_difference(logits, self.top)}


@register(
    "tolerant-teacher",
    papers=[TOLERANT],
    losses=["top_score_difference", "kd_loss"],
    reads={"targets", "classes"},
    family="generations",
)
def tolerant_teacher(
    run: Run,
    make_student: Callable[[str], nn.Module],
    data: Data,
    num_classes: int,
    *,
    generations: int = 2,
    top: int = 5,
    eta: float = 0.6,
    alpha: float = 0.5,
) -> nn.Module:
    r"""Tolerant teacher: training in generations from one that keeps its second choices alive.

    $$ L_0 = \eta H(q, f) + (1 - \eta) \Big[ f_{a_1} - \tfrac{1}{K-1} \sum_{k=2}^{K} f_{a_k} \Big], \qquad
       L_m = (1 - \alpha) H(q, f^m) + \alpha \, \mathrm{KL}(f^{m-1} \,\|\, f^m) $$

    Args:
        run: The run whose stages these are.
        make_student: Makes the network afresh.
        data: The data.
        num_classes: Number of classes.
        generations: Number of networks trained in all, the patriarch included, two or more.
        top: $K$ of the tolerance.
        eta: $\eta$, weight of the labels for the patriarch.
        alpha: Weight of the previous generation; the paper writes $\lambda = 1 - \alpha$ on the labels.

    Raises:
        UserError: If a hyper-parameter is out of range.

    Paper: Yang et al., Training Deep Neural Networks in Generations, AAAI 2019.

    Differences: The forms of the losses are confirmed, the constants are not: `top`, `eta` and `alpha` are our choice,
        and so is that the patriarch alone is trained with the tolerance.
    """
    if generations < 2:
        raise UserError(f"generations={generations} must be 2 or more: a teacher, and at least one student of it.")
    # Data with few classes have fewer choices to compare.
    patriarch = TolerantTeacher(make_student("patriarch"), num_classes, top=min(top, num_classes), eta=eta)
    network = run.fit("patriarch", patriarch, data)
    for number in range(1, generations):
        # The paper's divergence has no temperature.
        method = KD(make_student(f"generation-{number}"), FrozenTeacher(network), temperature=1.0, alpha=alpha)
        network = run.fit(f"generation-{number}", method, data)
    return network
