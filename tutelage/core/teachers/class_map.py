"""Class maps: for a teacher with other classes, which of them stand for the data's."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.teachers.teacher import Teacher, answer_check, ways_out
from tutelage.data.batch import Batch, Output
from tutelage.data.dataset import Data
from tutelage.data.task import Task
from tutelage.errors import NoLayersError, UserError, unknown
from tutelage.features.anatomy import Tap
from tutelage.models.answers import answer
from tutelage.models.blueprint import check_answer, check_takes
from tutelage.models.scores import check_scores

Named = str | int
TeacherClasses = str | Path | Mapping[Any, Any] | Sequence[Named]
"""How a user gives a class map: a file; a mapping from each class of the teacher to a class of the data; or a sequence
with the teacher's class for each class of the data, in order."""

_SHOWN = 5


@dataclass(frozen=True)
class ClassMap:
    r"""The classes of a teacher that stand for each class of the data.

    If several stand for one, as breeds for "dog", their probabilities add up: $z_k = \log \sum_{j \in S_k} e^{z_j}$.
    Classes of the teacher that stand for none are left out. The softmax then gives their probability to the others.

    Attributes:
        groups: For each class of the data, the indices of the teacher's classes.
    """

    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def read(cls, given: TeacherClasses, *, teacher_names: Sequence[str], data_names: Sequence[str]) -> ClassMap:
        """Return the class map that a user gives.

        A class is given by its name or by its number, counted from 0. A text that could be both is read as a name.

        Args:
            given: A file, a mapping or a sequence.
            teacher_names: The teacher's classes in the order of its logits; empty if their names are not known.
            data_names: The data's classes in the order of the labels.

        Raises:
            UserError: If the file cannot be read, a class does not exist, a class of the teacher is named twice, or a
                class of the data has none.
        """
        groups: list[list[int]] = [[] for _ in data_names]
        seen: dict[int, Named] = {}
        for theirs, ours in _pairs(given, data_names):
            number = _index(theirs, teacher_names, "teacher")
            if number in seen:
                raise UserError(
                    f"The class map lists the teacher's class {theirs!r} twice: it can stand for only one class of the "
                    "data."
                )
            seen[number] = ours
            groups[_index(ours, data_names, "data")].append(number)
        missing = [str(name) for name, group in zip(data_names, groups, strict=True) if not group]
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise UserError(
                f"The class map has no class of the teacher for {', '.join(missing[:_SHOWN])}{more}: a student cannot "
                "learn them from it. Map one, or choose a method that reads only layers, such as features."
            )
        return cls(tuple(map(tuple, groups)))

    def __str__(self) -> str:
        used = sum(map(len, self.groups))
        return (
            f"{used} classes of the teacher stand for the {len(self.groups)} of the data; its other classes are "
            "ignored."
        )

    def __call__(self, logits: Tensor, axis: int = 1) -> Tensor:
        """Return the logits of the data's classes.

        Args:
            logits: The teacher's logits.
            axis: The axis of the teacher's classes in them.

        Raises:
            UserError: If the teacher has fewer classes than the map names.
        """
        if logits.ndim <= axis or max(map(max, self.groups)) >= logits.shape[axis]:
            raise UserError(
                f"The class map lists the teacher's class {max(map(max, self.groups))}, but the teacher returns shape "
                f"{list(logits.shape)}: classes are counted from 0 along axis {axis}."
            )
        # With one class of the teacher for each, no probabilities have to be added.
        if all(len(group) == 1 for group in self.groups):
            return logits.index_select(axis, torch.tensor(self.groups, device=logits.device)[:, 0])
        chosen = (logits.index_select(axis, torch.tensor(group, device=logits.device)) for group in self.groups)
        # The log of the sum of the classes' probabilities, but for a constant that the softmax takes away.
        return torch.stack([part.logsumexp(axis) for part in chosen], axis)


