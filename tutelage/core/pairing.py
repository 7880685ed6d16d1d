"""Which layer of the student is compared with which of the teacher."""

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

_PAIR = re.compile(r"(?P<student>[^:]+(?::in)?)(?::(?P<teacher>[^:]+(?::in)?))?")


class Compared(NamedTuple):
    """Two maps, and where they are compared.

    Attributes:
        student: The student's, `[batch, channel, height, width]`.
        teacher: The teacher's, likewise.
        mask: The places that are no padding, `[batch, 1, height, width]`, at the size of both; None if all are.
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
        """Return what was read at both as maps `[batch, channel, height, width]`."""
        return self.student.map(student), self.teacher.map(teacher)

    def masks(self, student: Output, teacher: Output) -> tuple[Tensor | None, Tensor | None]:
        """Return the places of both maps that are no padding, each `[batch, 1, height, width]`; None if all are.

        Raises:
            UserError: If padding cannot be told from places at one of them.
        """
        return self.student.mask(student), self.teacher.mask(teacher)

    def compared(self, student: Output, teacher: Output) -> Compared:
        """Return both maps, and the places at which they are compared.

        Where there is padding, both have the same places: a map of which the other side has one place alone becomes its
        mean.

        Raises:
            UserError: If padding cannot be told from places, or the maps have other places than each other.
        """
        one, other = self.maps(student, teacher)
        ours, theirs = self.masks(student, teacher)
        if ours is None and theirs is None:
            return Compared(one, other, None)
        if _is_point(one) or _is_point(other):
            return Compared(_point(one, ours), _point(other, theirs), None)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise padded(f"{self} have other places than each other")
        return Compared(one, other, ours & theirs)

    def __str__(self) -> str:
        return f"{self.student} : {self.teacher}"


@dataclass(frozen=True)
class Seen:
    """What a student and a teacher do with an example, each seen in one forward pass. It stands for the example.

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
        """Return what both do with an example; or the example itself, where it is that already.

        Raises:
            UserError: If the teacher has no layers to read.
        """
        if isinstance(example, Seen):
            return example
        # First the teacher, which may have no layers.
        answers = teacher.look(example)
        return cls(example, Trace.of(student, example), answers)

    def with_student(self, student: nn.Module) -> Seen:
        """Return the same with another student, or with this one as it is now."""
        return replace(self, student=Trace.of(student, self.example))


class Paired(NamedTuple):
    """A student and a teacher that are read where they are compared.

    Attributes:
        student: The student, which reads its layers of the pairs.
        teacher: The teacher, likewise.
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
        example: Inputs for one forward pass (batch of two or more), or what both do with it, `Seen`.
        take: Which of the automatic pairs: all, the one in the middle, or the last.
        logits: Whether anybody reads the teacher's logits.

    Raises:
        UserError: If the teacher has no network to read, or a layer does not exist or cannot be a map.
    """
    names = [] if layers == AUTO else _parse(layers)
    seen = Seen.of(student, teacher, example)
    if layers == AUTO:
        pairs = _taken(_aligned(stages(student, seen.student), teacher.stages(seen.teacher)), take)
    else:
        students = taps(student, [name for name, _ in names], seen.student, who="student")
        teachers = teacher.taps([name for _, name in names], seen.teacher)
        pairs = tuple(LayerPair(students[one], teachers[other]) for one, other in names)
    return reading(student, teacher, pairs, seen, logits=logits)


def reading(
    student: nn.Module, teacher: Teacher, pairs: Sequence[LayerPair], example: Any, *, logits: bool = True
) -> Paired:
    """Return a student and a teacher that read the layers of some pairs; arguments as for `pair`."""
    seen = Seen.of(student, teacher, example)
    read = [list(dict.fromkeys(names)) for names in zip(*((p.student.layer, p.teacher.layer) for p in pairs))]
    extractor = FeatureExtractor(student, read[0], example=seen.student)
    return Paired(extractor, teacher.reading(read[1], example=seen.teacher, logits=logits), tuple(pairs))


def taps(model: nn.Module, layers: Sequence[str], example: Any, *, who: str) -> Mapping[str, Tap]:
    """Return where the named layers are read.

    Args:
        model: The network.
        layers: Names, as in `FeatureExtractor`.
        example: Inputs for one forward pass, or a `Trace` of it.
        who: What to call the network in messages.

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
    """Return the mean over the places as a map of one."""
    return mean_over_places(maps, mask)[:, :, None, None]


def _parse(layers: str) -> Sequence[tuple[str, str]]:
    found = []
    for text in re.split(r"[+,]", layers):
        match = _PAIR.fullmatch(text.strip())
        if match is None:
            raise UserError(
                f"{text!r} in layers={layers!r} is no pair of layers: write student_layer:teacher_layer, several "
                "joined by +, or auto."
            )
        found.append((match["student"], match["teacher"] or match["student"]))
    return found


def _aligned(student: Sequence[Tap], teacher: Sequence[Tap]) -> tuple[LayerPair, ...]:
    """Pair all stages of the network that has fewer, in order and the last with the last, with the nearest stages."""
    count = min(len(student), len(teacher))
    best = min(
        (
            (_distance(student, teacher, ours, theirs), ours, theirs)
            for ours in _choices(len(student), count)
            for theirs in _choices(len(teacher), count)
        ),
    )
    return tuple(LayerPair(student[one], teacher[other]) for one, other in zip(*best[1:]))


def _choices(length: int, count: int) -> Sequence[tuple[int, ...]]:
    return [(*chosen, length - 1) for chosen in combinations(range(length - 1), count - 1)]


def _distance(student: Sequence[Tap], teacher: Sequence[Tap], ours: Sequence[int], theirs: Sequence[int]) -> float:
    """Return how unlike the paired stages are: octaves of resolution, and shares of the depth."""
    total = 0.0
    for one, other in zip(ours, theirs):
        octaves = math.log2(math.prod(student[one].size) / math.prod(teacher[other].size)) / 2
        total += abs(octaves) + abs((one + 1) / len(student) - (other + 1) / len(teacher))
    return total


def _taken(pairs: tuple[LayerPair, ...], take: Take) -> tuple[LayerPair, ...]:
    match take:
        case "stages":
            return pairs
        case "middle":
            return (pairs[(len(pairs) - 1) // 2],)
        case "last":
            return pairs[-1:]
