"""Transformed teacher matching: KD whose temperature softens the teacher alone, plain and weighted by sample."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import check_shapes, check_temperature, divergences, wide

TRANSFORMED_TEACHER = Paper(
    key="zheng2024knowledge",
    title="Knowledge Distillation Based on Transformed Teacher Matching",
    authors="Zheng, Kaixiang and Yang, En-Hui",
    venue="International Conference on Learning Representations",
    year=2024,
    arxiv="2402.11148",
)


@register(
    "ttm", papers=[TRANSFORMED_TEACHER], losses=["ttm_loss"], reads={"classes"}, uses={"targets"}, family="logits"
)
class TTM(Method):
    r"""Transformed teacher matching: the temperature softens the teacher's probabilities, and never the student's.

    $$ L = H(q, p^s) + \beta \, \mathrm{KL}(\tilde p^t \,\|\, p^s), \qquad
       \tilde p^t = \mathrm{softmax}(z^t / T) = \frac{(p^t)^{1/T}}{\sum_k (p^t_k)^{1/T}} $$

    There is no factor $T^2$. Up to a constant, the second term is $T$ times the cross-entropy of KD at temperature $T$,
    less $(T - 1)$ times the Rényi entropy of order $1/T$ of $p^s$: KD, with a reward for a student that stays unsure.
    At $T = 1$ it is KD. A high temperature leaves a target near the uniform one, so $\beta$ is large.
    Without labels the first term is left out.

    Test accuracy on CIFAR-100 in per cent, from the authors' README:

    | teacher and student | TTM |
    |---|---|
    | wrn_40_2 and wrn_16_2, wrn_40_1 | 76.23, 74.32 |
    | resnet56 and resnet20 | 71.83 |
    | resnet110 and resnet20, resnet32 | 71.46, 73.97 |
    | resnet32x4 and resnet8x4 | 76.17 |
    | vgg13 and vgg8, MobileNetV2 | 74.33, 68.98 |
    | ResNet50 and MobileNetV2, vgg8 | 69.24, 74.87 |
    | resnet32x4 and ShuffleNetV1, ShuffleNetV2 | 74.18, 76.57 |
    | wrn_40_2 and ShuffleNetV1 | 75.39 |

    They belong to the recipe of the preset, and are means of 5 runs (networks of one family) or 3; the authors' code
    prints the best test epoch. Temperature and $\beta$ are published for vgg13 and vgg8 alone: the defaults.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits.
        temperature: $T$, the paper's $1/\gamma$, above zero.
        beta: $\beta$, zero or more.

    Raises:
        UserError: If the temperature is not above zero and finite, or `beta` is negative.

    Paper: Zheng, Yang, Knowledge Distillation Based on Transformed Teacher Matching, ICLR 2024.

    Differences: none known. The softened teacher is computed from its logits, never as a power of its probabilities,
        where one that is rounded to zero would stay zero.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, *, temperature: float = 10.0, beta: float = 45.0) -> None:
        _check(temperature, beta)
        super().__init__({"ttm": beta})
        self.student, self.teacher, self.temperature = FeatureExtractor(student), teacher, temperature

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the divergence from the softened teacher as `ttm`."""
        student = self.student(batch.inputs).logits
        # The student is not softened, so no factor T^2 has to restore the size of its gradient.
        return {**batch.supervised(student), "ttm": ttm_loss(student, self.teacher(batch).logits, self.temperature)}


@register(
    "wttm", papers=[TRANSFORMED_TEACHER], losses=["wttm_loss"], reads={"classes"}, uses={"targets"}, family="logits"
)
class WTTM(Method):
    r"""Weighted transformed teacher matching: TTM in which a sample counts more, the less sure the teacher is of it.

    $$ L = H(q, p^s) + \beta \, w \, \mathrm{KL}(\tilde p^t \,\|\, p^s), \qquad
       w = \sum_k (p^t_k)^{1/T}, \qquad \tilde p^t = \mathrm{softmax}(z^t / T) $$

    At a temperature of 1 or more, $w$ lies between 1, where the teacher is certain, and $K^{1 - 1/T}$, where it gives
    each of $K$ classes the same. It is not divided by its mean over the batch, so a $\beta$ that suits 100 classes does
    not suit 10.
    Without labels the first term is left out.

    Test accuracy on CIFAR-100 in per cent, from the authors' README:

    | teacher and student | WTTM |
    |---|---|
    | wrn_40_2 and wrn_16_2, wrn_40_1 | 76.37, 74.58 |
    | resnet56 and resnet20 | 71.92 |
    | resnet110 and resnet20, resnet32 | 71.67, 74.13 |
    | resnet32x4 and resnet8x4 | 76.06 |
    | vgg13 and vgg8, MobileNetV2 | 74.44, 69.16 |
    | ResNet50 and MobileNetV2, vgg8 | 69.59, 74.82 |
    | resnet32x4 and ShuffleNetV1, ShuffleNetV2 | 74.37, 76.55 |
    | wrn_40_2 and ShuffleNetV1 | 75.42 |

    They belong to the recipe of the preset, and are means of 5 runs (networks of one family) or 3; the authors' code
    prints the best test epoch. On ImageNet, by the recipe of torchdistill: ResNet34 and ResNet18 72.19, ResNet50 and
    MobileNetV1 73.09.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits.
        temperature: $T$, the paper's $1/\gamma$, above zero.
        beta: $\beta$, zero or more.

    Raises:
        UserError: If the temperature is not above zero and finite, or `beta` is negative.

    Paper: Zheng, Yang, Knowledge Distillation Based on Transformed Teacher Matching, ICLR 2024.

    Differences: none known in the loss. The paper's appendix has temperature and $\beta$ of each pair, and could not be
        read; the defaults are those of its README's example, which adds CRD with a weight of 0.8.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, *, temperature: float = 5.0, beta: float = 4.0) -> None:
        _check(temperature, beta)
        super().__init__({"wttm": beta})
        self.student, self.teacher, self.temperature = FeatureExtractor(student), teacher, temperature

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the weighted divergence from the softened teacher as `wttm`."""
        student = self.student(batch.inputs).logits
        return {**batch.supervised(student), "wttm": wttm_loss(student, self.teacher(batch).logits, self.temperature)}


def ttm_loss(student: Tensor, teacher: Tensor, temperature: float = 10.0) -> Tensor:
    r"""Return $\mathrm{KL}(\mathrm{softmax}(z^t / T) \,\|\, \mathrm{softmax}(z^s))$, the mean over batch and places.

    Args:
        student: Logits `[batch, class]` (or `[batch, class, ...]`).
        teacher: The same; no gradient flows into them.
        temperature: $T$, which divides the teacher's logits alone.

    Raises:
        ValueError: If the two shapes differ, or the temperature is not above zero and finite.

    Paper: Zheng, Yang, Knowledge Distillation Based on Transformed Teacher Matching, ICLR 2024.
    """
    return _matchings(student, teacher, temperature).mean()


def wttm_loss(student: Tensor, teacher: Tensor, temperature: float = 5.0) -> Tensor:
    r"""Return $w \, \mathrm{KL}(\mathrm{softmax}(z^t / T) \,\|\, \mathrm{softmax}(z^s))$, a mean over samples.

    Args:
        student: Logits `[batch, class]` (or `[batch, class, ...]`).
        teacher: The same; no gradient flows into them.
        temperature: $T$, which divides the teacher's logits alone.

    Raises:
        ValueError: If the two shapes differ, or the temperature is not above zero and finite.

    Paper: Zheng, Yang, Knowledge Distillation Based on Transformed Teacher Matching, ICLR 2024.
    """
    # The mean is taken after the weights, which are not normalised.
    each = _matchings(student, teacher, temperature)
    return (sample_weights(teacher, temperature) * each).mean()


def sample_weights(teacher: Tensor, temperature: float) -> Tensor:
    r"""Return the weight of each sample or place, $w = \sum_k (p^t_k)^{1/T}$: `[batch]`, or `[batch, ...]`.

    Args:
        teacher: Logits `[batch, class]` (or `[batch, class, ...]`); no gradient flows into them.
        temperature: $T$, above zero.
    """
    raw = wide(teacher.detach())
    # The power of a probability that was rounded to zero would be zero, so the powers are taken of the logits.
    return ((raw / temperature).logsumexp(1) - raw.logsumexp(1) / temperature).exp()


def _matchings(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the divergence at each sample or place."""
    check_shapes(student, teacher)
    check_temperature(temperature)
    # At temperature 1 for both: only the teacher's logits have been divided.
    return divergences(student, wide(teacher) / temperature)


def _check(temperature: float, beta: float) -> None:
    check_temperature(temperature)
    if not beta >= 0:
        raise UserError(f"beta={beta} must be zero or more: a negative one drives the student from the teacher.")
