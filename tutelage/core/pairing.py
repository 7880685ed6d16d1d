"""Pairs of layers: which layer of the student is compared with which layer of the teacher."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from tutelage.core.teachers import Teacher
from tutelage.data.batch import Output
from tutelage.errors import UserError
from tutelage.features.anatomy import Tap, reads, stages
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.padding import mean_over_places, padded
from tutelage.features.trace import Trace, inputs_of, tensor_at

AUTO = "auto"
Take = Literal["stages", "middle", "last"]

# One name, or two with a colon between them; `:in` belongs to the name before it.
_PAIR = re.compile(r"(?P<student>[^:]+(?::in)?)(?::(?P<teacher>[^:]+(?::in)?))?")


class Compared(NamedTuple):
    """Two maps, and where they are compared.

    Attributes:
        student: The student's, `[batch, channel, height, width]`.
        teacher: The teacher's, `[batch, channel, height, width]`.
        mask: Places that are not padding, `[batch, 1, height, width]`, at the size of both maps; None without padding.
    """

    student: Tensor
    teacher: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class LayerPair:
    """A layer of the student and the layer of the teacher that it is compared with."""

    student: Tap
    teacher: Tap

    def maps(self, student: Output, teacher: Output) -> tuple[Tensor, Tensor]:
        """Return the outputs of both layers as maps `[batch, channel, height, width]`."""
        return self.student.map(student), self.teacher.map(teacher)

    def masks(self, student: Output, teacher: Output) -> tuple[Tensor | None, Tensor | None]:
        """Return which places of each map are not padding, `[batch, 1, height, width]`; None without padding.

        Raises:
            UserError: If padding cannot be told from places at one of them.
        """
        return self.student.mask(student), self.teacher.mask(teacher)

    def compared(self, student: Output, teacher: Output) -> Compared:
        """Return both maps, and the places at which they are compared.

        With padding, both maps must have the same places. If one of them has a single place, the other becomes its
        mean, which also has a single place.

        Raises:
            UserError: If padding cannot be told from places, or the two maps have different places.
        """
        one, other = self.maps(student, teacher)
        ours, theirs = self.masks(student, teacher)
        if ours is None and theirs is None:
            return Compared(one, other, None)
        # A map of one place has nothing to mask any more.
        if _is_point(one) or _is_point(other):
            return Compared(_point(one, ours), _point(other, theirs), None)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise padded(f"the layers {self} have different places")
        # Compared where both have a token.
        return Compared(one, other, ours & theirs)

    def __str__(self) -> str:
        return f"{self.student} : {self.teacher}"


@dataclass(frozen=True)
class Seen:
    """The traces of a student and a teacher on one example. It can be passed wherever the example can.

    Attributes:
        example: The inputs.
        student: The student's trace.
        teacher: The teacher's, as `Teacher.look` returns it.
    """

    example: Any
    student: Trace
    teacher: Any

    @classmethod
    def of(cls, student: nn.Module, teacher: Teacher, example: Any) -> Seen:
        """Return the traces of both on an example. An example that is a `Seen` already is returned as it is.

        Raises:
            UserError: If the teacher has no layers to read.
        """
        if isinstance(example, Seen):
            return example
        # The teacher first: if it has no layers, the error comes before the student's forward pass.
        answers = teacher.look(example)
        return cls(example, Trace.of(student, example), answers)

    def with_student(self, student: nn.Module) -> Seen:
        """Return a copy with the trace of another student, or of the same one after a change."""
        return replace(self, student=Trace.of(student, self.example))


class Paired(NamedTuple):
    """A student and a teacher that read the layers in which they are compared.

    Attributes:
        student: The student, which reads its layers of the pairs.
        teacher: The teacher, which reads its layers of the pairs.
        pairs: The pairs, from the first layers to the last.
    """

    student: FeatureExtractor
    teacher: Teacher
    pairs: tuple[LayerPair, ...]


def pair(
    student: nn.Module, teacher: Teacher, layers: str, example: Any, *, take: Take = "stages", logits: bool = True
) -> Paired:
    """Return a student and a teacher that read the layers which a method compares.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside, or one whose layers were recorded.
        layers: `auto` pairs the ends of the stages by resolution and depth, the last with the last. Otherwise pairs
            by name, `student_layer:teacher_layer`, joined by `+`, such as `layer2:blocks.5+layer3:blocks.11`; one name
            stands for the same in both. `name:in` is a layer's input.
        example: Inputs for one forward pass (batch of two or more), or the traces of both on them, a `Seen`.
        take: Which of the automatic pairs: all, the one in the middle, or the last.
        logits: Whether the teacher's logits are needed.

    Raises:
        UserError: If the teacher has no network to read, or a layer does not exist or cannot be a map.
    """
    names = [] if layers == AUTO else named_pairs(layers)
    seen = Seen.of(student, teacher, example)
    if layers == AUTO:
        # Asked of the teacher rather than of its network: a recording knows the stages of the network it was made from.
        ours, networks = stages(student, seen.student), teacher.backbones(seen.teacher)
        pairs = tuple(one for theirs in networks for one in _taken(_aligned(ours, theirs), take))
    else:
        students = taps(student, [name for name, _ in names], seen.student, who="student")
        teachers = teacher.taps([name for _, name in names], seen.teacher)
        pairs = tuple(LayerPair(students[one], teachers[other]) for one, other in names)
    return reading(student, teacher, pairs, seen, logits=logits)


def reading(
    student: nn.Module, teacher: Teacher, pairs: Sequence[LayerPair], example: Any, *, logits: bool = True
) -> Paired:
    """Return a student and a teacher that read the layers of these pairs. The other arguments are those of `pair`."""
    seen = Seen.of(student, teacher, example)
    # A layer may stand in several pairs, but is read only once.
    read = [list(dict.fromkeys(names)) for names in zip(*((p.student.layer, p.teacher.layer) for p in pairs))]
    extractor = FeatureExtractor(student, read[0], example=seen.student)
    return Paired(extractor, teacher.reading(read[1], example=seen.teacher, logits=logits), tuple(pairs))


def taps(model: nn.Module, layers: Sequence[str], example: Any, *, who: str) -> Mapping[str, Tap]:
    """Return the taps of the named layers.

    Args:
        model: The network.
        layers: Names of submodules, `name:in` for a first input, or `embedding`.
        example: Inputs for one forward pass, or a `Trace` of it.
        who: The network's name in messages.

    Raises:
        UserError: If a layer does not exist, with the nearest names, or cannot be a map.
    """
    try:
        found = reads(model, layers, Trace.of(model, example))
        return {name: Tap.of(name, tensor_at(name, event.value), inputs_of(example)) for name, event in found.items()}
    except UserError as error:
        raise UserError(f"In the {who}: {error}") from error


def _is_point(maps: Tensor) -> bool:
    return maps.shape[2:].numel() == 1


def _point(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over the places as a map of one place."""
    return mean_over_places(maps, mask)[:, :, None, None]


