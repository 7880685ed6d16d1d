"""KSANC: the student matches the teacher's logits and squeezed stages, and fools a discriminator of logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam

from tutelage.core.method import Method, OptimizerSpec, Progress, Update
from tutelage.core.pairing import AUTO, Paired
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import FrozenTeacher, Teacher
from tutelage.data.batch import Batch
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.losses import check_shapes, cross_entropy, wide
from tutelage.methods.parts.discriminator import Adversarial, Discriminator, fooling_loss, norms, telling_losses
from tutelage.methods.parts.squeezing import (
    SQUEEZED,
    Attend,
    AttendedNetwork,
    AttendedTeacher,
    Pooling,
    Squeezing,
    TeacherAttention,
    squeezable,
)
from tutelage.models.modes import keeping_statistics
from tutelage.training.run import Run

HKSANC = Paper(
    key="li2020hierarchical",
    title="Hierarchical Knowledge Squeezed Adversarial Network Compression",
    authors="Li, Peng and Shu, Changyong and Xie, Yuan and Qu, Yanyun and Kong, Hui",
    venue="AAAI Conference on Artificial Intelligence",
    year=2020,
    arxiv="1904.05100",
)


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Return $\|s - t\|_2^2$, the mean over the batch, in float32.

    Args:
        student: `[batch, number]`.
        teacher: `[batch, number]`; no gradient flows into it.

    Raises:
        ValueError: If the two shapes differ.
    """
    check_shapes(student, teacher)
    return (wide(student) - wide(teacher.detach())).square().sum(1).mean()


class KSANC(Method):
    r"""The second stage of KSANC: on each batch a step of the discriminator, then one of the student.

    $$ L_D = -\log D(l_T) - \log(1 - D(l_S)) - \log P(y|C_T) - \log P(y|C_S)
    + \mu (|\omega_D|_1 + \|\omega_D\|_2^2) - \nu \log D(l_S) $$

    $$ L_S = \lambda_1 \|l_S - l_T\|_2^2 - \lambda_2 \big( \log D(l_S) + \log P(y|C_S) \big)
    + \lambda_3 \|\tilde g^a_S - \tilde g^a_T\|_2^2 $$

    Args:
        paired: Student and teacher, as `squeezable` returns them.
        attention: The teacher's attention estimators; they are frozen.
        num_classes: Number of classes.
        logit_weight: $\lambda_1$, weight of the distance between the logits.
        adversarial_weight: $\lambda_2$, weight of both adversarial terms of the student.
        squeezed_weight: $\lambda_3$, weight of the distance between the squeezed descriptors.
        mu: $\mu$, weight of the norms of the discriminator's weights.
        leniency: $\nu$, weight of the term that keeps the discriminator from winning.
        adversarial: The student's adversarial term, `non-saturating` or `minimax`.
        pooling: `sum` over the places, or `average`, which divides by their number.
        hidden: Widths of the discriminator's hidden layers.
        discriminator_lr: Peak learning rate of the discriminator.
    """

    def __init__(
        self,
        paired: Paired,
        attention: Squeezing,
        num_classes: int,
        *,
        logit_weight: float = 0.05,
        adversarial_weight: float = 1.0,
        squeezed_weight: float = 0.02,
        mu: float = 1e-4,
        leniency: float = 0.1,
        adversarial: Adversarial = "non-saturating",
        pooling: Pooling = "sum",
        hidden: Sequence[int] = (128, 256, 128),
        discriminator_lr: float = 1e-3,
    ) -> None:
        # The discriminator's own terms are absent here, and so weigh 1.
        student = {"logits": logit_weight, "fooling": adversarial_weight, "label": adversarial_weight}
        super().__init__(student | {"squeezed": squeezed_weight, "norms": mu, "leniency": leniency})
        self.student, self.pairs = paired.student, paired.pairs
        self.teacher = AttendedTeacher(paired.teacher, attention, pooling=pooling)
        self.squeezing = adapting(attention.of_student(self.pairs), self.student, wide=True)
        # The lifts read the student's maps before they are widened, so they alone keep its type of numbers.
        adapting(self.squeezing.lifts, self.student)
        self.discriminator = adapting(Discriminator(num_classes, hidden), self.student, wide=True)
        self.adversarial, self.pooling, self.discriminator_lr = adversarial, pooling, discriminator_lr

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield the discriminator's losses on logits without gradients, then the student's against its new weights."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        check_shapes(student.logits, teacher.logits)
        # Two passes, because batch norm must normalise each network's logits by themselves. Detached, because the
        # student does not learn from this step.
        judged = self.discriminator(teacher.logits), self.discriminator(student.logits.detach())
        told = telling_losses(*judged, batch.labels)
        yield Update(told | {"norms": norms(self.discriminator.weights())}, "discriminator")
        # Its running statistics have already counted this batch in its own step.
        with keeping_statistics(self.discriminator):
            verdict = self.discriminator(student.logits)
        # The student has not changed since its pass, so both steps read the same outputs.
        squeezed = self.squeezing(student, pooling=self.pooling)
        yield Update(
            {
                "logits": squared_distance(student.logits, teacher.logits),
                "fooling": fooling_loss(verdict.real, adversarial=self.adversarial),
                "label": cross_entropy(verdict.classes, batch.labels),
                "squeezed": squared_distance(squeezed, teacher.features[SQUEEZED]),
            }
        )

    def optimizers(self) -> Mapping[str, OptimizerSpec]:
        """Return the run's optimizer of the student and its attention, and Adam for the discriminator."""
        # Not the teacher's attention, which is frozen, nor the discriminator.
        ours = [p for part in (self.student, self.squeezing) for p in part.parameters() if p.requires_grad]
        build = partial(Adam, lr=self.discriminator_lr, betas=(0.5, 0.999))
        return {
            "student": OptimizerSpec(params=ours),
            "discriminator": OptimizerSpec(params=list(self.discriminator.parameters()), build=build),
        }


