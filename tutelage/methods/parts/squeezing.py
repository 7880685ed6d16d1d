"""KSANC's squeezing: attention turns each stage of a network into one vector. The teacher's is trained first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import LayerPair, Paired, Seen, pair, reading, taps
from tutelage.core.teachers import FrozenTeacher, Teacher
from tutelage.data.batch import Batch, Output
from tutelage.features.adapting import adapting
from tutelage.features.anatomy import EMBEDDING, Tap
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.maps import resize
from tutelage.features.padding import mean_over_places, padded, places, without_padding
from tutelage.losses import cross_entropy, wide

SQUEEZED = "squeezed"

Attend = Literal["equation", "drawing"]
Pooling = Literal["average", "sum"]


def squeeze(
    maps: Tensor,
    descriptor: Tensor,
    weight: Tensor,
    *,
    attend: Attend = "equation",
    pooling: Pooling = "sum",
    mask: Tensor | None = None,
) -> Tensor:
    r"""Return the vector to which attention over its places squeezes a map.

    $$ \hat L = L \oplus \tilde g^b, \qquad M = \mathrm{softmax}_{hw}(W * \hat L), \qquad
    \tilde g^a = \sum_{hw} M \odot \hat L $$

    As $W$ is linear, $\tilde g^b$ adds the same number to the energies of all places of a sample, which does not change
    $M$. So $\tilde g^b$ has an effect only through $\hat L$, and in the drawing none.

    Args:
        maps: $L$, `[batch, channel, height, width]`.
        descriptor: $\tilde g^b$, `[batch, channel]`, which is added at every place.
        weight: $W$, `[channel]`.
        attend: The map that $M$ multiplies: $\hat L$ as in the paper's `equation`, or $L$ as in its `drawing`.
        pooling: `average` divides by the number of places $hw$, although $M$ sums to one; `sum` does not.
        mask: Places that are not padding, `[batch, 1, height, width]`; only these are attended.

    Returns:
        `[batch, channel]`, in float32 or wider.

    Paper: Li et al., Hierarchical Knowledge Squeezed Adversarial Network Compression, AAAI 2020.
    """
    # Autocast would multiply in half precision.
    with torch.autocast(maps.device.type, enabled=False):
        values = wide(without_padding(maps, mask)).flatten(2)
        lifted = values + wide(descriptor)[:, :, None]
        energies = torch.einsum("bcp,c->bp", lifted, weight)
        if mask is not None:
            # The lowest number rather than minus infinity: the softmax of a sample without any place would be NaN.
            energies = energies.masked_fill(~mask.flatten(1), torch.finfo(energies.dtype).min)
        squeezed = torch.einsum("bcp,bp->bc", lifted if attend == "equation" else values, energies.softmax(1))
    if pooling == "sum":
        return squeezed
    return squeezed / (values.shape[2] if mask is None else places(mask)[:, None])


class AttentionEstimator(nn.Module):
    """The attention of one stage, which squeezes its map by `squeeze`.

    Args:
        width: Length of the global descriptor.
        channels: Channels of the stage's map.
        attend: The map that is multiplied: with the descriptor added (`equation`), or alone (`drawing`).
    """

    def __init__(self, width: int, channels: int, *, attend: Attend = "equation") -> None:
        super().__init__()
        self.attend = attend
        # On one place the paper's 1x1 convolution is a linear layer. The energies need no bias: the softmax cancels it.
        self.descriptor = nn.Linear(width, channels).requires_grad_(attend == "equation")
        self.energy = nn.Linear(channels, 1, bias=False)

    def forward(self, maps: Tensor, common: Tensor, pooling: Pooling = "sum", mask: Tensor | None = None) -> Tensor:
        """Return `[batch, channel]` for maps `[batch, channel, height, width]` and a descriptor `[batch, width]`."""
        descriptor = self.descriptor(common)
        return squeeze(maps, descriptor, self.energy.weight[0], attend=self.attend, pooling=pooling, mask=mask)


class Squeezing(nn.Module):
    r"""The attention estimators of one network: from its stages and its embedding to one long vector.

    Args:
        stages: The taps of its stages.
        others: The taps of the other network's stages. Larger maps are pooled to their size.
        embedding: The tap of the classifier's input, which becomes the global descriptor $g^b$.
        lift: Whether 1x1 convolutions bring the maps to the other network's channels, as for a student.
        width: Length of $g^b$.
        attend: The map that is multiplied: with the descriptor added (`equation`), or alone (`drawing`).
    """

    def __init__(
        self,
        stages: Sequence[Tap],
        others: Sequence[Tap],
        embedding: Tap,
        *,
        lift: bool,
        width: int = 128,
        attend: Attend = "equation",
    ) -> None:
        super().__init__()
        self.stages, self.others, self.embedding, self.attend = tuple(stages), tuple(others), embedding, attend
        # Squeezed descriptors of both networks must have one length, that of the teacher's.
        widths = [tap.channels for tap in (others if lift else stages)]
        lifts = (nn.Conv2d(tap.channels, channels, 1) for tap, channels in zip(stages, widths, strict=True))
        self.lifts = nn.ModuleList(lifts if lift else (nn.Identity() for _ in stages))
        self.transform = nn.Linear(embedding.channels, width)
        self.estimators = nn.ModuleList(AttentionEstimator(width, channels, attend=attend) for channels in widths)
        # In the drawing the softmax cancels all that this layer adds, so it gets no gradient and is frozen.
        self.transform.requires_grad_(attend == "equation")
        self.length = sum(widths)

    @classmethod
    def of_teacher(cls, pairs: Sequence[LayerPair], *, width: int = 128, attend: Attend = "equation") -> Squeezing:
        """Return the attention estimators of a teacher.

        Args:
            pairs: The pairs of stages, and last the pair of embeddings, as `squeezable` returns them.
            width: Length of $g^b$.
            attend: The map that is multiplied: with the descriptor added (`equation`), or alone (`drawing`).
        """
        *stages, embedding = pairs
        ours, theirs = [found.student for found in stages], [found.teacher for found in stages]
        # The teacher's maps keep their channels: only the student's are lifted.
        return cls(theirs, ours, embedding.teacher, lift=False, width=width, attend=attend)

    def of_student(self, pairs: Sequence[LayerPair]) -> Squeezing:
        """Return the attention estimators of a student that is compared with this teacher.

        Args:
            pairs: The pairs of stages, and last the pair of embeddings, as `squeezable` returns them.
        """
        *stages, embedding = pairs
        ours, theirs = [found.student for found in stages], [found.teacher for found in stages]
        # The g^b of both networks has one length.
        width = self.transform.out_features
        return Squeezing(ours, theirs, embedding.student, lift=True, width=width, attend=self.attend)

    def forward(self, output: Output, *, pooling: Pooling = "sum") -> Tensor:
        """Return the squeezed descriptors of all stages, one behind the other, `[batch, length]`."""
        maps = [self._map(number, output) for number in range(len(self.stages))]
        masks = [stage.mask(output) for stage in self.stages]
        # Autocast would compute these layers in half precision.
        with torch.autocast(output.logits.device.type, enabled=False):
            embedding = mean_over_places(wide(self.embedding.map(output)), self.embedding.mask(output))
            common = self.transform(embedding)
            squeezed = [
                estimator(found, common, pooling, mask)
                for estimator, found, mask in zip(self.estimators, maps, masks, strict=True)
            ]
        return torch.cat(squeezed, 1)

    def _map(self, number: int, output: Output) -> Tensor:
        own, other = self.stages[number], self.others[number]
        maps = own.map(output)
        # Pool only a side that was larger on the example: sequences of any length stay as they are.
        sides = zip(maps.shape[2:], own.size, other.size, strict=True)
        height, width = (min(side, theirs) if ours > theirs else side for side, ours, theirs in sides)
        if tuple(maps.shape[2:]) != (height, width) and own.mask(output) is not None:
            raise padded(f"{own} would be pooled to the size of {other}")
        lifted: Tensor = self.lifts[number](resize(maps, (height, width)))
        return lifted


class AttendedTeacher(Teacher):
    """A teacher that gives its squeezed descriptors as the feature `"squeezed"`.

    Args:
        teacher: The teacher, which reads the layers that are squeezed.
        squeezing: Its attention estimators; they are frozen.
        pooling: `average` divides by the number of places, although the attention sums to one; `sum` does not.
    """

    def __init__(self, teacher: Teacher, squeezing: Squeezing, *, pooling: Pooling = "sum") -> None:
        super().__init__()
        self.teacher, self.squeezing, self.pooling = teacher, squeezing, pooling

    def forward(self, batch: Batch) -> Output:
        """Return logits and squeezed descriptors."""
        output = self.teacher(batch)
        # The maps are dropped: the method compares only the descriptors.
        return replace(output, features={SQUEEZED: self.squeezing(output, pooling=self.pooling)})


class TeacherAttention(Method):
    r"""The first stage of KSANC: the teacher's attention learns the labels, while the teacher stays frozen.

    $$ L = H(q, \mathrm{softmax}(V [\tilde g^{a,1}, \tilde g^{a,2}, \dots] + b)) $$

    The linear classifier $V$ reads the squeezed descriptors of all stages. It is thrown away afterwards, with $b$.

    Args:
        teacher: The teacher, which reads the layers that are squeezed.
        squeezing: Its attention estimators.
        num_classes: Number of classes.
    """

    def __init__(self, teacher: FrozenTeacher, squeezing: Squeezing, num_classes: int) -> None:
        super().__init__()
        self.teacher, self.squeezing = teacher, adapting(squeezing, teacher, wide=True)
        # It reads widened descriptors, so it is as wide as they are.
        self.classifier = adapting(nn.Linear(squeezing.length, num_classes), teacher, wide=True)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`."""
        return {
            "ce": cross_entropy(attended_logits(self.teacher(batch), self.squeezing, self.classifier), batch.labels)
        }

    def forward(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return the logits that the classifier gives for the squeezed descriptors, `[batch, class]`."""
        output = self.teacher(Batch(inputs=inputs))
        return {"attention": attended_logits(output, self.squeezing, self.classifier)}

    def export(self) -> nn.Module:
        """Return teacher, attention and classifier as one network."""
        return AttendedNetwork(self.teacher.extractor, self.squeezing, self.classifier)


class AttendedNetwork(nn.Module):
    """A network that classifies its squeezed descriptors: the trained result of the first stage.

    Args:
        reader: The teacher's network, which reads the layers that are squeezed.
        squeezing: The attention estimators.
        classifier: From the squeezed descriptors to logits.
    """

    def __init__(self, reader: FeatureExtractor, squeezing: Squeezing, classifier: nn.Linear) -> None:
        super().__init__()
        self.network, self.squeezing, self.classifier = reader.release(), squeezing, classifier
        # In a tuple, so that the extractor does not become a submodule. Between two answers the network has no hooks.
        self._reader = (reader,)

    def forward(self, inputs: Any = None, /, **named: Any) -> Tensor:
        """Return logits `[batch, class]`."""
        (reader,) = self._reader
        try:
            return attended_logits(reader(named if inputs is None else inputs), self.squeezing, self.classifier)
        finally:
            reader.release()


def attended_logits(output: Output, squeezing: Squeezing, classifier: nn.Linear) -> Tensor:
    """Return a linear classifier's logits for the squeezed descriptors, `[batch, class]`."""
    # Always the sum: divided by the number of places, the descriptors would be too small to learn from.
    logits: Tensor = classifier(squeezing(output, pooling="sum"))
    return logits


def squeezable(student: nn.Module, teacher: Teacher, layers: str, example: Any) -> Paired:
    """Return a student and a teacher that read their stages and, as the last pair, their classifiers' inputs.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside.
        layers: The stages: `auto`, or pairs by name, `student_layer:teacher_layer`, joined by `+`.
        example: Inputs for one forward pass.

    Raises:
        UserError: If a layer does not exist or cannot be a map, or a classifier cannot be found.
    """
    answers = teacher.inner_network()
    seen = Seen.of(student, teacher, example)
    found = pair(student, teacher, layers, seen)
    # Both are read again below, with their embeddings as one more pair.
    network = found.student.release()
    found.teacher.release()
    ours = taps(network, [EMBEDDING], seen.student, who="student")[EMBEDDING]
    theirs = taps(answers, [EMBEDDING], seen.teacher, who="teacher")[EMBEDDING]
    return reading(network, found.teacher, [*found.pairs, LayerPair(ours, theirs)], seen)
