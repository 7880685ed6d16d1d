"""WKD: the cost of moving the student's answer, or its features, to where the teacher's are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method, Progress
from tutelage.core.pairing import AUTO, Paired, Seen, pair
from tutelage.core.registry import Paper, register
from tutelage.core.schedules import Schedule
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.data.offers import Offer
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.padding import through
from tutelage.losses import UNLABELLED, check_shapes, check_temperature, wide
from tutelage.methods.parts.class_similarity import Similarity, class_distances, sharpened
from tutelage.methods.parts.gaussians import ProjectorKind, projected_by, wkd_feature_loss
from tutelage.methods.parts.transport import check_contrast, transport_costs
from tutelage.training.run import Run

WKD_PAPER = Paper(
    key="lv2024wasserstein",
    title="Wasserstein Distance Rivals {Kullback-Leibler} Divergence for Knowledge Distillation",
    authors="Lv, Jiaming and Yang, Haoyuan and Li, Peihua",
    venue="Advances in Neural Information Processing Systems",
    year=2024,
    arxiv="2412.08139",
)

Form = Literal["logits", "features", "both"]
Variant = Literal["converged", "code"]
_OF_LOGITS: tuple[Offer, ...] = ("targets", "classes", "labels", "sample-labels")
# The authors' number of iterations, whether they have converged or not.
_CODE_ITERATIONS = 10


@register(
    "wkd",
    papers=[WKD_PAPER],
    reads=(),
    uses={"targets"},
    reads_if={"form=logits": _OF_LOGITS, "form=both": _OF_LOGITS},
    family="logits",
    losses=["wkd_logit_loss", "target_loss", "wkd_feature_loss"],
)
def wkd(
    run: Run,
    student: nn.Module,
    teacher: Teacher,
    data: Data,
    example: Any,
    *,
    form: Form = "logits",
    variant: Variant = "converged",
    weight: float = 200.0,
    temperature: float = 8.0,
    similarity: Similarity = "features",
    samples: int = 50,
    sharpness: float = 1.0,
    epsilon: float = 0.05,
    tolerance: float = 1e-4,
    feature_weight: float = 0.08,
    mean_weight: float = 4.0,
    grid: int = 1,
    projector: ProjectorKind = "conv",
    final_relu: bool = False,
    layers: str = AUTO,
    decay_from: float = 0.625,
) -> nn.Module:
    r"""WKD: what it costs to move the student's answer to the teacher's, where like classes are near each other.

    $$ L = H(q, p) - p^t(y) \log p^s(y) + \lambda(e) \sum_{ij} P_{ij} c_{ij} + \mu(e) \left[ r \, \|m^s - m^t\|^2
    + \|\sigma^s - \sigma^t\|^2 \right], \qquad c_{ij} = 1 - e^{-\kappa d_{ij}} $$

    $P$ is the cheapest plan with an entropy term, of weight $\varepsilon$, that moves the student's probabilities at
    temperature $T$ to the teacher's, of all classes but the label's. $d_{ij}$ is how unlike two classes are to the
    teacher: found before the training, from the first `samples` images of each class, in the order of the training data
    and without augmentation. $m$ and $\sigma$ are the means and deviations of each channel of the two networks' last
    maps, in each cell of a grid, the student's after a projector that is thrown away. `form` chooses the second and
    third term (WKD-L), the last (WKD-F), or all. With two classes, the transport costs nothing. Both weights stay, and
    then fall to zero in half a cosine.

    The published settings, all with `variant=code`, `final_relu=true` and, on CIFAR-100, `samples=500`:

    | teacher and student | form | weight, temperature | feature_weight, mean_weight, grid | accuracy |
    |---|---|---|---|---|
    | resnet32x4, resnet8x4 | logits | 600, 8 | | 76.53 |
    | | features | | 0.08, 4, 1 | 76.77 |
    | | both | 200, 8 | 0.08, 8, 1 | 77.28 |
    | wrn_40_2, ShuffleNetV1 | logits | 200, 6 | | 76.72 |
    | | features | | 0.3, 3, 4 | 77.36 |
    | | both | 60, 4 | 0.5, 3, 4 | 77.50 |
    | ImageNet: ResNet34, ResNet18 | logits | 30, 2 | | 72.49 |
    | | features | | 0.02, 2, 4 | 72.50 |
    | | both | 10, 2 | 1.0, 2, 4 | 72.76 |
    | ImageNet: ResNet50, MobileNetV1 | logits | 25, 2; `sharpness=2` | | 73.17 |
    | | features | | 0.005, 2, 4 | 73.12 |
    | | both | 25, 2; `sharpness=2` | 0.005, 2, 4 | 73.69 |

    CIFAR-100 is the preset's recipe; ImageNet is 100 epochs of SGD at 0.1 in batches of 256, with `decay_from=0`,
    `similarity=logits` and `projector=bottleneck`. All are of the best test epoch. 1.0 is as the authors print it.

    Args:
        run: The run whose stages these are.
        student: The network to train.
        teacher: The network that teaches; with `form=logits` and `similarity=logits` any that answers.
        data: The data.
        example: Inputs for one forward pass.
        form: `logits`, `features` or `both`.
        variant: `converged` iterates to the tolerance; `code` takes the authors' ten iterations, after which the plan
            may be cheaper than the cheapest one, and their $\sigma$ with $n - 1$ places for $n$.
        weight: $\lambda$.
        temperature: $T$ of the transport; the second term has none.
        similarity: Of what classes are compared: the rows of the teacher's last map or of its logits, by one minus
            their linear CKA; or their weights in its classifier, by one minus the cosine.
        samples: Images of each class that are compared; as many as the smallest class has, if these are fewer.
        sharpness: $\kappa$.
        epsilon: $\varepsilon$, the weight of the entropy.
        tolerance: Of `converged`: the largest total error of the teacher's probabilities in the plan.
        feature_weight: $\mu$.
        mean_weight: $r$.
        grid: Cells along each side of the map; no more than it has places.
        projector: `conv`, a 1x1 convolution, or `bottleneck`, of three; then a batch norm.
        final_relu: Whether the projector ends in a ReLU, as the authors' does. It then never reaches negative values
            of a teacher whose stages end without one.
        layers: The maps: `auto`, the ends of the last stages, or pairs by name, `student_layer:teacher_layer`, joined
            by `+`, which are summed; classes are compared in the first.
        decay_from: Share of the run after which the weights fall.

    Raises:
        UserError: If a number is out of range, a class has no training sample, or a layer cannot be read.

    Paper: Lv et al., Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation, NeurIPS 2024.

    Differences: The paper's own text was not read. The authors add 1e-8 to the cost and to every sum; here all is in
        log-space, which moves the eighth digit. They compare 500 images of each class of CIFAR-100 in the order of the
        data, on ImageNet the logits of shuffled ones; the cost depends on that order. Their weights fall from epoch to
        epoch, ours from batch to batch. They cut labels that are probabilities down to the likeliest class; so do we in
        the transport, while the second term takes them as they are. Samples without a label are left out of both. A
        cell of one place has no deviation, where theirs is NaN. Maps of other sizes are not brought to one size: their
        cells are parts of the map. Of a padded text, classes are compared by the means of its tokens, and it takes a
        grid of 1.
    """
    _check(temperature, sharpness, grid, samples)
    paired = None
    # Layers are read for the term of features, and to compare classes by them; else the teacher need have none.
    if form != "logits" or similarity == "features":
        seen = Seen.of(student, teacher, example)
        paired = pair(student, teacher, layers, seen, take="last", logits=form == "both")
    cost, gaussian = None, None
    if form != "features":
        distances = class_distances(run, teacher, data, example, kind=similarity, samples=samples, paired=paired)
        cost = sharpened(distances, sharpness)
        # Before the training, not in its first step.
        check_contrast(cost, epsilon)
    if form != "logits":
        # The authors divide the variance by one place less.
        gaussian = {"mean_weight": mean_weight, "grid": grid, "ddof": 1 if variant == "code" else 0}
    iterations = _CODE_ITERATIONS if variant == "code" else None
    transport = {"temperature": temperature, "epsilon": epsilon, "tolerance": tolerance, "iterations": iterations}
    weights = {"transport": held(weight, decay_from), "features": held(feature_weight, decay_from)}
    method = WKD(student, teacher, paired, cost, transport, gaussian, weights, kind=projector, final_relu=final_relu)
    return run.fit("distill", method, data)


class WKD(Method):
    """The training of WKD, in which the classes have been compared.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits.
        paired: Student and teacher that read their last maps; not needed without `gaussian`.
        cost: Cost of moving from one class to another, `[class, class]`; None without the terms of logits.
        transport: Settings of these, see `wkd_logit_loss`.
        gaussian: Settings of the term of features, see `wkd_feature_loss`; None without it.
        weights: Those of the losses `transport` and `features`.
        kind: The projectors'.
        final_relu: Whether they end in a ReLU.
    """

    cost: Tensor | None

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        paired: Paired | None,
        cost: Tensor | None,
        transport: Mapping[str, Any],
        gaussian: Mapping[str, Any] | None,
        weights: Mapping[str, Schedule],
        *,
        kind: ProjectorKind = "conv",
        final_relu: bool = False,
    ) -> None:
        terms = {"transport": cost, "features": gaussian}
        # Only the weights of losses that are yielded.
        super().__init__({name: weight for name, weight in weights.items() if terms[name] is not None})
        # A buffer, so that it moves to the device and is saved: it was learned from the data. It has the type of the
        # student's losses, whatever the classes' distances were measured in.
        number_type = torch.promote_types(next(student.parameters()).dtype, torch.float32)
        self.register_buffer("cost", None if cost is None else cost.to(number_type))
        self.transport, self.gaussian = transport, gaussian
        if gaussian is None or paired is None:
            self.student, self.teacher = FeatureExtractor(student), teacher
        else:
            self.student, self.teacher, self.pairs = paired
            widths = [(one.student.channels, one.teacher.channels) for one in self.pairs]
            self.projectors = nn.ModuleList(projected_by(kind, *both, final_relu=final_relu) for both in widths)
            adapting(self.projectors, student)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, and of the forms that are chosen `target`, `transport` and `features`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        losses = batch.supervised(student.logits)
        if self.cost is not None:
            answers = student.logits, teacher.logits, batch.labels
            moved = wkd_logit_loss(*answers, self.cost, **self.transport)
            losses |= {"target": target_loss(*answers), "transport": moved}
        if self.gaussian is not None:
            terms = []
            for one, projector in zip(self.pairs, self.projectors, strict=True):
                ours, theirs, mask = one.compared(student, teacher)
                terms.append(wkd_feature_loss(through(projector, ours, mask), theirs, **self.gaussian, mask=mask))
            losses["features"] = torch.stack(terms).sum()
        return losses


def wkd_logit_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    cost: Tensor,
    temperature: float = 1.0,
    *,
    epsilon: float = 0.05,
    tolerance: float = 1e-4,
    iterations: int | None = None,
) -> Tensor:
    """Return what it costs to move the student's probabilities to the teacher's, of all classes but the label's.

    Args:
        student_logits: `[batch, class]`.
        teacher_logits: `[batch, class]`; no gradient flows into them.
        labels: Class indices `[batch]`, -1 where there is none; or probabilities `[batch, class]`, of which the
            likeliest class counts.
        cost: Cost of moving from one class to another, `[class, class]`.
        temperature: Softens both.
        epsilon: Weight of the entropy, see `transport_costs`.
        tolerance: Total error of a plan at which the iterations end.
        iterations: Their number instead.

    Returns:
        The mean over the samples with a label; 0 where none has.
    """
    check_shapes(student_logits, teacher_logits)
    check_temperature(temperature)
    # The transport leaves out one class, so labels that are probabilities have to choose one.
    labels = labels.argmax(1) if labels.is_floating_point() else labels
    known = labels != UNLABELLED
    own = torch.zeros_like(student_logits, dtype=torch.bool).scatter(1, labels.clamp(min=0)[:, None], True)
    student, teacher = (
        # Without the label's class, before the softmax: the others then share all of the probability.
        (wide(logits) / temperature).masked_fill(own, -torch.inf).log_softmax(1)
        for logits in (student_logits, teacher_logits.detach())
    )
    costs = transport_costs(student, teacher, cost, epsilon=epsilon, tolerance=tolerance, iterations=iterations)
    return costs.where(known, 0.0).sum() / known.sum().clamp(min=1)


def target_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -p_t(y) log p_s(y) over the samples with a label; 0 where none has.

    Args:
        student_logits: `[batch, class]`.
        teacher_logits: `[batch, class]`; no gradient flows into them.
        labels: Class indices `[batch]`, -1 where there is none; or probabilities `[batch, class]`, by which the
            terms of all classes are weighted.
    """
    terms = wide(teacher_logits.detach()).softmax(1) * wide(student_logits).log_softmax(1)
    if labels.is_floating_point():
        return -(labels * terms).sum(1).mean()
    known = labels != UNLABELLED
    # An unlabelled sample takes class 0, only because `gather` needs an index.
    own = terms.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return -own.where(known, 0.0).sum() / known.sum().clamp(min=1)


def held(value: float, until: float) -> Schedule:
    """Return a weight `value` that stays until a share of the run, and then falls to zero in half a cosine.

    Raises:
        UserError: If the weight is negative, or `until` is not between 0 and 1.
    """
    if not (value >= 0 and 0 <= until <= 1):
        raise UserError(f"Weights, here {value}, must be zero or more, and decay_from={until} a share of the run.")

    def weight(progress: Progress) -> float:
        # With `until` at 1 the weight never falls, and nothing is divided by zero.
        done = max(0.0, progress.fraction - until) / max(1 - until, 1e-9)
        return value * (1 + math.cos(math.pi * min(1.0, done))) / 2

    return weight


def _check(temperature: float, sharpness: float, grid: int, samples: int) -> None:
    check_temperature(temperature)
    if min(grid, samples) < 1 or not sharpness > 0:
        raise UserError(f"grid={grid} and samples={samples} must be 1 or more, sharpness={sharpness} above zero.")
