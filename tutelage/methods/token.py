"""The distillation token of DeiT: one head learns the labels, another one the teacher, and both stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.features.anatomy import classifier
from tutelage.features.extractor import FeatureExtractor, value_at
from tutelage.features.trace import Trace
from tutelage.losses import Reduction, check_shapes, cross_entropy, kd_loss, log_mean_probability
from tutelage.methods.kd import check_soft_term
from tutelage.models.answers import uncompiled
from tutelage.models.composed import composed, place_of
from tutelage.models.copies import copy_of
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalized, bare
from tutelage.models.saving import architecture_of
from tutelage.models.spec import NetworkSpec
from tutelage.system.console import Reporter

DEIT = Paper(
    key="touvron2021training",
    title="Training Data-Efficient Image Transformers and Distillation through Attention",
    authors="Touvron, Hugo and Cord, Matthieu and Douze, Matthijs and Massa, Francisco and Sablayrolles, Alexandre "
    "and J{\\'e}gou, Herv{\\'e}",
    venue="International Conference on Machine Learning",
    year=2021,
    arxiv="2012.12877",
)

Target = Literal["hard", "soft"]
# What timm and transformers call the two heads.
_NAMES = (("head", "head_dist"), ("cls_classifier", "distillation_classifier"))


@register(
    "token",
    papers=[DEIT],
    losses=["head_loss"],
    reads={"targets", "answers", "classes", "sample-answers"},
    family="logits",
)
class Token(Method):
    r"""Distillation token: a head of its own learns from the teacher, beside the one that learns the labels.

    $$ L = (1 - \alpha) H(q, p) + \alpha \, L_d(z^d), \qquad L_d = H(\arg\max_c z^t_c, \, p^d)
    \quad \text{or} \quad T^2 \, \mathrm{KL}(p^t_T \,\|\, p^d_T), \qquad z = (z^c + z^d) / 2 $$

    $p$ is the answer of the class head $z^c$, and $p^d$ that of the distillation head $z^d$. In a vision transformer,
    each reads a token of its own. The student ships with both, and answers with the mean of their logits. What each of
    them says is measured beside it, as `class-head` and `distillation-head`, and as `ensemble` the log of their mean
    probability.

    The student is a network that has two heads: timm's distilled DeiT, LeViT and PiT, its EfficientFormer and RepViT
    (`timm:deit_tiny_distilled_patch16_224`), or transformers' `DeiTForImageClassificationWithTeacher`. Any other gets a
    second head beside its classifier, which reads the same input: that is no token, and a note says so.

    Published on ImageNet, with RegNetY-16GF as the teacher, 300 epochs of AdamW and the augmentation of the preset's
    comment (the authors' code): DeiT-Ti, S and B reach 72.2, 79.9 and 81.8 % without, 74.5, 81.2 and 83.4 % with hard
    distillation.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits; it sees the images as the student does, mixed and erased.
        example: Inputs for one forward pass.
        reporter: Receives a note if the student gets its second head here.
        target: `hard` takes the teacher's likeliest class as a label, `soft` its probabilities.
        alpha: $\alpha$, from 0 to 1.
        temperature: $T$ of the soft term.
        reduction: `batchmean`, or `mean` to divide the soft term by the number of classes, as the authors' code does.
        heads: The two heads, as `class_head:distillation_head`; `auto` finds them by their names.

    Raises:
        UserError: If `alpha` is not between 0 and 1, the temperature is not above zero, or the student's answer is not
            the mean of two heads.

    Paper: Touvron et al., Training Data-Efficient Image Transformers and Distillation through Attention, ICML 2021.

    Differences: By accounts of the paper it adds the probabilities of the two heads, where the authors' code takes the
        mean of the logits, as here; `ensemble` measures the former. The soft term is a mean over the batch; the code's
        is a mean over the classes too (`reduction=mean`), 1000 times smaller on ImageNet. The paper's soft term is said
        to have $\alpha = 0.1$ and $T = 3$; the code's defaults are those here. timm answers with the two logits apart
        in training once it is told to; here both heads are read inside the network, which always answers with the mean.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        reporter: Reporter | None = None,
        *,
        target: Target = "hard",
        alpha: float = 0.5,
        temperature: float = 1.0,
        reduction: Reduction = "batchmean",
        heads: str = AUTO,
    ) -> None:
        check_soft_term(alpha, temperature)
        # One head learns the labels, the other the teacher.
        super().__init__({"ce": 1 - alpha, "token": alpha})
        student = uncompiled(student)
        # The method reads the heads inside the network, so its answer must be the deployed one in train mode as well.
        answer_with_the_mean(student)
        self._heads = heads_of(student) if heads == AUTO else named_heads(heads)
        if not self._heads:
            self._heads = add_head(student, example)
            if reporter is not None:
                reporter.note(
                    f"{type(bare(student)).__name__} has no distillation token: it gets a second head beside its "
                    f"classifier ({self._heads[1]}), which reads the same input.",
                    once=True,
                )
        trace = Trace.of(student, example)
        self.student, self.teacher = FeatureExtractor(student, self._heads, example=trace), teacher
        # After both ways to find the heads: a name that fits may still belong to layers that mean something else.
        check_mean(trace, self._heads)
        self.target, self.temperature, self.reduction = target, temperature, reduction

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the class head's cross-entropy as `ce`, and the distillation head's loss as `token`."""
        of_classes, of_teacher = self._answers(self.student(batch.inputs))
        teacher = self.teacher(batch).logits
        options: Any = {"target": self.target, "temperature": self.temperature, "reduction": self.reduction}
        return {"ce": batch.loss(of_classes), "token": head_loss(of_teacher, teacher, **options)}

    def forward(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return the mean of both heads' logits, as `student`, each of them, and the log of their mean probability."""
        output = self.student(inputs)
        answers = self._answers(output)
        # Each head is scored by itself; none of them is deployed alone.
        alone = dict(zip(("class-head", "distillation-head"), answers, strict=True))
        return {"student": output.logits, **alone, "ensemble": log_mean_probability(torch.stack(answers))}

    def _answers(self, output: Output) -> tuple[Tensor, Tensor]:
        """Return the logits of the class head and of the distillation head, `[batch, class]`."""
        of_classes, of_teacher = (output.features[name].flatten(1) for name in self._heads)
        return of_classes, of_teacher


