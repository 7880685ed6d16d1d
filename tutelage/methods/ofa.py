"""OFA-KD: unlike networks meet in their answers alone, and each stage of the student answers through an exit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.anatomy import stages
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.trace import Trace
from tutelage.losses import UNLABELLED, check_shapes, check_temperature, wide
from tutelage.methods.parts.logit_exits import exit_behind, places

OFA_PAPER = Paper(
    key="hao2023one",
    title="One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
    authors="Hao, Zhiwei and Guo, Jianyuan and Han, Kai and Tang, Yehui and Hu, Han and Wang, Yunhe and Xu, Chang",
    venue="Advances in Neural Information Processing Systems",
    year=2023,
    arxiv="2310.19444",
)

Variant = Literal["code", "paper"]


@register(
    "ofa",
    papers=[OFA_PAPER],
    losses=["ofa_loss"],
    reads={"targets", "classes", "labels", "sample-answers"},
    family="logits",
)
class OFA(Method):
    r"""OFA-KD: each stage of the student learns the teacher's answer through an exit of its own, for unlike networks.

    $$ L = H(q, p) + \alpha \, \ell(z) + \beta \sum_i \ell(z_i), \qquad
    \ell(z) = -\sum_c \left[ (p^t_c + 1_{c = y})^\gamma - 1_{c = y} \right] \log p_c(z) $$

    $z$ is the student's answer, $z_i$ that of the exit behind its stage $i$. With $\gamma = 1$, $\ell$ is the
    cross-entropy with the teacher's probabilities as targets, and the label has no part in it. A larger $\gamma$ gives
    the label's class more weight, and the others less. No layer of the teacher is read, so the two networks
    may be as unlike as a convolutional network and a transformer. The exits are thrown away.

    Behind a map, an exit is one block of separable convolutions at stride 2 for each later stage (behind the last
    stage, a 1x1 convolution), the mean over the places, and a classifier. Behind tokens, it merges 2x2 of them while a
    grid of 7x7 remains, then has one transformer block for each later stage (at least one), and a classifier of the
    class token, or of the mean where there is none.

    Published for CIFAR-100 at 224 pixels, with teachers that were trained on ImageNet and then fine-tuned, batches of
    1024 and 300 epochs: between 0.28 and 8.00 points more than the best other method; on ImageNet 0.20 to 0.77 points
    (the paper's abstract). Users could not repeat several of the CIFAR pairs; smaller batches do worse.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits.
        example: Inputs for one forward pass, from which stages and shapes are known.
        exponent: $\gamma$, above zero. Published: 1 on CIFAR-100; 1.5 for DeiT-T and ResNet18 on ImageNet, and
            otherwise 1.1 to 1.4, more for weaker teachers.
        kd_weight: $\alpha$.
        exit_weight: $\beta$. The author's log of a CIFAR-100 run has 0.1.
        temperature: Divides both logits; the loss is not multiplied by its square.
        variant: `code` is the equation; in `paper` the classes that are not the label's keep $p^t_c$ as their weight,
            whatever $\gamma$ is.
        teacher_width: Channels that the teacher's classifier reads. Exits behind maps end in this many, or in as many
            as the student's last stage has, whichever is more.
        exits: The layers behind which the exits are, joined by `+`; `auto` takes the ends of all stages.

    Raises:
        UserError: If a number is out of its range, a layer does not exist, or one cannot be a map.

    Paper: Hao et al., One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation,
        NeurIPS 2023.

    Differences: The paper's own text was not read. By accounts of it, its weights are those of `paper`, with the
        supervised cross-entropy inside the loss of every exit; as in the code, that is the student's alone here. The
        code takes the logarithm of a softmax, which is infinite where logits are 200 apart. It cuts labels that are
        probabilities down to the likeliest class; here the loss is the mean over the classes by their probability. A
        sample without a label has no class that is the label's. The code smooths the labels of the cross-entropy
        (0.1), and allows each exit an exponent of its own. The exits are found for any network: of a transformer they
        are at four equal depths, the authors' behind blocks 2, 4, 10 and 12 of 12. The code reads the teacher's width
        by itself; here it is an option, so that a recording teaches the same as its teacher. Grids of tokens need not
        be square, and where their sides are odd they are not merged. Padding takes no part in attention and mean. A
        batch of one image fails where an exit's batch norm has one value for each channel.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        exponent: float = 1.0,
        kd_weight: float = 1.0,
        exit_weight: float = 1.0,
        temperature: float = 1.0,
        variant: Variant = "code",
        teacher_width: int = 0,
        exits: str = AUTO,
    ) -> None:
        check_temperature(temperature)
        if not 0 < exponent < math.inf:
            raise UserError(f"exponent={exponent} must be above zero: 1 is the plain cross-entropy with the teacher.")
        for name, value in (("kd_weight", kd_weight), ("exit_weight", exit_weight), ("teacher_width", teacher_width)):
            if not value >= 0:
                raise UserError(f"{name}={value} must be zero or more.")
        super().__init__({"kd": kd_weight, "exits": exit_weight})
        # One traced pass finds the stages, their shapes and the number of classes.
        trace = Trace.of(student, example)
        found = stages(student, trace)
        self._places = places(found, trace, exits)
        # An exit ends at least as wide as the student's last stage.
        width = max(found[-1].channels, teacher_width)
        # How many stages end behind each exit: it has a block for each of them.
        later = [sum(trace.when(end.layer) > trace.when(tap.layer) for end in found) for tap in self._places]
        self.exits = nn.ModuleList(
            exit_behind(tap, count, width, trace.logits.shape[1])
            for tap, count in zip(self._places, later, strict=True)
        )
        adapting(self.exits, student)
        layers = [tap.layer for tap in self._places]
        self.student, self.teacher = FeatureExtractor(student, layers, example=trace), teacher
        self.exponent, self.temperature, self.variant = exponent, temperature, variant

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, the student's loss as `kd`, and the sum of the exits' as `exits`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch).logits
        answers = [
            behind(student.features[tap.layer], tap.mask(student))
            for tap, behind in zip(self._places, self.exits, strict=True)
        ]
        return {
            "ce": batch.loss(student.logits),
            # The student's own answer has the same loss as the exits.
            "kd": self._loss(student.logits, teacher, batch),
            "exits": torch.stack([self._loss(answer, teacher, batch) for answer in answers]).sum(),
        }

    def _loss(self, logits: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return ofa_loss(logits, teacher, batch.labels, self.exponent, self.temperature, variant=self.variant)


def ofa_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    exponent: float = 1.0,
    temperature: float = 1.0,
    *,
    variant: Variant = "code",
) -> Tensor:
    r"""Return $-\sum_c [(p^t_c + 1_{c = y})^\gamma - 1_{c = y}] \log p^s_c$, the mean over the batch.

    Args:
        student_logits: `[batch, class]`.
        teacher_logits: `[batch, class]`; no gradient flows into them.
        labels: Class indices $y$, `[batch]`, -1 where there is none; or probabilities `[batch, class]`, over which the
            mean of the loss is taken.
        exponent: $\gamma$.
        temperature: Divides both logits.
        variant: `paper` leaves out the exponent for all classes but the label's.

    Raises:
        ValueError: If the shapes of the logits differ.
    """
    check_shapes(student_logits, teacher_logits)
    check_temperature(temperature)
    # In log-space: the logarithm of a probability that underflows would be infinite.
    log_teacher = (wide(teacher_logits.detach()) / temperature).log_softmax(1)
    log_student = (wide(student_logits) / temperature).log_softmax(1)
    weights = enhanced(log_teacher, label_shares(labels, log_teacher), exponent, variant=variant)
    return -(weights * log_student).sum(1).mean()