@register(
    "ksanc",
    papers=[HKSANC],
    losses=["squared_distance", "fooling_loss"],
    reads={"classes", "sample-labels"},
    family="features",
)
def ksanc(
    run: Run,
    student: nn.Module,
    teacher: Teacher,
    data: Data,
    example: Any,
    num_classes: int,
    *,
    layers: str = AUTO,
    logit_weight: float = 0.05,
    adversarial_weight: float = 1.0,
    squeezed_weight: float = 0.02,
    mu: float = 1e-4,
    leniency: float = 0.1,
    attend: Attend = "equation",
    adversarial: Adversarial = "non-saturating",
    pooling: Pooling = "sum",
    hidden: Sequence[int] = (128, 256, 128),
    discriminator_lr: float = 1e-3,
    descriptor_width: int = 128,
    attention_share: float = 0.1,
) -> nn.Module:
    r"""KSANC: the student matches the teacher's logits and squeezed stages, and fools a discriminator of logits.

    $$ L = \lambda_1 \|l_S - l_T\|_2^2 + \lambda_2 L_{adv} + \lambda_3 \|\tilde g^a_S - \tilde g^a_T\|_2^2 $$

    $$ \hat L = L \oplus \mathrm{conv}(g^b), \qquad M = \mathrm{softmax}_{hw}(W * \hat L), \qquad
    \tilde g^a = \sum_{hw} M \odot \hat L $$

    The discriminator minimises $L_D$, and the student $L_{adv}$ as a part of $L$:

    $$ L_D = -\log D(l_T) - \log(1 - D(l_S)) - \log P(y|C_T) - \log P(y|C_S)
    + \mu (|\omega_D|_1 + \|\omega_D\|_2^2) - \nu \log D(l_S), \qquad
    L_{adv} = -\log D(l_S) - \log P(y|C_S) $$

    First the teacher's attention learns the labels: a linear classifier reads the squeezed descriptors $\tilde g^a$ of
    all stages, and is thrown away; the teacher's network stays still. Then discriminator and student take turns on each
    batch. The discriminator $D$ sees logits and says whose they are, and the class, $C$. Labels reach the student
    through $\log P(y|C_S)$ alone. What ships is the bare student.

    Args:
        run: The run whose stages these are.
        student: The network to train.
        teacher: The network that teaches.
        data: The data.
        example: Inputs for one forward pass, from which layers and shapes are known.
        num_classes: Number of classes.
        layers: The stages: `auto`, or pairs by name, `student_layer:teacher_layer`, joined by `+`.
        logit_weight: $\lambda_1$.
        adversarial_weight: $\lambda_2$, of both $\log D(l_S)$ and $\log P(y|C_S)$ in the student's loss.
        squeezed_weight: $\lambda_3$. For `pooling=average`, networks that end in maps of 8x8 places take about 100.
        mu: $\mu$, weight of the norms of the discriminator's weights.
        leniency: $\nu$, weight of the term that keeps the discriminator from winning: even where it tells everything,
            $D(l_S) = \nu / (1 + \nu)$ is best for it.
        attend: What the attention multiplies: $\hat L$ as in the paper's `equation`, or $L$ as in its `drawing`.
        adversarial: What the student minimises: $-\log D(l_S)$ (`non-saturating`) or $\log(1 - D(l_S))$ (`minimax`).
        pooling: `sum` over the places, which is a mean, as $M$ sums to one; `average` divides by their number, as the
            paper's equation has it: the fewer places a stage has, the more it counts.
        hidden: Widths of the discriminator's hidden layers.
        discriminator_lr: Peak learning rate of its Adam; its course is the run's.
        descriptor_width: Numbers in $g^b$, to which both networks' embeddings are brought.
        attention_share: Length of the first stage as a share of the run's epochs, on top of them.

    Raises:
        UserError: If a number is out of its range, the teacher gives only logits, a classifier cannot be found, a layer
            does not exist, or a batch is a single sample.

    Paper: Li et al., Hierarchical Knowledge Squeezed Adversarial Network Compression, AAAI 2020.

    Differences: There is no code of the authors, and we know neither $\lambda_1$ to $\lambda_3$ and $\mu$, nor widths
        and learning rates, nor how the teacher's attention is trained: all of these are our choice. The paper has one
        $\mu$; ours suits norms of some 100,000 weights and would leave $\nu \log D(l_S)$ without effect, which hence
        has a weight of its own (`leniency`, equal to `mu` in the paper). Norms are of the linear layers' weights only.
        The paper pools by the average (`pooling=average`): between maps of 32x32 and of 8x8 places that makes a factor
        of 256 in the loss, and $\lambda_3$ a matter of the images' size. Its equation and its drawing differ in what is
        attended (`attend`). As $W$ is linear, the softmax cancels $g^b$: by the equation it is added to the descriptor
        and nothing more, and by the drawing it does nothing, so what makes it is then not trained. The paper plays
        minimax (`adversarial=minimax`); its drawing of the discriminator has two hidden layers (`hidden=[128,256]`).
        The discriminator is normalised by each batch, the teacher's and the student's apart, with 0.01 added to
        variances; its running statistics follow its own step alone, and nothing reads them. The student runs once a
        batch, and its adversarial loss uses the discriminator that has just learned. Squared distances are sums over
        classes and over the descriptors of all stages, means over the batch. Maps of unlike sizes are pooled to the
        smaller one before they are squeezed.
    """
    _check_weights(
        logit_weight=logit_weight,
        adversarial_weight=adversarial_weight,
        squeezed_weight=squeezed_weight,
        mu=mu,
        leniency=leniency,
    )
    if not (hidden and min(*hidden, descriptor_width) > 0 and discriminator_lr > 0 and attention_share > 0):
        raise UserError(
            f"hidden={list(hidden)}, descriptor_width={descriptor_width}, discriminator_lr={discriminator_lr} and "
            f"attention_share={attention_share} must be above zero."
        )
    paired = squeezable(student, teacher, layers, example)
    attention = Squeezing.of_teacher(paired.pairs, width=descriptor_width, attend=attend)
    epochs = max(1, round(attention_share * run.training.epochs))
    assert isinstance(paired.teacher, FrozenTeacher)
    first = TeacherAttention(paired.teacher, attention, num_classes)
    # What follows takes the attention at the end of its stage: its validation score is that of a classifier which is
    # thrown away.
    attended = run.fit("attention", first, data, epochs=epochs, keep="last")
    assert isinstance(attended, AttendedNetwork)
    method = KSANC(
        paired,
        attended.squeezing,
        num_classes,
        logit_weight=logit_weight,
        adversarial_weight=adversarial_weight,
        squeezed_weight=squeezed_weight,
        mu=mu,
        leniency=leniency,
        adversarial=adversarial,
        pooling=pooling,
        hidden=hidden,
        discriminator_lr=discriminator_lr,
    )
    return run.fit("distill", method, data)


def _check_weights(**weights: float) -> None:
    for name, value in weights.items():
        if not value >= 0:
            raise UserError(f"{name}={value} must be zero or more.")
