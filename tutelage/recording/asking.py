"""The teacher that is recorded: where it comes from, what it computes in, what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.anatomy import EMBEDDING, classifier
from tutelage.assembly import several
from tutelage.batch import Batch, Output
from tutelage.compilation import forgiving, networks
from tutelage.data.dataset import Data
from tutelage.data.images import as_inputs
from tutelage.errors import NoLayersError, UserError
from tutelage.hardware import Decision, decide
from tutelage.memory_format import store_channels_last
from tutelage.method import Method
from tutelage.models.spec import NetworkSpec
from tutelage.networks import Source, blueprint, check_classes, part_of
from tutelage.order import Order
from tutelage.recording.identity import TeacherIdentity
from tutelage.recording.reading import Recording
from tutelage.recording.replay import PREFIX
from tutelage.teachers import EnsembleTeacher, FrozenTeacher, Teacher
from tutelage.training import Training

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Asked:
    """A teacher, and what a recording must know of it.

    Attributes:
        teacher: It answers batches.
        identity: Which network it is.
        layers: The layers that it reads in the order in which they run, each with its shape without the batch.
        stages: The ends of its network's stages, likewise; none where no layers are read.
    """

    teacher: Teacher
    identity: TeacherIdentity
    layers: Mapping[str, tuple[int, ...]]
    stages: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def asked(source: Source | Teacher | Sequence[Source], data: Data, layers: Sequence[str] = ()) -> Asked:
    """Return the teacher that a user names.

    Args:
        source: A trained network, as elsewhere, or a `Teacher`; of several networks, their ensemble.
        data: What it is asked about.
        layers: Names of the layers to read.

    Raises:
        UserError: If there is none, it comes untrained, its classes are not the data's, or it has no such layers.
    """
    if isinstance(source, Teacher):
        name = type(source).__name__
        teacher, identity = source, TeacherIdentity.of(source, name=name, source=name)
        check_classes(_Answering(teacher), data, who="teacher")
    else:
        teacher, identity = _trained(several(source), data)
    if not layers:
        return Asked(teacher, identity, {})
    example = data.example(2)
    try:
        teacher = teacher.reading(layers, example=example)
        teacher = teacher.reading(_in_order(teacher.inner_network(), layers, example), example=example)
    except NoLayersError as error:
        raise UserError(
            f"Layers are read of one network, and this teacher ({identity.name}) is not one: leave --layers away."
        ) from error
    return Asked(teacher, identity, _shapes(teacher), _stages(teacher, example))


def decision_of(asked: Asked, data: Data, training: Training, *, views: int, begun_in: str | None) -> Decision:
    """Return what the teacher computes with, and why.

    Args:
        asked: The teacher.
        data: What it is asked about.
        training: The settings.
        views: How many views of each sample it is asked about.
        begun_in: The precision of what is recorded already, which `auto` takes; None if nothing is.
    """
    goes_on = begun_in is not None and training.precision == "auto"
    if goes_on:
        training = replace(training, precision=begun_in)  # type: ignore[arg-type]  # it was one of them
    samples = data.count("train") * views
    decision = decide(
        training, _Alone(asked.teacher), data.example(1), samples=samples, epochs=views, dataset=data.train
    )
    first, *others = (reason for reason in decision.reasons if "optimizer" not in reason)
    if goes_on:
        first = first.replace("asked for", "as it was begun")
    return replace(decision, reasons=(first, *others))


class Answers:
    """A teacher at work: made ready once, then asked batch by batch.

    Args:
        teacher: The teacher; it is moved to its device.
        decision: What it computes with.

    Attributes:
        device: Where it takes its inputs.
        channels_last: Whether it takes them with the channels innermost in memory.
    """

    def __init__(self, teacher: Teacher, decision: Decision) -> None:
        self.device, self.channels_last = decision.device, decision.channels_last
        self._teacher = teacher.to(decision.device)
        self._half = _DTYPES.get(decision.precision)
        if decision.channels_last:
            store_channels_last(self._teacher)
        self._compiled = decision.compile_teachers
        if self._compiled:
            for network in networks(_Alone(self._teacher), trained=False):
                network.compile()

    def ready(self, tell: Callable[[str], None]) -> AbstractContextManager[None]:
        """Return the context in which to ask; `tell` hears of what cannot be compiled."""
        return forgiving(tell) if self._compiled else nullcontext()

    def to(self, batch: Batch) -> Output:
        """Return what the teacher says about a batch."""
        with torch.autocast(self.device, dtype=self._half, enabled=self._half is not None):
            return self._teacher(batch)

    def about(self, images: Tensor, targets: Tensor, indices: Tensor, parameters: Tensor, data: Data) -> Output:
        """Return what the teacher says about a view of images, and ask as a training that replays it would.

        Args:
            images: As they are stored, `[batch, ...]`, on the device.
            targets: Their labels, `[batch]`, on the device.
            indices: Their positions in the training split, `[batch]`.
            parameters: Those of the view, `[batch, width]`.
            data: The data, whose augmentation makes the view.
        """
        view = parameters.to(images.device, non_blocking=True)
        # The augmentation sees what is stored, the network what is made of that.
        inputs = as_inputs(data.augmentation.apply(images, view), channels_last=self.channels_last)
        indices = indices.to(images.device, non_blocking=True)
        return self.to(Batch(inputs=inputs, targets=targets, indices=indices, extras={"view": view}))


class _Alone(Method):
    """A teacher where a method is expected: what it runs on is decided as for a training."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher


def _in_order(network: nn.Module, layers: Sequence[str], example: Any) -> list[str]:
    """Return layers in the order in which they run: however they are named, the rows are the same."""
    order = Order.of(network, example)

    def when(layer: str) -> int:
        return order.when(f"{classifier(network, example)}:in" if layer == EMBEDDING else layer)

    return sorted(set(layers), key=lambda layer: (when(layer), layer))


def _stages(teacher: Teacher, example: Any) -> dict[str, tuple[int, ...]]:
    try:
        found = [tap.layer for tap in teacher.stages(example)]
    except UserError:
        # Nothing in it is a map; its layers can still be read by name.
        return {}
    return _shapes(teacher.reading(found, example=example))


def _shapes(teacher: Teacher) -> dict[str, tuple[int, ...]]:
    teacher.release()
    return {layer: tuple(shape[1:]) for layer, shape in teacher.shapes.items()}


def _trained(sources: Sequence[Source], data: Data) -> tuple[Teacher, TeacherIdentity]:
    if not sources:
        raise UserError("No teacher is named: pass a trained network, or several as an ensemble.")
    if any(isinstance(it, Recording) or (isinstance(it, str) and it.startswith(PREFIX)) for it in sources):
        raise UserError("A recording knows its own views alone, and cannot be asked about others: name the network.")
    plans = [blueprint(source, data, trained=True) for source in sources]
    built = [plan.build(0, part_of("teacher", position)) for position, plan in enumerate(plans)]
    for plan, network in zip(plans, built, strict=True):
        if not plan.trained:
            raise UserError(
                f"{plan.name} comes without weights for these classes, and what it says is not worth recording. Train "
                f"it first (tutelage distill supervised --student {plan.name} --out runs/teacher) and name that run, "
                "or add @FILE with its weights."
            )
        check_classes(network, data, who="teacher")
    teachers = [FrozenTeacher(network) for network in built]
    names = [plan.name for plan in plans]
    texts = [_lasting(source) if isinstance(source, str) else name for source, name in zip(sources, names, strict=True)]
    whole: nn.Module = built[0] if len(built) == 1 else nn.ModuleList(built)
    identity = TeacherIdentity.of(whole, name=" + ".join(names), source=" + ".join(texts))
    return teachers[0] if len(teachers) == 1 else EnsembleTeacher(teachers), identity


def _lasting(source: str) -> str:
    """Return a network's name as it is understood in any folder: a replay looks there whether it has changed."""
    return str(NetworkSpec.parse(source).absolute())


class _Answering(nn.Module):
    """A teacher as a network, which `check_classes` asks about its classes."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, inputs: Any) -> Tensor:
        targets = torch.zeros(len(inputs), dtype=torch.int64)
        return self.teacher(Batch(inputs=inputs, targets=targets, indices=targets)).logits
