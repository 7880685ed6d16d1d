"""A trace: one forward pass over an example that notes everything that enters and leaves a module.

A network's stages, classifier, shapes and order of modules are all read from one `Trace`, so that they cost one forward
pass together. A trace describes the network as it was. It refuses to answer for another network, or for one that was
changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.errors import NoLayersError, UserError, unknown
from tutelage.features.attention import ATTENTION
from tutelage.models.answers import call, logits_of, uncompiled
from tutelage.models.modes import encoders_of, evaluating, keeping_padding
from tutelage.models.normalization import bare

Side = Literal["in", "out"]


# Without ==, which for tensors would give no single truth value.
@dataclass(frozen=True, eq=False)
class Event:
    """A module that was entered or left.

    Attributes:
        name: Its name in the bare network; empty for the network itself.
        side: `in` or `out`.
        module: The module.
        value: What it was given first, or what it gave.
        version: How often the tensor in `value` had been changed in place when the event happened.
    """

    name: str
    side: Side
    module: nn.Module
    value: Any
    version: int

    @property
    def is_intact(self) -> bool:
        """Whether the tensor is still what it was: nothing changed it in place afterwards."""
        return _version(self.value) == self.version


@dataclass(frozen=True, eq=False)
class Trace:
    """A forward pass of a network over an example, without gradients, and in eval mode unless another is asked for.

    A place is where a tensor can be read: a module's name for its output, `"name:in"` for its first input. If a module
    is called several times, its last call counts. `"name:attention"` is computed within the module, so where the order
    of places counts, it counts as the module's output.

    Attributes:
        model: The network, uncompiled.
        network: The same without normalisation and wrappers, in which modules have their names.
        example: The inputs.
        events: The modules that were entered and left, in this order.
        raw: What the network returned.
        parts: The modules and parameters that it had, which `check` compares.
    """

    model: nn.Module
    network: nn.Module
    example: Any
    events: tuple[Event, ...]
    raw: Any
    parts: tuple[tuple[str, nn.Module | Tensor, int], ...]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        example: Any,
        *,
        mode: Callable[[nn.Module], AbstractContextManager[None]] = evaluating,
    ) -> Trace:
        """Return the trace of a forward pass.

        Args:
            model: The network, compiled by its user or not, normalised or not. Its state is left as it was.
            example: Inputs for one forward pass (batch of two or more); or a trace of this network, which is returned.
            mode: A context in which the network runs; eval mode by default.

        Raises:
            UserError: If there is no example, or the network is in TorchScript.
            ValueError: If the trace is not of this network as it is now.
        """
        if example is None:
            raise UserError("Finding the parts of a network needs an example: pass example= (a batch of inputs).")
        if isinstance(example, Trace):
            example.check(model)
            return example
        model = uncompiled(model)
        network = bare(model)
        check_readable(network)
        events: list[Event] = []
        handles = []
        for name, module in network.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                # A part in TorchScript has no readable inside, so it gets no hooks.
                continue
            enter, leave = partial(_note_entry, events, name), partial(_note_exit, events, name)
            # With keywords, because inputs that have names come in no other way.
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
        try:
            with mode(model), torch.no_grad(), keeping_padding(encoders_of(model)):
                raw = call(model, example)
        finally:
            # The network is the user's, so no hook stays in it, whatever happened.
            for handle in handles:
                handle.remove()
        return cls(model, network, example, tuple(events), raw, _parts(network))

    @property
    def logits(self) -> Tensor:
        """The network's logits.

        Raises:
            UserError: If there are none in what it returned.
        """
        return logits_of(self.raw)

    @property
    def samples(self) -> int:
        """How many samples the example has."""
        return len(next(iter(self.example.values()))) if isinstance(self.example, Mapping) else len(self.example)

    def check(self, model: nn.Module) -> None:
        """Refuse to answer for another network, or for this one after a change.

        Raises:
            ValueError: If the network is another, or its modules or weights were exchanged or changed since.
        """
        if uncompiled(model) is not self.model or not _same(_parts(bare(self.model)), self.parts):
            raise ValueError(
                f"This trace is not of this {type(bare(uncompiled(model))).__name__} as it is now: trace it again."
            )

    def last(self, place: str) -> Event | None:
        """Return the last event at a place; None if the forward pass never reached it."""
        name, side = _split(place)
        return next((event for event in reversed(self.events) if event.side == side and event.name == name), None)

    def when(self, place: str) -> int:
        """Return the position of the event at which a place is read.

        Raises:
            ValueError: If the forward pass never reached it.
        """
        name, side = _split(place)
        return max(at for at, event in enumerate(self.events) if event.side == side and event.name == name)

    def calls(self, place: str) -> int:
        """Return how often the forward pass reached a place."""
        return sum((event.name, event.side) == _split(place) for event in self.events)


def check_readable(module: nn.Module) -> None:
    """Refuse to read inside of TorchScript, which does not show what its layers compute.

    Args:
        module: A network, or the layer that is to be read.

    Raises:
        NoLayersError: If it is in TorchScript.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise NoLayersError(
            "The layers of a network in TorchScript cannot be read. Pass the network that it was made from, or choose "
            "a method that reads only logits, such as kd."
        )


