"""Teachers: whatever answers a batch. Frozen, always in eval mode, never in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from tutelage.data.batch import Batch, Output
from tutelage.errors import NoLayersError, UserError
from tutelage.features.anatomy import Tap, stages
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.trace import Trace, inputs_of
from tutelage.losses import LOG_ZERO, UNLABELLED, wide
from tutelage.models.copies import freeze


class Teacher(nn.Module):
    """Answers a batch. It stays in eval mode whatever its parent does, and its answers carry no gradient.

    A network that becomes its attribute is frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        super().train(False)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, freeze(value).eval() if isinstance(value, nn.Module) else value)

    def __call__(self, batch: Batch) -> Output:
        """Return what the teacher says about the batch, without a gradient."""
        if batch.teacher_inputs is not None:
            batch = replace(batch, inputs=batch.teacher_inputs, teacher_inputs=None)
        # Not inference mode: it is no faster, and no loss could keep what it gives for the backward pass.
        with torch.no_grad():
            output: Output = super().__call__(batch)
        return output

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: a teacher's batch-norm statistics and dropout must not move."""
        return super().train(False)

    def inner_network(self) -> nn.Module:
        """Return the network whose layers can be read.

        Raises:
            NoLayersError: If there is none to look into: only logits leave this teacher.
        """
        raise NoLayersError(
            f"This method reads layers of the teacher, and a {type(self).__name__} gives only logits. Pass the network "
            "itself, or choose a method that reads only logits, such as kd."
        )

    def reading(self, layers: Sequence[str], *, example: Any = None, logits: bool = True) -> Teacher:
        """Return a teacher on the same network that reads these layers.

        Args:
            layers: Their names, as in `FeatureExtractor`.
            example: Inputs from which their shapes are known at once.
            logits: Whether anybody reads its logits; otherwise it may end behind the last of the layers.

        Raises:
            UserError: If there is no network to read, or no such layer.
        """
        return FrozenTeacher(self.inner_network(), layers, example=example, logits=logits)

    def reads(self) -> Sequence[str]:
        """Return the names of the layers that it reads, itself or in the teachers within it."""
        inner = (module for module in self.modules() if isinstance(module, Teacher) and module is not self)
        return [layer for teacher in inner for layer in teacher.reads()]

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shape of each layer that is read, on the example."""
        return {}

    def release(self) -> None:
        """Free the network of hooks; the next answer attaches them again."""

    def look(self, example: Any) -> Any:
        """Return what `stages`, `taps` and `reading` take as their example: its trace, so that they share one pass.

        Raises:
            UserError: If there is no network to read.
        """
        return Trace.of(self.inner_network(), example)

    def stages(self, example: Any) -> Sequence[Tap]:
        """Return the ends of the stages that can be read, from the first to the last.

        Raises:
            UserError: If there is no network to read, or nothing in it is a map.
        """
        return stages(self.inner_network(), example)

    def taps(self, layers: Sequence[str], example: Any) -> Mapping[str, Tap]:
        """Return where named layers are read.

        Raises:
            UserError: If there is no network to read, a layer does not exist, or it cannot be a map.
        """
        try:
            reader = self.reading(layers, example=example)
            reader.release()
            # What is read there does not matter, only its shape.
            features = {name: torch.empty(shape, device="meta") for name, shape in reader.shapes.items()}
            return {name: Tap.of(name, feature, inputs_of(example)) for name, feature in features.items()}
        except NoLayersError:
            raise
        except UserError as error:
            raise UserError(f"In the teacher: {error}") from error

    def forward(self, batch: Batch) -> Output:
        """Return what the teacher says about the batch."""
        raise TypeError(f"{type(self).__name__} must define forward(batch) -> Output")


class FrozenTeacher(Teacher):
    """A trained network whose parameters and buffers never change.

    Args:
        model: The network; it is frozen in place.
        layers: Names of the layers to read, as in `FeatureExtractor`.
        example: Inputs from which the layers' shapes are known at once.
        logits: Whether the logits are read as well, as in `FeatureExtractor`.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str] = (), *, example: Any = None, logits: bool = True
    ) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(model, layers, example=example, logits=logits)

    @property
    def network(self) -> nn.Module:
        """The network itself, for methods that use its classifier or let gradients flow through it."""
        return self.extractor.model

    def inner_network(self) -> nn.Module:
        """Return the network."""
        return self.network

    def reads(self) -> Sequence[str]:
        """Return the names of the layers that are read."""
        return self.extractor.layers

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shape of each layer that is read, on the example."""
        return self.extractor.shapes

    def release(self) -> None:
        """Free the network of hooks; the next answer attaches them again."""
        self.extractor.release()

    def forward(self, batch: Batch) -> Output:
        """Return the network's logits and features."""
        output: Output = self.extractor(batch.inputs)
        return output


