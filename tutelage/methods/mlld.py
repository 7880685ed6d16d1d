"""Multi-level logit distillation: matches answers, relations of samples and relations of classes, on two views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.adapting import in_one_type
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import (
    check_shapes,
    check_temperature,
    divergences,
    refuse_second_derivative,
    standardize,
    under_transform,
    wide,
)
from tutelage.methods.parts.papers import LSKD

MLLD_PAPER = Paper(
    key="jin2023multi",
    title="Multi-Level Logit Distillation",
    authors="Jin, Ying and Wang, Jiaqi and Lin, Dahua",
    venue="Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
    year=2023,
)

Pair = tuple[Tensor, Tensor]
Variant = Literal["paper", "code"]

TEMPERATURES = (4.0, 3.0, 5.0, 2.0, 6.0)

# Of the released code: from the fourth temperature on, the strong view's term reads the weak view.
_STRONG_IN_CODE = 3


@register(
    "mlld",
    papers=[MLLD_PAPER, LSKD],
    losses=["mlld_losses"],
    reads={"images", "classes", "sample-answers"},
    uses={"targets"},
    family="logits",
    exceptions={
        "parts-of-a-batch-add-up": "a batch is compared with itself, cut at its median, and its view is drawn",
        "accepts-other-teachers": "a recorded answer belongs to one view, and the strong one is made in the step",
    },
)
class MLLD(Method):
    r"""Multi-level logit distillation: the student matches probabilities, and how samples and classes relate by them.

    For a weak and a strong view of the same images, at each temperature $T$, with $P = \mathrm{softmax}(z / T)$ a
    matrix of $B$ samples and $K$ classes:

    $$ L_{\mathrm{instance}} = \frac{T^2}{B} \sum_b m_b \, \mathrm{KL}(P^t_b \,\|\, P^s_b), \quad
       L_{\mathrm{batch}} = \frac{1}{B} \sum_b m_b \, \| (P^t P^{t\top} - P^s P^{s\top})_b \|^2, \quad
       L_{\mathrm{class}} = \frac{1}{K} \sum_k c_k \, \| (P^{t\top} P^t - P^{s\top} P^s)_k \|^2 $$

    The loss is their weighted sum over views and temperatures, and the cross-entropy of both views. On the weak view,
    $m$ keeps the half of the samples on which the teacher is less confident, and $c$ the half of the classes with the
    lower total probability; on the strong view, both are 1. Without labels the cross-entropies are left out.

    With `standardize` the instance term, and no other, reads standardised logits (LSKD, see `kd`). The LSKD authors
    then have 2 in place of the 4 among the temperatures, and a weight of 9 or 6.

    Args:
        student: The network to train. It sees both views, one after the other, so its batch-norm statistics move
            twice a step.
        teacher: Any live teacher that gives logits; it is asked about both views.
        example: Inputs: images in [0, 1].
        temperatures: All $T$.
        ce_weight: Weight of the cross-entropy.
        instance_weight: Weight of the term on single answers.
        batch_weight: Weight of the term on samples.
        class_weight: Weight of the term on classes.
        variant: `paper`, or `code` for what the released code computes (see Differences).
        standardize: Whether the instance term reads standardised logits; nothing else does.
        standardize_ddof: 1 divides the variance by $K - 1$ (the LSKD authors' code), 0 by $K$ (their paper).
        strong: What makes the strong view of the weak one.

    Raises:
        UserError: If a temperature is not above zero, a weight is negative, the inputs are not images in [0, 1], or the
            teacher is a recording, which has answers to one view only.

    Paper: Jin et al., Multi-Level Logit Distillation, CVPR 2023. `standardize`: Sun et al., Logit Standardization in
        Knowledge Distillation, CVPR 2024.

    Differences: The released code averages each loss before it masks it, so its masks are factors, the shares of
        samples and classes kept; the strong view's instance term reads the weak view from the fourth temperature on;
        and the strong view has no batch and class terms. All of this is `variant="code"`. Our reading in
        `variant="paper"`: a mask picks rows of the difference of the Gram matrices, means are over all samples or
        classes, and the masks act on the weak view only, as they do in the code. The strong view starts from the weak
        one (its crop and flip), and is made on the device; the ranges of its operations are recalled, not checked.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        temperatures: tuple[float, ...] = TEMPERATURES,
        ce_weight: float = 0.1,
        instance_weight: float = 0.9,
        batch_weight: float = 0.9,
        class_weight: float = 0.9,
        variant: Variant = "paper",
        standardize: bool = False,
        standardize_ddof: Literal[0, 1] = 1,
        strong: str = "randaugment:2,random-cutout",
    ) -> None:
        weights = {"ce": ce_weight, "instance": instance_weight, "batch": batch_weight, "class": class_weight}
        _check(temperatures, weights, teacher)
        super().__init__(weights)
        self.student, self.teacher, self.strong = FeatureExtractor(student), teacher, Augmentation.parse(strong)
        self.temperatures, self.variant = temperatures, variant
        # None stands for raw logits.
        self.ddof = standardize_ddof if standardize else None
        # Inputs without a strong view fail here, at construction, not in the first step.
        self.strong_view(example, Generator())

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy of both views as `ce`, and the terms `instance`, `batch` and `class`."""
        # A view is drawn on the CPU, so the state of its generator decides it.
        state = torch.get_rng_state()
        strong = self.strong_view(batch.inputs, torch.default_generator)
        seen = None
        if batch.teacher_inputs is not None:
            # The random state is put back, so that the teacher's inputs get the same view.
            torch.set_rng_state(state)
            seen = self.strong_view(batch.teacher_inputs, torch.default_generator)
        views = batch, Batch(inputs=strong, targets=batch.targets, indices=batch.indices, teacher_inputs=seen)
        weak_pair, strong_pair = ((wide(self.student(v.inputs).logits), wide(self.teacher(v).logits)) for v in views)
        check_shapes(*weak_pair)
        # Autocast would multiply matrices in half precision.
        with torch.autocast(device_type=strong.device.type, enabled=False):
            weak, strongs = (batch.supervised(student) for student, _ in (weak_pair, strong_pair))
            hard = {name: loss + strongs[name] for name, loss in weak.items()}
            return hard | mlld_losses(
                *weak_pair, *strong_pair, self.temperatures, variant=self.variant, standardize_ddof=self.ddof
            )

    def strong_view(self, inputs: Any, generator: Generator) -> Tensor:
        """Return the strong view of images.

        Args:
            inputs: Images `[batch, channel, height, width]` in [0, 1].
            generator: A CPU generator, from which the view is drawn.

        Raises:
            UserError: If they are not such images.
        """
        if not (isinstance(inputs, Tensor) and inputs.ndim == 4):
            raise UserError("mlld makes a strong view of images: for other inputs, choose a method such as kd.")
        view = self.strong.sample(generator, inputs.shape[0], (inputs.shape[2], inputs.shape[3]))
        return self.strong.apply(inputs, view)


def mlld_losses(
    student_weak: Tensor,
    teacher_weak: Tensor,
    student_strong: Tensor,
    teacher_strong: Tensor,
    temperatures: Sequence[float] = TEMPERATURES,
    *,
    variant: Variant = "paper",
    standardize_ddof: int | None = None,
) -> dict[str, Tensor]:
    """Return how far the student's probabilities are from the teacher's, as `instance`, `batch` and `class`.

    Args:
        student_weak: The student's logits for the weak view, `[batch, class]`.
        teacher_weak: The teacher's; no gradient flows into them.
        student_strong: The student's logits for the strong view.
        teacher_strong: The teacher's.
        temperatures: All $T$, at least one.
        variant: `paper`, or `code` for what the released code computes.
        standardize_ddof: If given, the instance term reads standardised logits, with this `ddof`.
    """
    weak, strong = (student_weak, teacher_weak), (student_strong, teacher_strong)
    samples, classes = masks(teacher_weak)
    if variant == "code":
        # The released code averages a loss before it masks it, which leaves only the share of what is kept as a factor.
        samples, classes = samples.mean(), classes.mean()
    # The masks come from the weak view, and act on it alone.
    between_samples, between_classes = _relations(weak, temperatures, samples, classes)
    if variant == "paper":
        # The released code has no such terms for the strong view. Nothing is masked there.
        of_strong = _relations(strong, temperatures)
        between_samples, between_classes = between_samples + of_strong[0], between_classes + of_strong[1]
    if standardize_ddof is not None:
        weak = standardize(weak[0], ddof=standardize_ddof), standardize(weak[1], ddof=standardize_ddof)
        strong = standardize(strong[0], ddof=standardize_ddof), standardize(strong[1], ddof=standardize_ddof)
    end = len(temperatures) if variant == "paper" else _STRONG_IN_CODE
    first, rest = temperatures[:end], temperatures[end:]
    # The weak view has all temperatures; the strong view has them too, or what the released code leaves of them.
    instances = instance_loss(*weak, temperatures, samples) + instance_loss(*strong, first)
    instances = instances + instance_loss(*weak, rest) if rest else instances
    return {"instance": instances, "batch": between_samples, "class": between_classes}


def _relations(
    pair: Pair, temperatures: Sequence[float], samples: Tensor | float = 1.0, classes: Tensor | float = 1.0
) -> Pair:
    student, teacher = (_soften(logits, temperatures).softmax(-1) for logits in pair)
    # Transposed, the same loss compares classes instead of samples.
    return gram_loss(student, teacher, samples), gram_loss(student.mT, teacher.mT, classes)


def masks(teacher: Tensor) -> Pair:
    """Return 1 for each sample and for each class to keep, `[batch]` and `[class]`, else 0.

    It keeps the samples with a confidence of the teacher up to the median, and the classes with a total probability up
    to the median.

    Args:
        teacher: The teacher's logits, `[batch, class]`.
    """
    probabilities = teacher.softmax(1)
    confidence, given = probabilities.amax(1), probabilities.sum(0)
    # For an even number torch gives the lower median. Any other value up to the next one would keep the same samples.
    return (confidence <= confidence.median()).to(teacher.dtype), (given <= given.median()).to(teacher.dtype)


def instance_loss(
    student: Tensor, teacher: Tensor, temperatures: Sequence[float], kept: Tensor | float = 1.0
) -> Tensor:
    r"""Return $\sum_T T^2 / B \sum_b m_b \, \mathrm{KL}(p^t_b \,\|\, p^s_b)$, a scalar.

    Args:
        student: Logits `[batch, class]`.
        teacher: The teacher's logits, `[batch, class]`; no gradient flows into them.
        temperatures: All $T$, at least one.
        kept: $m$, `[batch]` or one number for all.
    """
    found = (divergences(_soften(student, temperatures), _soften(teacher, temperatures), dim=-1) * kept).mean(-1)
    return torch.stack([t**2 * divergence for t, divergence in zip(temperatures, found.unbind())]).sum()


def gram_loss(student: Tensor, teacher: Tensor, kept: Tensor | float = 1.0) -> Tensor:
    r"""Return $1/n \sum_i m_i \, \| (P^t P^{t\top} - P^s P^{s\top})_i \|^2$, summed over matrices, a scalar.

    Args:
        student: $P^s$, `[matrix, n, width]`, or `[n, width]`.
        teacher: $P^t$, the same; no gradient flows into it.
        kept: $m$, `[n]` or one number for all.
    """
    # Matrices of two types have no product.
    student, teacher = in_one_type(student, teacher.detach())
    # One matrix becomes a batch of one: `_GramLoss` takes one for each temperature.
    student, teacher = (matrices[None] if matrices.ndim == 2 else matrices for matrices in (student, teacher))
    if under_transform():
        # Transforms of torch.func do not take the hand-written gradient.
        gaps = teacher @ teacher.mT - student @ student.mT
        return (gaps.square().sum(2) * kept).mean(1).sum()
    loss: Tensor = _GramLoss.apply(student, teacher, kept)
    return loss


class _GramLoss(torch.autograd.Function):
    """The loss with its gradient, which is only as large as the student's matrices.

    Autograd would keep matrices of classes by classes, one for each temperature.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, kept: Tensor | float) -> Tensor:
        # One temperature after the other, so that only one gap of classes by classes is in memory at a time.
        found = [_gap(*matrices, kept) for matrices in zip(student.unbind(), teacher.unbind(), strict=True)]
        losses, gradients = zip(*found, strict=True)
        ctx.save_for_backward(torch.stack(gradients))
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        refuse_second_derivative()
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None