def inputs_of(example: Any) -> Any:
    """Return the inputs of an example, which may be a trace of them."""
    return example.example if isinstance(example, Trace) else example


def checked_place(network: nn.Module, place: str) -> str:
    """Return a place as it is, if the network has it.

    Args:
        network: The bare network.
        place: A module's name, for its output, `name:in`, for its first input, or `name:attention`.

    Raises:
        UserError: If there is no such module, with the nearest names, or the place is none of these.
    """
    path, colon, suffix = place.partition(":")
    if colon and suffix not in ("in", "attention"):
        raise UserError(
            f"{place!r} is not a place to read: write {path!r} for the output, '{path}:in' for the input, "
            f"'{path}:attention' for the attention within it."
        )
    known = [name for name, _ in network.named_modules() if name]
    if path not in known:
        raise unknown("layer", path, known)
    return place


def tensor_at(layer: str, value: Any) -> Tensor:
    """Return what is read at a layer: a tensor, or the first of several.

    Raises:
        UserError: If it is none.
    """
    first = _first(value)
    if not isinstance(first, Tensor):
        raise UserError(f"The layer {layer!r} gives a {type(value).__name__}, not a tensor: choose another layer.")
    return first


def first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return what a module was given first; None if nothing."""
    return next(iter((*args, *kwargs.values())), None)


def _note_entry(events: list[Event], name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
    value = first_input(args, kwargs)
    events.append(Event(name, "in", module, value, _version(value)))


def _note_exit(events: list[Event], name: str, module: nn.Module, args: Any, output: Any) -> None:
    events.append(Event(name, "out", module, output, _version(output)))


def _split(place: str) -> tuple[str, Side]:
    if place.endswith(":in"):
        return place.removesuffix(":in"), "in"
    return place.removesuffix(ATTENTION), "out"


def _first(value: Any) -> Any:
    several = value.values() if isinstance(value, Mapping) else value
    return next(iter(several), None) if isinstance(value, Mapping | tuple | list) else value


def _version(value: Any) -> int:
    tensor = _first(value)
    # Tensors made in inference mode do not count their changes.
    return tensor._version if isinstance(tensor, Tensor) and not tensor.is_inference() else 0


def _parts(network: nn.Module) -> tuple[tuple[str, nn.Module | Tensor, int], ...]:
    """Return what a trace depends on: all modules, and all parameters with their versions.

    Buffers are left out, because a forward pass may change them. The objects themselves are kept, not only their names:
    a new object at the address of an old one cannot be mistaken for it.
    """
    # Under all of its names: if a shared module is exchanged under one of them, the network has changed.
    modules = ((name, module, 0) for name, module in network.named_modules(remove_duplicate=False))
    weights = ((name, weight, _version(weight)) for name, weight in network.named_parameters(remove_duplicate=False))
    return (*modules, *weights)


def _same(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    return len(now) == len(before) and all(
        (one[0], one[2]) == (other[0], other[2]) and one[1] is other[1] for one, other in zip(now, before, strict=True)
    )
