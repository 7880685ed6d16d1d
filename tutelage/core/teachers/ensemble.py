"""Several teachers as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import nn

from tutelage.core.teachers.combining import Together
from tutelage.core.teachers.teacher import Teacher, teachers_in
from tutelage.data.batch import Batch, Output
from tutelage.data.criterion import CROSS_ENTROPY
from tutelage.data.dataset import Data
from tutelage.errors import NoLayersError, UserError
from tutelage.features.anatomy import Tap
from tutelage.features.ending import ABSENT
from tutelage.losses import wide
from tutelage.models.ensemble import Ensemble


class EnsembleTeacher(Teacher):
    r"""Several teachers as one: `logits` are the task's mean of all answers, `members` each teacher's own logits.

    For scores of classes the mean is the log of the mean probability, $\log \frac{1}{M} \sum_m \mathrm{softmax}(z_m)$.
    `together` may say otherwise, such as the surest teacher's answer for each sample.

    Methods that compare layers compare the student with each of the networks, with an adapter for each. A layer of the
    second network is named `2.layer3`.

    Args:
        teachers: The members, at least one.
        together: How they answer together.
        layers: Names of the layers to read, each with the number of its network.
        example: Inputs for one forward pass, which tell the layers' shapes at once, or what `look` made of them.
        logits: Whether the logits are read as well.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        together: Together | None = None,
        layers: Sequence[str] = (),
        *,
        example: Any = None,
        logits: bool = True,
    ) -> None:
        super().__init__()
        if not teachers:
            raise UserError("An ensemble needs at least one teacher.")
        self._together, self._logits = together or Together(), logits
        self._together.check_count(len(teachers))
        self._layers = _by_member(layers, len(teachers))
        seen = example if isinstance(example, Looks) else [example] * len(teachers)
        members = [
            teacher.reading(own, example=one, logits=logits) if own else teacher
            for teacher, own, one in zip(teachers, self._layers, seen, strict=True)
        ]
        self.teachers = nn.ModuleList(members)

    def known_by(self) -> str | None:
        """Return how the members answer together; nothing where it is their mean. They are named beside it."""
        return self._together.name

    def with_members(self, teachers: Sequence[Teacher]) -> EnsembleTeacher:
        """Return an ensemble of other members that answers in the same way."""
        return EnsembleTeacher(teachers, self._together)

    def forward(self, batch: Batch) -> Output:
        """Return the joint answer, `[batch, class, ...]`, and the members' answers, `[member, batch, class, ...]`."""
        asked = [
            (number, teacher(batch))
            for number, (teacher, own) in enumerate(zip(self.teachers, self._layers, strict=True), 1)
            if self._logits or own
        ]
        features = {f"{number}.{layer}": found for number, output in asked for layer, found in output.features.items()}
        outputs: list[Output] = [output for _, output in asked]
        if not self._logits:
            return Output(logits=ABSENT, features=features, valid=outputs[0].valid)
        # Widened before they are averaged, which in half precision would round the members' small differences away.
        answers = [wide(output.logits) for output in outputs]
        shapes = [tuple(answer.shape) for answer in answers]
        if len(set(shapes)) > 1:
            raise UserError(f"The teachers of an ensemble must agree on the classes; they return the shapes {shapes}.")
        members = torch.stack(answers)
        targets = batch.labels if self._together.how == "label" else None
        logits = self._together.combined(members, batch.criterion, targets)
        return replace(outputs[0], logits=logits, members=members, features=features)

    def as_network(self) -> nn.Module | None:
        """Return the members' networks as one; None if one of them has none, or the answer depends on the label."""
        # All or none: an ensemble of some of the members would be another teacher.
        networks = [teacher.as_network() for teacher in teachers_in(self)]
        known = [network for network in networks if network is not None]
        if len(known) < len(networks) or self._together.how == "label":
            return None
        return (Ensemble(known) if self._together.how == "mean" else _Combined(known, self._together)).eval()

    def check_answers(self, data: Data) -> None:
        """Check each member's answers, and that the data have what the members are chosen by.

        Raises:
            UserError: If an answer does not fit the data, or they lack it.
        """
        if self._logits:
            self._together.check_serves(data)
            super().check_answers(data)

    # Layers: those of all members.

    def inner_network(self) -> nn.Module:
        """Refuse, because there are several networks.

        Raises:
            NoLayersError: Always.
        """
        _refuse("This method uses the teacher's network itself, such as its classifier, and there are several")

    def look(self, example: Any) -> Any:
        """Return the members' traces of the example."""
        return Looks(teacher.look(example) for teacher in teachers_in(self))

    def taps(self, layers: Sequence[str], example: Any) -> Mapping[str, Tap]:
        """Return the taps of the named layers, each with the number of its network.

        Raises:
            UserError: If a name has no number of a member, a layer does not exist, or it cannot be a map.
        """
        found = {}
        members = zip(teachers_in(self), _by_member(layers, len(self.teachers)), self._seen(example), strict=True)
        for number, (teacher, own, seen) in enumerate(members, 1):
            for name, tap in (teacher.taps(own, seen) if own else {}).items():
                found[f"{number}.{name}"] = replace(tap, layer=f"{number}.{name}")
        return {layer: found[layer] for layer in layers}

    def backbones(self, example: Any) -> Sequence[Sequence[Tap]]:
        """Return the taps at the ends of the stages of each member."""
        seen = zip(teachers_in(self), self._seen(example), strict=True)
        found = [(number, teacher.stages(one)) for number, (teacher, one) in enumerate(seen, 1)]
        return [[replace(tap, layer=f"{number}.{tap.layer}") for tap in taps] for number, taps in found]

    def stages(self, example: Any) -> Sequence[Tap]:
        """Return the taps at the ends of the stages of all members, one member after the other."""
        return [tap for taps in self.backbones(example) for tap in taps]

    def reading(self, layers: Sequence[str], *, example: Any = None, logits: bool = True) -> EnsembleTeacher:
        """Return the ensemble that reads these layers, each with the number of its network.

        Args:
            layers: Names such as `2.layer3`.
            example: Inputs for one forward pass, or what `look` made of them; None where shapes are not needed.
            logits: Whether its logits are needed.

        Raises:
            NoLayersError: If a name has no number, or not one of a member.
        """
        return EnsembleTeacher(list(teachers_in(self)), self._together, layers, example=example, logits=logits)

    def reads(self) -> Sequence[str]:
        """Return the names of the layers that are read, each with the number of its network."""
        return [f"{number}.{layer}" for number, own in enumerate(self._layers, 1) for layer in own]

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shape of each layer that is read, on the example."""
        members = enumerate(teachers_in(self), 1)
        return {f"{number}.{layer}": shape for number, one in members for layer, shape in one.shapes.items()}

    def release(self) -> None:
        """Remove the hooks from the networks; the next answer attaches them again."""
        for teacher in teachers_in(self):
            teacher.release()

    def _seen(self, example: Any) -> Looks:
        looks: Looks = example if isinstance(example, Looks) else self.look(example)
        return looks


class Looks(tuple[Any, ...]):
    """What the members of an ensemble found in an example, one after the other."""


class _Combined(nn.Module):
    """Several networks as one that answers otherwise than by their mean."""

    def __init__(self, networks: Sequence[nn.Module], together: Together) -> None:
        super().__init__()
        self.ensemble, self._together = Ensemble(networks), together

    def forward(self, inputs: Any = None, /, **named: Any) -> torch.Tensor:
        members = wide(self.ensemble.member_logits(named if inputs is None else inputs))
        return self._together.combined(members, CROSS_ENTROPY)


def _by_member(layers: Sequence[str], members: int) -> list[list[str]]:
    """Return the layers of each member, without its number."""
    found: list[list[str]] = [[] for _ in range(members)]
    for layer in layers:
        number, dot, name = layer.partition(".")
        if not (dot and number.isdecimal() and 1 <= int(number) <= members):
            _refuse(f"With several teachers a layer is named by its network's number, such as 1.{layer}")
        found[int(number) - 1].append(name)
    return found


def _refuse(why: str) -> NoReturn:
    raise NoLayersError(
        f"{why}: pass one network, or choose a method that reads only logits, such as kd, or that compares layers, "
        "such as features."
    )
