"""The losses of a task: of an answer against the targets, and against another network's answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, Protocol

from torch import Tensor

from tutelage.errors import UserError
from tutelage.losses import Reduction, cross_entropy, kd_loss, log_mean_probability

Density = Literal["categorical", "dirichlet"]
"""What a network's logits are: those of a softmax, or the logarithms of a Dirichlet distribution's concentrations."""


class Criterion(Protocol):
    """The losses of a task. Both sum over the classes, and average over the batch and its places."""

    def loss(self, answer: Tensor, targets: Any) -> Tensor:
        """Return the supervised loss, a scalar.

        Args:
            answer: A network's answer, `[batch, ...]`.
            targets: The targets of the samples, collated.
        """

    def divergence(
        self,
        student: Tensor,
        teacher: Tensor,
        temperature: float = 1.0,
        *,
        t_squared: bool = True,
        reduction: Reduction = "batchmean",
    ) -> Tensor:
        """Return how far the student's answer is from the teacher's, a scalar.

        Args:
            student: `[batch, ...]`.
            teacher: The same shape; no gradient flows into it.
            temperature: Softens both answers, where they are probabilities; numbers have none.
            t_squared: Whether to multiply by the square of the temperature.
            reduction: `batchmean` is the divergence; `mean` divides it by the number of classes as well.
        """

    def mean(self, answers: Tensor) -> Tensor:
        """Return several networks' answers as one, `[batch, ...]`: of probabilities the log of their mean.

        Args:
            answers: `[member, batch, ...]`.
        """


class OfBatch(ABC):
    """A criterion for which only some places of a batch count, such as tokens that are not padding."""

    @abstractmethod
    def of(self, inputs: Any, targets: Any, places: Tensor | None) -> Criterion:
        """Return the criterion of a batch.

        Args:
            inputs: The batch's inputs.
            targets: Its targets; None if it has none.
            places: How many places the losses are divided by, a scalar; None for those of the batch that count.
        """


class CrossEntropy:
    """Scores that a softmax over axis 1 turns into probabilities, at each place of the sample."""

    def loss(self, answer: Tensor, targets: Any) -> Tensor:
        """Return the cross-entropy.

        Args:
            answer: Logits `[batch, class, ...]`.
            targets: Class indices `[batch, ...]`, -1 where there is no label; or probabilities `[batch, class, ...]`.

        Raises:
            UserError: If the targets have another form, such as one number per sample.
        """
        # Fractions in the shape of the logits are probabilities of classes.
        if targets.is_floating_point() and targets.shape != answer.shape:
            raise UserError(
                f"The targets are fractions of shape {list(targets.shape)}, and the network returns shape "
                f"{list(answer.shape)}: class indices must be whole numbers. To predict numbers, choose the task "
                "'regression' (task=)."
            )
        return cross_entropy(answer, targets)

    def divergence(
        self,
        student: Tensor,
        teacher: Tensor,
        temperature: float = 1.0,
        *,
        t_squared: bool = True,
        reduction: Reduction = "batchmean",
    ) -> Tensor:
        """Return `kd_loss`, the divergence of the softened probabilities."""
        return kd_loss(student, teacher, temperature, t_squared=t_squared, reduction=reduction)

    def mean(self, answers: Tensor) -> Tensor:
        """Return `log_mean_probability`."""
        return log_mean_probability(answers)


CROSS_ENTROPY = CrossEntropy()
"""The losses of a batch whose task is not known."""
