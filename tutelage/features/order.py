"""In which order a network's modules run, and what of it has run by the time a layer is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from tutelage.models.answers import call, uncompiled
from tutelage.models.modes import evaluating
from tutelage.models.normalization import bare

_WEIGHING = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding, nn.MultiheadAttention)


@dataclass(frozen=True)
class Order:
    """The order of a forward pass. Layers are named as in `FeatureExtractor`; of several calls the last one counts.

    Attributes:
        network: The bare network.
        events: Which module was entered or left, one after the other.
    """

    network: nn.Module
    events: tuple[tuple[Literal["in", "out"], str], ...]

    @classmethod
    def of(cls, model: nn.Module, example: Any) -> Order:
        """Return the order in which a network runs.

        Args:
            model: The network, compiled by its user or not, normalised or not.
            example: Inputs for one forward pass.
        """
        model = uncompiled(model)
        events: list[tuple[Literal["in", "out"], str]] = []
        handles = []
        for name, module in bare(model).named_modules():
            handles.append(module.register_forward_pre_hook(partial(_note_entry, events, name)))
            handles.append(module.register_forward_hook(partial(_note_exit, events, name)))
        try:
            with evaluating(model), torch.no_grad():
                call(model, example)
        finally:
            for handle in handles:
                handle.remove()
        return cls(bare(model), tuple(events))

    def when(self, layer: str) -> int:
        """Return the position at which a layer is read."""
        event = _event(layer)
        return max(position for position, one in enumerate(self.events) if one == event)

    def calls(self, layer: str) -> int:
        """Return how often it could be read."""
        return self.events.count(_event(layer))

    def unused(self, layer: str) -> tuple[str, ...]:
        """Return the outermost modules that are not called before a layer is read.

        A module that was left by then is kept whole, because it may use its parts without calling them.
        """
        before = self.events[: self.when(layer) + 1]
        finished = {name for kind, name in before if kind == "out"}
        return tuple(_unreached(self.network, "", frozenset(name for _, name in before), frozenset(finished)))

    def is_stem(self, layer: str) -> bool:
        """Return whether a layer only normalises or activates what the network's first convolution gives."""
        before = self.events[: self.when(layer) + 1]
        weighing = [name for kind, name in before if kind == "out" and self._weighs(name)]
        return len(weighing) <= 1 and not any(self.network.get_submodule(layer.removesuffix(":in")).children())

    def _weighs(self, name: str) -> bool:
        return isinstance(self.network.get_submodule(name), _WEIGHING)


def _note_entry(events: list[Any], name: str, *_: Any) -> None:
    events.append(("in", name))


def _note_exit(events: list[Any], name: str, *_: Any) -> None:
    events.append(("out", name))


def _event(layer: str) -> tuple[Literal["in", "out"], str]:
    return ("in", layer.removesuffix(":in")) if layer.endswith(":in") else ("out", layer)


def _unreached(module: nn.Module, path: str, entered: frozenset[str], finished: frozenset[str]) -> Iterator[str]:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if inner in finished:
            continue
        if any(other == inner or other.startswith(f"{inner}.") for other in entered):
            yield from _unreached(child, inner, entered, finished)
        else:
            yield inner