def _gap(student: Tensor, teacher: Tensor, kept: Tensor | float) -> Pair:
    """Return the loss of one pair of matrices `[n, width]`, and its gradient with respect to the student's."""
    # D S' + S D' with D the difference and S the sum, halved: one product, and no cancellation of two large ones.
    half = (teacher - student) @ (teacher + student).mT / 2
    gap = half + half.mT
    loss = (torch.linalg.vecdot(gap, gap) * kept).mean()
    # The gap is symmetric: each entry stands in two rows, so the masks of both count.
    both = kept[:, None] + kept if isinstance(kept, Tensor) and kept.ndim else 2 * kept
    return loss, gap.mul_(both) @ student * (-2 / len(student))


def _soften(logits: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Return logits over each temperature, `[temperature, batch, class]`."""
    for temperature in temperatures:
        check_temperature(temperature)
    # One by one: copying a tensor of temperatures to the device would make the CPU wait.
    return torch.stack([logits / temperature for temperature in temperatures])


def _check(temperatures: Sequence[float], weights: Mapping[str, float], teacher: Teacher) -> None:
    if not temperatures or not all(temperature > 0 for temperature in temperatures):
        raise UserError(f"temperatures={list(temperatures)} must be one number or more, each above zero.")
    for name, weight in weights.items():
        if not weight >= 0:
            raise UserError(f"{name}_weight={weight} must be zero or more: 0 leaves the term out.")
    teacher.must_be_live("mlld asks the teacher about a view that is made in the step")