class EnsembleTeacher(Teacher):
    r"""Several teachers as one: `logits` are what the task makes of all answers, `members` the single logits.

    Of scores of classes that is the log of the mean probability, $\log \frac{1}{M} \sum_m \mathrm{softmax}(z_m)$.

    Args:
        teachers: The members, at least one.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        super().__init__()
        if not teachers:
            raise UserError("An ensemble needs at least one teacher.")
        self.teachers = nn.ModuleList(teachers)

    def forward(self, batch: Batch) -> Output:
        """Return the answer of all, `[batch, class, ...]`, and those of the members, `[member, batch, class, ...]`."""
        answers = [wide(teacher(batch).logits) for teacher in self.teachers]
        shapes = [tuple(answer.shape) for answer in answers]
        if len(set(shapes)) > 1:
            raise UserError(f"The teachers of an ensemble must agree on the classes; they answer {shapes}.")
        members = torch.stack(answers)
        return Output(logits=batch.criterion.mean(members), members=members)


class NoisyTeacher(Teacher):
    r"""A teacher whose logits are disturbed: $z' = z \odot (1 + \sigma \xi)$, $\xi \sim N(0, 1)$.

    Args:
        teacher: The teacher to disturb.
        std: Standard deviation $\sigma$ of the relative noise.
    """

    def __init__(self, teacher: Teacher, *, std: float) -> None:
        super().__init__()
        self.teacher, self.std = teacher, std

    def forward(self, batch: Batch) -> Output:
        """Return the teacher's output with disturbed logits."""
        output = self.teacher(batch)
        return replace(output, logits=output.logits * (1 + self.std * torch.randn_like(output.logits)))


class ShuffledTeacher(Teacher):
    """A control: each sample gets the answer that the teacher gave to another sample of the batch.

    Whatever a student still gains from it has nothing to do with what the teacher knows about the sample.

    Args:
        teacher: The teacher whose answers are shuffled.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, batch: Batch) -> Output:
        """Return the teacher's logits in a random order."""
        output = self.teacher(batch)
        # A random cycle: unlike a random permutation, it leaves no sample its own answer.
        order = torch.randperm(len(output.logits), device=output.logits.device)
        return Output(logits=torch.empty_like(output.logits).index_copy_(0, order, output.logits[order.roll(1)]))


class UniformTeacher(Teacher):
    """A control: a teacher that knows nothing and says so, with zero for every logit.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, batch: Batch) -> Output:
        """Return zeros, `[batch, class, ...]`, with the places that the labels have."""
        labels = batch.labels
        # Labels that are probabilities have an axis of classes themselves.
        places = labels.shape[2:] if labels.is_floating_point() else labels.shape[1:]
        return Output(logits=torch.zeros(len(labels), self.num_classes, *places, device=labels.device))


class VirtualTeacher(Teacher):
    r"""The hand-made teacher of Tf-KD (eq. 8): right with probability $a$, equally wrong everywhere else.

    $p^d(k) = a$ for the label and $(1 - a) / (K - 1)$ for every other class, which sums to one.

    Args:
        num_classes: Number of classes $K$, at least two.
        confidence: Probability $a$ of the label, between $1/K$ and 1.
        softening: What a temperature is applied to. `"log-probability"` returns $\log p^d$ as logits, so that
            temperature $\tau$ gives $p^{1/\tau} / Z$; `"probability"` returns $p^d$ itself as logits, as the
            authors' code does.

    Raises:
        UserError: If the confidence is not a probability above chance, or one class is too few.

    Paper: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        confidence: float = 0.99,
        softening: Literal["log-probability", "probability"] = "log-probability",
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(f"A virtual teacher needs two classes or more, not {num_classes}.")
        if not 1 / num_classes <= confidence <= 1:
            raise UserError(
                f"confidence={confidence} is no probability of the label between chance, 1/{num_classes}, and 1."
            )
        self.num_classes, self.confidence, self.softening = num_classes, confidence, softening

    def forward(self, batch: Batch) -> Output:
        """Return the virtual logits, `[batch, class, ...]`; equal ones where there is no label."""
        labels = batch.labels
        other = (1 - self.confidence) / (self.num_classes - 1)
        high, low = self.confidence, other
        if self.softening == "log-probability":
            high, low = math.log(high), math.log(low) if low > 0 else LOG_ZERO
        logits = torch.full((len(labels), self.num_classes, *labels.shape[1:]), low, device=labels.device)
        right = torch.full(labels.shape, high, device=labels.device).masked_fill(labels == UNLABELLED, low)
        return Output(logits=logits.scatter(1, labels.clamp(min=0).unsqueeze(1), right.unsqueeze(1)))


class BlackBoxTeacher(Teacher):
    """A teacher behind a query: only logits leave it, and each sample asked for is counted.

    Args:
        query: Function from inputs to logits `[batch, class]`.
    """

    def __init__(self, query: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.query, self.queries = query, 0

    def forward(self, batch: Batch) -> Output:
        """Ask the box about the batch."""
        self.queries += len(batch)
        return Output(logits=self.query(batch.inputs).detach())
