"""The teacher to record: how it is found, which precision it computes in, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tutelage.core.method import Method
from tutelage.core.teachers.class_map import TeacherClasses
from tutelage.core.teachers.naming import NamedTeacher, TeacherSource, named_teacher, teacher_of
from tutelage.core.teachers.teacher import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.data.dataset import Data
from tutelage.data.images import as_inputs
from tutelage.errors import NoLayersError, UserError
from tutelage.features.anatomy import reads
from tutelage.features.trace import Trace
from tutelage.models.blueprint import Source, several
from tutelage.recording.identity import TeacherIdentity, trained_networks
from tutelage.training.decisions import Decision, decide
from tutelage.training.memory_format import store_channels_last
from tutelage.training.settings import Training

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Asked:
    """A teacher, and the facts about it that a recording stores.

    Attributes:
        teacher: The teacher, which answers batches.
        identity: Which network it is.
        layers: The layers that it reads, in the order in which they run. Each has its shape without the batch.
        stages: The last layer of each stage of its network, each with its shape without the batch; empty if no layers
            are read.
    """

    teacher: Teacher
    identity: TeacherIdentity
    layers: Mapping[str, tuple[int, ...]]
    stages: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def asked(
    source: TeacherSource,
    data: Data,
    layers: Sequence[str] = (),
    *,
    logits: bool = True,
    classes: TeacherClasses | None = None,
    trust_code: bool = False,
) -> Asked:
    """Return the teacher that a user names.

    Args:
        source: A trained network, its name, or a `Teacher`. Several networks answer as an ensemble.
        data: The data that it is asked about.
        layers: Names of the layers to read.
        logits: Whether its logits are recorded too. If not, it may have other classes than the data, or none.
        classes: Which of its classes stand for the data's, if it has others.
        trust_code: Whether saved networks may run the code that they name.

    Raises:
        UserError: If no teacher is named, the teacher is a recording or untrained, its classes are not the data's, or
            it lacks one of the layers.
    """
    named = named_teacher(source, data, classes=classes, trust_code=trust_code)
    if named.answers is not None:
        named.answers.must_be_live("A recording has answers only to its own views", "name the network")
        teacher, identity = named.answers, TeacherIdentity.of_teacher(named.answers)
    else:
        teacher, identity = _trained(several(source), named, data, trust_code=trust_code)  # type: ignore[arg-type]
    # A recording of layers alone may be of a teacher with other classes, or none.
    if logits:
        _check_classes(teacher, data)
    if not layers:
        return Asked(teacher, identity, {})
    example = data.example(2)
    try:
        # The rows of a layer are those of one network.
        teacher.inner_network()
        seen = teacher.look(example)
        teacher = teacher.reading(_in_order(seen, layers), example=seen, logits=logits)
    except NoLayersError as error:
        raise UserError(
            f"Layers can only be read from a single network, and {identity.name} is not one: leave out --layers."
        ) from error
    return Asked(teacher, identity, _shapes(teacher), _stages(teacher, seen))


class Alone(Method):
    """A method that holds only a teacher, so that `decide` and `compiled` treat it as they treat a training.

    Args:
        teacher: The teacher.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher


def decision_of(found: Asked, data: Data, training: Training, *, views: int, begun_in: str | None) -> Decision:
    """Return the device, precision and memory format of the teacher, and the reasons for them.

    Args:
        found: The teacher.
        data: The data that it is asked about.
        training: The settings.
        views: How many views of each sample it is asked about.
        begun_in: The precision of the shards that exist already. `auto` keeps it, so that all shards agree. None if
            there are no shards.
    """
    return decide(
        training,
        Alone(found.teacher),
        data.example(1),
        samples=data.count("train") * views,
        epochs=views,
        called="views",
        dataset=data.train,
        begun_in=begun_in,
    )


class Answers:
    """A teacher at work: made ready once, then asked batch by batch.

    Args:
        teacher: The teacher; it is moved to its device.
        decision: The device, precision and memory format to use.

    Attributes:
        teacher: The teacher, on its device.
        decision: The device, precision and memory format in use.
    """

    def __init__(self, teacher: Teacher, decision: Decision) -> None:
        self.teacher, self.decision = teacher.to(decision.device), decision
        # None for float32, where autocast stays off.
        self._half = _DTYPES.get(decision.precision)
        if decision.channels_last:
            store_channels_last(self.teacher)

    def __call__(self, batch: Batch) -> Output:
        """Return the teacher's answer to a batch."""
        with torch.autocast(self.decision.device, dtype=self._half, enabled=self._half is not None):
            return self.teacher(batch)

    def about(self, images: Tensor, targets: Tensor | None, indices: Tensor, parameters: Tensor, data: Data) -> Output:
        """Return the teacher's output for a view of images, made exactly as a training that replays it makes the view.

        Args:
            images: The stored images, `[batch, ...]`, on the device.
            targets: Their targets, `[batch, ...]`, on the device; None if they have none.
            indices: Their positions in the training split, `[batch]`.
            parameters: The parameters of the view, `[batch, width]`.
            data: The data, whose augmentation makes the view.
        """
        view = parameters.to(images.device, non_blocking=True)
        # The order matters: augmentation works on the stored pixels, and the network gets the converted result.
        inputs = as_inputs(data.augmentation.apply(images, view), channels_last=self.decision.channels_last)
        indices = indices.to(images.device, non_blocking=True)
        return self(Batch(inputs=inputs, targets=targets, indices=indices, extras={"view": view}))


def _in_order(trace: Trace, layers: Sequence[str]) -> list[str]:
    """Return layers in the order in which they run, so that the order of the user's names does not change the rows."""
    found = reads(trace.model, layers, trace)
    return sorted(found, key=lambda layer: (trace.events.index(found[layer]), layer))


def _stages(teacher: Teacher, seen: Trace) -> dict[str, tuple[int, ...]]:
    try:
        found = [tap.layer for tap in teacher.stages(seen)]
    except UserError:
        # The network has no feature maps and so no stages. Its layers can still be read by name.
        return {}
    return _shapes(teacher.reading(found, example=seen))


def _shapes(teacher: Teacher) -> dict[str, tuple[int, ...]]:
    teacher.release()
    return {layer: tuple(shape[1:]) for layer, shape in teacher.shapes.items()}


def _trained(
    sources: Sequence[Source], named: NamedTeacher, data: Data, *, trust_code: bool
) -> tuple[Teacher, TeacherIdentity]:
    if not named.networks:
        raise UserError("No teacher was given: pass a trained network, or several as an ensemble.")
    networks, identity = trained_networks(sources, data, own_classes=bool(named.classes), trust_code=trust_code)
    teacher = teacher_of(networks, named.classes)
    # The class map decides the answers as well, so it belongs to the identity.
    return teacher, identity.mapped(teacher.identity()) if named.classes else identity


def _check_classes(teacher: Teacher, data: Data) -> None:
    """Refuse a teacher whose classes are not the data's: ask it about two samples before anything is recorded."""
    teacher.check_answers(data)
    # The values of targets and indices do not matter here: only the shape of the answer is checked.
    blanks = torch.zeros(2, dtype=torch.int64)
    teacher(Batch(inputs=data.example(2), targets=blanks, indices=blanks))