def head_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    target: Target = "hard",
    temperature: float = 1.0,
    reduction: Reduction = "batchmean",
) -> Tensor:
    """Return the loss of the distillation head, the mean over the batch.

    Args:
        student_logits: Those of the distillation head, `[batch, class]`.
        teacher_logits: `[batch, class]`; no gradient flows into them.
        target: `hard` takes the teacher's likeliest class as a label, `soft` its probabilities.
        temperature: $T$ of the soft term.
        reduction: `batchmean`, or `mean` to divide the soft term by the number of classes.

    Raises:
        ValueError: If the shapes differ.
    """
    check_shapes(student_logits, teacher_logits)
    if target == "hard":
        # A label that the teacher gives: it has no temperature and no divisor.
        return cross_entropy(student_logits, teacher_logits.argmax(1))
    return kd_loss(student_logits, teacher_logits, temperature, reduction=reduction)


def token_loss(
    class_logits: Tensor,
    distillation_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    target: Target = "hard",
    alpha: float = 0.5,
    temperature: float = 1.0,
    reduction: Reduction = "batchmean",
) -> Tensor:
    r"""Return $(1 - \alpha) H(q, p) + \alpha L_d$, the mean over the batch.

    Args:
        class_logits: Those of the class head, `[batch, class]`.
        distillation_logits: Those of the distillation head, `[batch, class]`.
        teacher_logits: `[batch, class]`; no gradient flows into them.
        labels: Class indices `[batch]`, or probabilities `[batch, class]`.
        target: `hard` takes the teacher's likeliest class as a label, `soft` its probabilities.
        alpha: $\alpha$.
        temperature: $T$ of the soft term.
        reduction: `batchmean`, or `mean` to divide the soft term by the number of classes.
    """
    options: Any = {"target": target, "temperature": temperature, "reduction": reduction}
    distilled = head_loss(distillation_logits, teacher_logits, **options)
    return (1 - alpha) * cross_entropy(class_logits, labels) + alpha * distilled