def named_pairs(layers: str) -> Sequence[tuple[str, str]]:
    """Return the pairs of names in `student_layer:teacher_layer`, joined by `+`; one name stands for both.

    Raises:
        UserError: If the text is not written so.
    """
    found = []
    for text in re.split(r"[+,]", layers):
        match = _PAIR.fullmatch(text.strip())
        if match is None:
            raise UserError(
                f"{text!r} in layers={layers!r} is not a pair of layers: write student_layer:teacher_layer, several "
                "joined by +, or auto."
            )
        found.append((match["student"], match["teacher"] or match["student"]))
    return found


def _aligned(student: Sequence[Tap], teacher: Sequence[Tap]) -> tuple[LayerPair, ...]:
    """Pair every stage of the network with fewer stages with the nearest of the other, the last with the last."""
    count = min(len(student), len(teacher))
    # Trying every choice is cheap: networks have few stages.
    best = min(
        (
            (_distance(student, teacher, ours, theirs), ours, theirs)
            for ours in _choices(len(student), count)
            for theirs in _choices(len(teacher), count)
        ),
    )
    return tuple(LayerPair(student[one], teacher[other]) for one, other in zip(*best[1:]))


def _choices(length: int, count: int) -> Sequence[tuple[int, ...]]:
    # The last stage is always among them, so that last is paired with last.
    return [(*chosen, length - 1) for chosen in combinations(range(length - 1), count - 1)]


def _distance(student: Sequence[Tap], teacher: Sequence[Tap], ours: Sequence[int], theirs: Sequence[int]) -> float:
    """Return how different the paired stages are: in octaves of resolution, plus in shares of the depth."""
    total = 0.0
    for one, other in zip(ours, theirs):
        # Half the logarithm of the area is that of the side length.
        octaves = math.log2(math.prod(student[one].size) / math.prod(teacher[other].size)) / 2
        total += abs(octaves) + abs((one + 1) / len(student) - (other + 1) / len(teacher))
    return total


def _taken(pairs: tuple[LayerPair, ...], take: Take) -> tuple[LayerPair, ...]:
    match take:
        case "stages":
            return pairs
        case "middle":
            # Of an even number, the earlier of the two in the middle.
            return (pairs[(len(pairs) - 1) // 2],)
        case "last":
            return pairs[-1:]
