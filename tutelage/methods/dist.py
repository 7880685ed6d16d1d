"""DIST: the student's probabilities correlate with the teacher's, within each sample and within each class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import check_shapes, check_temperature, wide

STRONGER_TEACHER = Paper(
    key="huang2022knowledge",
    title="Knowledge Distillation from A Stronger Teacher",
    authors="Huang, Tao and You, Shan and Wang, Fei and Qian, Chen and Xu, Chang",
    venue="Advances in Neural Information Processing Systems",
    year=2022,
    arxiv="2205.10536",
)

# A spread below this share of the values is near their rounding errors. Fresh networks have twenty times as much.
_LEAST_SPREAD = 1e-3


@register(
    "dist",
    papers=[STRONGER_TEACHER],
    losses=["dist_losses"],
    reads={"classes"},
    uses={"targets"},
    family="relations",
    exceptions={"parts-of-a-batch-add-up": "each class is compared over the samples of the batch"},
)
class DIST(Method):
    r"""DIST: the student's probabilities rise and fall with the teacher's, instead of being equal to them.

    $$ L = H(q, p) + T^2 (\beta L_{\mathrm{inter}} + \gamma L_{\mathrm{intra}}), \qquad
       L_{\mathrm{inter}} = 1 - \frac{1}{B} \sum_b \rho(P^s_{b,:}, P^t_{b,:}), \quad
       L_{\mathrm{intra}} = 1 - \frac{1}{K} \sum_k \rho(P^s_{:,k}, P^t_{:,k}) $$

    $P = \mathrm{softmax}(z / T)$ has a row for each of $B$ samples and a column for each of $K$ classes, and $\rho$ is
    Pearson's correlation. Both terms lie between 0 and 2. A sample's probabilities may be scaled and shifted at no
    cost, and so may those of a class; its logits may be shifted, but not scaled. In dense prediction each place is a
    row. Without labels the first term is left out.

    Of two classes, the correlation within a sample is 1 or -1, without a gradient: only $L_{\mathrm{intra}}$ teaches.
    In a batch of one sample, only $L_{\mathrm{inter}}$ does. Of several processes each compares the samples of its own
    part.

    Test accuracy on CIFAR-100 in per cent, from the authors' README: by the recipe of the preset, with $T = 4$ and a
    learning rate of 0.01 for MobileNetV2 and ShuffleNets.

    | teacher and student | DIST |
    |---|---|
    | wrn_40_2 and wrn_40_1 | 74.43 ± 0.24 |
    | resnet56 and resnet20 | 71.75 ± 0.30 |
    | resnet32x4 and resnet8x4 | 76.31 ± 0.19 |
    | ResNet50 and MobileNetV2 | 68.66 ± 0.23 |
    | resnet32x4 and ShuffleNetV1, ShuffleNetV2 | 76.34 ± 0.18, 77.35 ± 0.25 |

    On ImageNet, with $T = 1$: ResNet34 and ResNet18 72.07, ResNet50 and MobileNetV1 73.24. That recipe is SGD with a
    batch of 256, learning rate 0.1 and weight decay 1e-4, 100 epochs, a tenth after every 30.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits.
        temperature: $T$, above zero: 4 on CIFAR, 1 on ImageNet.
        inter_weight: $\beta$, weight of the relation within samples, zero or more.
        intra_weight: $\gamma$, weight of the relation within classes, zero or more.
        t_squared: Whether both terms are multiplied by $T^2$.
        eps: Added to the product of the lengths in $\rho$, zero or more. It weakens relations of probabilities that
            hardly vary: at the default, those of length 1e-4 in both networks correlate by 0.5 at most.

    Raises:
        UserError: If a weight or `eps` is negative, or the temperature is not above zero and finite.

    Paper: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022.

    Differences: The paper's pseudo-code has no $T^2$ (`t_squared=false`) and its correlation no `eps` (`eps=0`); the
        defaults are the authors' code, to which the weights of 2 belong. Probabilities that vary by less than a
        thousandth of their size are divided by that thousandth, not by their spread. In the authors' code their
        gradient is nearly without a limit: $10^7$ at logits of zero, as of a classifier that starts with zeros.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        *,
        temperature: float = 4.0,
        inter_weight: float = 2.0,
        intra_weight: float = 2.0,
        t_squared: bool = True,
        eps: float = 1e-8,
    ) -> None:
        check_temperature(temperature)
        for name, value in (("inter_weight", inter_weight), ("intra_weight", intra_weight), ("eps", eps)):
            if not value >= 0:
                raise UserError(f"{name}={value} must be zero or more.")
        super().__init__({"inter": inter_weight, "intra": intra_weight})
        self.student, self.teacher = FeatureExtractor(student), teacher
        self.temperature, self.t_squared, self.eps = temperature, t_squared, eps

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, and the relations within samples and classes as `inter` and `intra`."""
        student = self.student(batch.inputs).logits
        relations = dist_losses(student, self.teacher(batch).logits, self.temperature, eps=self.eps)
        factor = self.temperature**2 if self.t_squared else 1.0
        return {**batch.supervised(student), **{name: factor * loss for name, loss in relations.items()}}


def dist_losses(student: Tensor, teacher: Tensor, temperature: float = 4.0, *, eps: float = 1e-8) -> dict[str, Tensor]:
    r"""Return $L_{\mathrm{inter}}$ as `inter` and $L_{\mathrm{intra}}$ as `intra`, without $T^2$.

    Args:
        student: Logits `[batch, class]` (or `[batch, class, ...]`, of which each place becomes a row).
        teacher: The same; no gradient flows into them.
        temperature: $T$, which divides both.
        eps: Added to the product of the lengths in the correlation.

    Raises:
        ValueError: If the two shapes differ, or the temperature is not above zero and finite.

    Paper: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022.
    """
    check_shapes(student, teacher)
    check_temperature(temperature)
    ours, theirs = (
        # Each place becomes a row, as a sample is one.
        (wide(logits) / temperature).softmax(1).movedim(1, -1).flatten(0, -2)
        for logits in (student, teacher)
    )
    # Rows are samples, and transposed they are classes.
    return {"inter": relation_loss(ours, theirs, eps=eps), "intra": relation_loss(ours.mT, theirs.mT, eps=eps)}


def relation_loss(student: Tensor, teacher: Tensor, *, eps: float = 1e-8) -> Tensor:
    r"""Return $1 - \frac{1}{n} \sum_i \rho(a_i, b_i)$, one less the mean correlation of the rows, a scalar.

    $$ \rho(a, b) = \frac{\langle a - \bar a, b - \bar b \rangle}{\|a - \bar a\| \, \|b - \bar b\| + \epsilon} $$

    A length below a thousandth of that of its row is replaced by this thousandth, so that gradients have a limit. Equal
    values in a row correlate with nothing.

    Args:
        student: $a$, `[row, column]`.
        teacher: $b$, the same shape; no gradient flows into it.
        eps: $\epsilon$.
    """
    (ours, our_length), (theirs, their_length) = _deviations(student), _deviations(teacher.detach())
    # The equation's rho: `eps` is added to the product, as in the authors' code.
    correlations = (ours * theirs).sum(1) / (our_length * their_length + eps)
    return 1 - correlations.mean()


def _deviations(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the deviations from the mean of each row, and their length, which is never zero."""
    centred = rows - rows.mean(1, keepdim=True)
    least = _LEAST_SPREAD * torch.linalg.vector_norm(rows.detach(), dim=1)
    # A row of zeros would leave nothing to divide by. The square of anything shorter is zero.
    shortest = least.clamp(min=torch.finfo(rows.dtype).tiny ** 0.5)
    return centred, torch.maximum(torch.linalg.vector_norm(centred, dim=1), shortest)