class TwoHeads(nn.Module):
    """Two classifiers of one input, which answer with the mean of their logits.

    Args:
        head: The class head.
        head_dist: The distillation head.
    """

    def __init__(self, head: nn.Module, head_dist: nn.Module) -> None:
        super().__init__()
        self.head, self.head_dist = head, head_dist

    def forward(self, embedding: Tensor) -> Tensor:
        """Return `[batch, class]`."""
        # The mean of the logits, as the authors' code takes it.
        mean: Tensor = (self.head(embedding) + self.head_dist(embedding)) / 2
        return mean


def heads_of(network: nn.Module) -> tuple[str, ...]:
    """Return the names of a network's class head and distillation head; nothing if it has not both."""
    for path, module in bare(network).named_modules():
        # Both heads are parts of one module; layers of these names elsewhere are not taken.
        children = dict(module.named_children())
        for names in _NAMES:
            if all(name in children for name in names):
                return tuple(f"{path}.{name}".lstrip(".") for name in names)
    return ()


def named_heads(heads: str) -> tuple[str, ...]:
    """Return the two heads that a user names.

    Raises:
        UserError: If these are not two names with a colon between them.
    """
    names = tuple(name.strip() for name in heads.split(":"))
    if len(names) != 2 or not all(names):
        raise UserError(f"heads={heads} must name two layers, class_head:distillation_head, or be auto.")
    return names


def answer_with_the_mean(network: nn.Module) -> None:
    """Let a network of timm answer with the mean of its heads in training too, and not with two answers."""
    for module in network.modules():
        switch = getattr(module, "set_distilled_training", None)
        if callable(switch):
            switch(False)


def check_mean(trace: Trace, heads: tuple[str, ...]) -> None:
    """Refuse a student whose answer is not the mean of its two heads.

    Raises:
        UserError: If it is not.
    """
    one, other = (value_at(trace, name).flatten(1) for name in heads)
    if one.shape != other.shape or not torch.allclose((one + other) / 2, trace.logits, rtol=1e-4, atol=1e-5):
        raise UserError(
            f"{type(trace.network).__name__} does not answer with the mean of {heads[0]} and {heads[1]}: name its two "
            "heads, --heads class_head:distillation_head."
        )


def add_head(student: nn.Module, example: Any) -> tuple[str, ...]:
    """Put an untrained second head beside a network's classifier, and return the names of both.

    Args:
        student: The network, changed in place; the spec of one that was built by name too.
        example: Inputs for one forward pass.

    Raises:
        UserError: If its classifier cannot be found.
    """
    name = classifier(student, example)
    # The spec tells how a saved network is built again, and must know of the second head.
    if isinstance(student, Normalized) and student.spec is not None:
        known = NetworkSpec.parse(student.spec)
        options = {"student": architecture_of(student.spec), "classifier": name}
        student.spec = str(NetworkSpec(target=place_of(two_headed), options=options, normalize=known.normalize))
    return graft(bare(student), name)


def graft(network: nn.Module, name: str) -> tuple[str, ...]:
    """Put an untrained second head beside a classifier, and return the names of both.

    Args:
        network: The bare network, changed in place.
        name: Name of its classifier.
    """
    own = network.get_submodule(name)
    # Of the kind and the shape of the first, with weights of its own.
    other = copy_of(own)
    assert isinstance(other, nn.Linear | nn.Conv2d)
    other.reset_parameters()
    network.set_submodule(name, TwoHeads(own, other))
    return f"{name}.head", f"{name}.head_dist"


@composed
def two_headed(student: str | NetworkSpec, classifier: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """Return a network with a second head beside its classifier, without weights. A saved one is built with this.

    Args:
        student: The architecture of the network, as `NetworkSpec` reads it.
        classifier: Name of its classifier.
        num_classes: Number of classes.
        in_channels: Channels of the images.
    """
    network = load_network(student, num_classes=num_classes, in_channels=in_channels).model
    graft(network, classifier)
    return network