class ClassMapTeacher(Teacher):
    """A teacher whose classes are mapped to the data's.

    Args:
        teacher: The teacher.
        classes: Which of its classes stand for each class of the data.
    """

    def __init__(self, teacher: Teacher, classes: ClassMap) -> None:
        super().__init__()
        teacher.must_be_live(
            "A class map is for a teacher that answers live, and a recording has the classes of its data already",
            "record with --teacher-classes",
        )
        self.teacher, self._classes = teacher, classes

    def known_by(self) -> str:
        """Return a digest of the class map: with another map it is another teacher."""
        return f"classes {hashlib.sha256(repr(self._classes.groups).encode()).hexdigest()[:16]}"

    def inner_network(self) -> nn.Module:
        """Refuse, because methods that ask for the network use its classifier.

        Raises:
            NoLayersError: Always.
        """
        raise NoLayersError(
            "This method uses the teacher's network itself, whose classifier has other classes than the data: choose a "
            "method that reads its logits or its layers alone, or give it a classifier of the data's classes."
        )

    def reading(self, layers: Sequence[str], *, example: Any = None, logits: bool = True) -> Teacher:
        """Return a teacher that reads these layers. Without logits it needs no class map."""
        inner = self.teacher.reading(layers, example=example, logits=logits)
        # Layers are the same whatever the classes mean.
        return ClassMapTeacher(inner, self._classes) if logits else inner

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shape of each layer that is read, on the example."""
        return self.teacher.shapes

    def release(self) -> None:
        """Remove the hooks from the network; the next answer attaches them again."""
        self.teacher.release()

    def stages(self, example: Any) -> Sequence[Tap]:
        """Return the taps at the ends of the stages of the teacher's network."""
        return self.teacher.stages(example)

    def look(self, example: Any) -> Any:
        """Return the trace of the teacher's network."""
        return self.teacher.look(example)

    def as_network(self) -> nn.Module | None:
        """Return the network with the data's classes; None if there is none."""
        network = self.teacher.as_network()
        # A new module starts in train mode, whatever the one inside it is in.
        return None if network is None else _Mapped(network, self._classes).eval()

    def check_answers(self, data: Data) -> None:
        """Check that the mapped answer has the data's classes: now if there is a network, else at the first answer.

        Whether the answer is scores is asked of the teacher within: some of many probabilities have no sum of 1.
        """
        network, within = self.as_network(), self.teacher.as_network()
        if network is None or within is None:
            self._awaited = answer_check(data, scores=False)
            self.teacher._awaited = partial(_check_inner, data.task)
            return
        answer = check_takes(network, data, who="teacher")
        with ways_out():
            check_answer(network, answer.shape, data, who="teacher")
        check_scores(check_takes(within, data, who="teacher"), data.task, who="teacher")

    def settle(self, data: Data, *, trust_code: bool = False) -> tuple[Data, tuple[str, ...]]:
        """Return the data, and a note on how many of the teacher's classes count."""
        data, notes = super().settle(data, trust_code=trust_code)
        return data, (*notes, str(self._classes))

    def forward(self, batch: Batch) -> Output:
        """Return the teacher's output with the logits of the data's classes."""
        output = self.teacher(batch)
        # `[member, batch, class]`: the classes are one axis further back.
        members = None if output.members is None else self._classes(output.members, axis=2)
        return replace(output, logits=self._classes(output.logits), members=members)


class _Mapped(nn.Module):
    """A network whose classes are mapped to the data's."""

    def __init__(self, network: nn.Module, classes: ClassMap) -> None:
        super().__init__()
        self.network, self._classes = network, classes

    def forward(self, inputs: Any) -> Tensor:
        return self._classes(answer(self.network, inputs))


def _check_inner(task: Task, answer: Tensor, samples: int) -> None:
    check_scores(answer, task, who="teacher")


def _pairs(given: TeacherClasses, data_names: Sequence[str]) -> list[tuple[Named, Named]]:
    """Return pairs of a class of the teacher and the class of the data that it stands for."""
    if isinstance(given, str | Path):
        return _read(Path(given), data_names)
    if isinstance(given, Mapping):
        return list(given.items())
    if len(given) != len(data_names):
        raise UserError(
            f"The class map lists {len(given)} classes of the teacher, and the data have {len(data_names)}: list one "
            "for each, in the order of the labels."
        )
    return list(zip(given, range(len(data_names)), strict=True))


def _read(file: Path, data_names: Sequence[str]) -> list[tuple[Named, Named]]:
    """Return the pairs in a file. Its ending tells the format: JSON, CSV, or lines of text."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"The class map {file} cannot be read: {error}.") from error
    if file.suffix == ".json":
        return _from_json(text, file, data_names)
    if file.suffix == ".csv":
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
        # A header line `teacher,data` is allowed, and is no pair.
        rows = rows[1:] if rows and [cell.lower() for cell in rows[0]] == ["teacher", "data"] else rows
    else:
        lines = (line.strip() for line in text.splitlines())
        rows = [[part.strip() for part in line.split("->")] for line in lines if line and not line.startswith("#")]
    if not rows or any(len(row) != 2 for row in rows):
        odd = next((row for row in rows if len(row) != 2), "nothing")
        raise UserError(
            f"{file} is not a class map: {odd} is not a pair of classes. Write one line for each class of the teacher "
            "that counts: 'class of the teacher -> class of the data', or both with a comma between them in a .csv "
            "file."
        )
    return [(theirs, ours) for theirs, ours in rows]


def _from_json(text: str, file: Path, data_names: Sequence[str]) -> list[tuple[Named, Named]]:
    try:
        # Read as pairs, because a dictionary would silently drop the first of two equal keys.
        content = json.loads(text, object_pairs_hook=list)
    except ValueError as error:
        raise UserError(f"The class map {file} is not valid JSON: {error}.") from error
    # Pairs were asked for, so an object is a list here, and only the text tells the two apart.
    if text.lstrip().startswith("{"):
        return [(theirs, ours) for theirs, ours in content]
    if not isinstance(content, list) or not all(isinstance(item, str | int) for item in content):
        raise UserError(f"{file} is not a class map: write an object {{class of the teacher: class of the data}}.")
    return _pairs(content, data_names)


def _index(named: Named, names: Sequence[str], whose: str) -> int:
    """Return the number of a class that is given by its name or by its number."""
    # A name wins over a number, because class names may be digits themselves.
    text = str(named).strip()
    count = names.count(text) if isinstance(named, str) else 0
    if count > 1:
        raise UserError(f"{count} classes of the {whose} are named {text!r}: give the number of the one you mean.")
    if count == 1:
        return names.index(text)
    # Without names, nothing tells how many classes there are; a number too high is refused at the first answer.
    if text.isdecimal() and (not names or int(text) < len(names)):
        return int(text)
    if not names:
        raise UserError(f"The names of the teacher's classes are not known: give the number of {text!r}, from 0.")
    raise unknown(f"class of the {whose}", text, names)
