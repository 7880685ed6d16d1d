"""Where an experiment's networks come from: a name, a factory or a module, made afresh under a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.batch import Batch
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.models.answers import call, classes_first, logits_of
from tutelage.models.classes import class_names_of, with_own_classes
from tutelage.models.copies import copy_of, sized
from tutelage.models.fresh import fresh
from tutelage.models.intake import check_graph, check_untouched, kept_inputs, refused_inputs
from tutelage.models.loading import load_network
from tutelage.models.modes import evaluating
from tutelage.models.normalization import Normalization, Normalized, tell_range
from tutelage.models.saving import architecture
from tutelage.models.spec import NetworkSpec
from tutelage.system.chance import starting_at
from tutelage.system.digests import seed_of

Source = str | nn.Module | Callable[[], nn.Module]


@dataclass(frozen=True)
class Blueprint:
    """Makes a network as often as it is needed, each time from the seed and the name of its part.

    Attributes:
        make: Makes it once, from the present state of the random generators.
        name: What to call it.
        trained: Whether it comes with weights that already solve the task.
        untrained: The same architecture without weights.
        class_names: The names of its own classes, if it comes with some; empty if they are not known.
    """

    make: Callable[[], nn.Module]
    name: str
    trained: bool
    untrained: Callable[[], nn.Module]
    class_names: tuple[str, ...] = ()

    def build(self, seed: int, part: str) -> nn.Module:
        """Return the network for a part such as `student`, on the CPU. Seed and part together decide its weights."""
        return _seeded(self.make, seed, part)

    def build_untrained(self, seed: int, part: str) -> nn.Module:
        """Return the architecture with fresh weights."""
        return _seeded(self.untrained, seed, part)


def part_of(role: str, position: int) -> str:
    """Return the name of a network by its role and position: `student`, `student-2`, `student-3` and so on.

    Args:
        role: Such as `student` or `teacher`.
        position: Counted from zero.
    """
    return role if position == 0 else f"{role}-{position + 1}"


def blueprint(
    source: Source | NetworkSpec,
    data: Data,
    *,
    trained: bool = False,
    teaches: bool = False,
    own_classes: bool = False,
    trust_code: bool = False,
) -> Blueprint:
    """Return the blueprint of a network.

    Args:
        source: A spec such as `resnet20`, `timm:resnet34`, `runs/teacher`; a factory without arguments; or a module,
            whose copies start from the weights it has.
        data: The data for which it is built: they give classes, channels and input statistics.
        trained: Whether a module or factory is already trained. A spec says that itself.
        teaches: Whether it is a teacher. A trained teacher may have other classes than the data, or none.
        own_classes: Whether pretrained weights keep their own classifier, even if the data have other classes.
        trust_code: Whether a saved network may run the code that its `network.json` names.

    Raises:
        UserError: If the spec names nothing, or its classes are not the data's.
    """
    if isinstance(source, str | NetworkSpec):
        spec = NetworkSpec.parse(source) if isinstance(source, str) else source
        spec = spec.ending_in(data.task.head)
        return _from_spec(spec, data, teaches=teaches, own_classes=own_classes, trust_code=trust_code)
    if isinstance(source, nn.Module):
        original = source
        return Blueprint(
            # A copy each time: two seeds of a comparison must not go on training one object.
            make=lambda: sized(copy_of(original), data.example(2)),
            name=type(source).__name__,
            trained=trained,
            # The initial seed is the one that `_seeded` has just set.
            untrained=lambda: fresh(sized(copy_of(original), data.example(2)), torch.initial_seed()),
        )
    factory = source
    return Blueprint(
        make=lambda: sized(factory(), data.example(2)),
        name=getattr(source, "__name__", "factory"),
        trained=trained,
        untrained=lambda: sized(factory(), data.example(2)),
    )


def check_takes(network: nn.Module, data: Data, *, who: str) -> Tensor:
    """Refuse a network that cannot take the data's inputs, and return its logits for two samples.

    Args:
        network: The network.
        data: The data.
        who: What the message calls it.

    Raises:
        UserError: If its forward pass fails, or gives no logits.
    """
    logits = classes_first(logits_of(check_runs(network, data, who=who)), data.example(2))
    check_graph(network, data, who=who)
    return logits


def check_runs(network: nn.Module, data: Data, *, who: str) -> Any:
    """Refuse a network that cannot take the data's inputs, and return its answer to two samples as it gives it.

    Args:
        network: The network.
        data: The data.
        who: What the message calls it.

    Raises:
        UserError: If its forward pass fails, or changes the inputs in place.
    """
    example = data.example(2)
    before = kept_inputs(example)
    try:
        with evaluating(network), torch.no_grad():
            raw = call(network, example)
    except UserError:
        raise
    except Exception as error:
        # A user's network may refuse its inputs with an error of any class.
        raise refused_inputs(network, example, error, who=who, data=data) from error
    check_untouched(before, example, who=who)
    tell_range(network, before, data=data.name)
    return raw


def check_classes(network: nn.Module, data: Data, *, who: str) -> Tensor:
    """Refuse a network that does not answer as the data's task asks for, and return its logits for two samples.

    Args:
        network: The network.
        data: The data.
        who: What the message calls it.

    Raises:
        UserError: If its answer has another shape or is of other classes, or it cannot take the data.
    """
    answer = check_takes(network, data, who=who)
    check_answer(network, answer.shape, data, who=who)
    return answer


def check_answer(network: nn.Module, shape: Sequence[int], data: Data, *, who: str) -> None:
    """Refuse a network whose answer to two samples has another shape than the task's, or is of other classes.

    Args:
        network: The network.
        shape: The shape of its answer.
        data: The data.
        who: What the message calls it.

    Raises:
        UserError: If it has another shape or other classes.
    """
    # The data may have only one, or a DataLoader batches of one.
    samples = len(Batch(inputs=data.example(2)))
    data.task.check_answer(tuple(shape), samples, data.num_classes, who=who, data=data.name)
    if isinstance(network, Normalized) and network.refusal is not None:
        raise UserError(network.refusal)


def answers_as_asked(network: nn.Module, data: Data) -> bool:
    """Return whether a network answers as the task of the data wants: a teacher may have other classes, or none."""
    try:
        check_classes(network, data, who="network")
    except UserError:
        return False
    return True


def _from_spec(spec: NetworkSpec, data: Data, *, teaches: bool, own_classes: bool, trust_code: bool) -> Blueprint:
    statistics = Normalization(mean=tuple(data.mean), std=tuple(data.std)) if data.mean else None
    kept = with_own_classes(spec) if own_classes else spec

    # If the task hides the labels, the data's classes say nothing about the network's.
    names = None if data.task.hides_targets else data.class_names

    def load(what: NetworkSpec) -> nn.Module:
        network = load_network(
            what,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            normalization=statistics,
            class_names=None if own_classes else names,
            trust_code=trust_code,
            any_classes=teaches,
        )
        return sized(network, data.example(2))

    return Blueprint(
        make=lambda: load(kept),
        name=str(kept),
        trained=kept.trained_for(data.num_classes),
        untrained=lambda: load(replace(architecture(spec, trust_code=trust_code), normalize=spec.normalize)),
        class_names=class_names_of(kept) if own_classes else (),
    )


def _seeded(make: Callable[[], nn.Module], seed: int, part: str) -> nn.Module:
    # Accelerators too, because a factory may draw its weights there.
    with starting_at(seed_of(seed, f"network/{part}"), accelerators=True):
        # A user's factory may build on another device than that of the examples; the driver moves both later.
        return make().cpu()


def several(networks: Source | Sequence[Source]) -> Sequence[Source]:
    """Return networks as a sequence, of one or more."""
    return networks if isinstance(networks, list | tuple) else [networks]  # type: ignore[list-item]