def enhanced(log_teacher: Tensor, shares: Tensor, exponent: float, *, variant: Variant = "code") -> Tensor:
    """Return the weight of each class, `[batch, class]`.

    Args:
        log_teacher: Logarithms of the teacher's probabilities, `[batch, class]`.
        shares: Probability of each class by the label, `[batch, class]`.
        exponent: What the weights are raised to.
        variant: `paper` leaves out the exponent for all classes but the label's.
    """
    # (1 + p)^gamma - 1 of the equation; `expm1` and `log1p` keep the digits of a small p.
    of_label = torch.expm1(exponent * torch.log1p(log_teacher.exp()))
    of_others = (log_teacher * (exponent if variant == "code" else 1)).exp()
    # With one class as the label this picks a case; with soft labels it is the mean of both cases.
    return shares * of_label + (1 - shares) * of_others


def label_shares(labels: Tensor, like: Tensor) -> Tensor:
    """Return the probability of each class by the label, `[batch, class]`; zeros where there is no label.

    Args:
        labels: Class indices `[batch]`, -1 where there is none; or probabilities, `[batch, class]`.
        like: A tensor of the shape and type that is wanted.
    """
    if labels.is_floating_point():
        return labels.to(like.dtype)
    # A sample without a label gets a row of zeros: no class of it is the label's.
    known = (labels != UNLABELLED).to(like.dtype)[:, None]
    return torch.zeros_like(like).scatter(1, labels.clamp(min=0)[:, None], known)
