"""A network and the layers that are read from it: their outputs are returned together with the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.batch import Output
from tutelage.errors import UserError
from tutelage.features.anatomy import not_reached, place, reads
from tutelage.features.attention import ATTENTION, Handles, Listening
from tutelage.features.compiled import Compiled
from tutelage.features.ending import ABSENT, Ending
from tutelage.features.padding import valid_tokens
from tutelage.features.trace import Trace, check_readable, first_input, tensor_at
from tutelage.models.answers import answered, call, logits_of, uncompiled
from tutelage.models.modes import encoders_of, evaluating, keeping_padding
from tutelage.models.normalization import bare

AUXILIARY = "aux"
"""The name under which torchvision's segmentation networks return the answer of an auxiliary head."""


class FeatureExtractor(nn.Module):
    """A network and the layers that are read from it. Without layers it attaches no hooks.

    A layer is named by the dotted name of a submodule, whose output is read. `"name:in"` reads the submodule's first
    input instead, and `"embedding"` is the input of the classifier. A later module may change the output in place, such
    as a ReLU after a batch norm. If an example is given, that is noticed, and a copy is returned.
    `"name:attention"` reads the first attention that is computed within the submodule, before dropout: logarithms of
    probabilities, `[batch, head, query, key]`. They are computed beside what the network computes, which stays the
    same; such a network is not compiled.

    Args:
        model: Any module that maps inputs to logits, or to an object with `.logits`.
        layers: Names of the layers to read.
        example: Inputs for one forward pass (batch of two or more), or a `Trace` of it, from which `shapes` are known
            at construction, so that adapters can be sized in a method's `__init__`. Needed for `"embedding"`.
        logits: Whether the logits are read as well. If not, and an example is given, the network stops after the last
            layer that is read. Reading `Output.logits` is then an error.

    Attributes:
        shapes: The shape of each layer on the example, batch dimension included.

    Raises:
        UserError: If a layer does not exist, is not reached by a forward pass, or gives no tensor; or if neither logits
            nor layers are read.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str] = (), *, example: Any = None, logits: bool = True
    ) -> None:
        super().__init__()
        if not (logits or layers):
            raise UserError("Neither logits nor layers would be read from this network: name the layers to read.")
        # Hooks added to a compiled network may never run, so the plain one is hooked. The driver compiles later.
        self.model = uncompiled(model) if layers else model
        self.layers = tuple(layers)
        self.shapes: Mapping[str, torch.Size] = {}
        self._captured: dict[str, Tensor | None] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle | Handles] = []
        self._compiled: Compiled | None = None
        self._logits, self._ending = logits, Ending({})
        self._auxiliary: Tensor | None = None
        self._changed: frozenset[str] = frozenset()
        trace = None if example is None or not self.layers else Trace.of(self.model, example)
        self._places = {layer: place(self.model, layer, trace) for layer in self.layers}
        self._encoders = encoders_of(self.model) if self.layers else []
        self._listening = Listening() if any(there.endswith(ATTENTION) for there in self._places.values()) else None
        if trace is not None:
            self._learn(trace)

    def forward(self, inputs: Any) -> Output:
        """Run the network and return its logits with the features that were asked for."""
        # Hooks are attached by the first pass, and again after a release or in a copy.
        if len(self._handles) != len(self._places):
            self._attach()
        compiled = self._compiled
        logits, features = (compiled if compiled is not None and compiled.suits(inputs) else self._run)(inputs)
        self._auxiliary = features.pop(AUXILIARY, None)
        said = ABSENT if logits is None else logits
        return Output(logits=said, features=features, valid=valid_tokens(inputs))

    @property
    def gives_logits(self) -> bool:
        """Whether its outputs have logits now."""
        return self._logits

    @property
    def reads_attention(self) -> bool:
        """Whether it reads attention somewhere; such a network is not compiled."""
        return self._listening is not None

    def take_auxiliary(self) -> Tensor | None:
        """Return the answer of an auxiliary head to the last inputs, once; None if there is none, or in eval mode."""
        found, self._auxiliary = self._auxiliary, None
        return found

    def release(self) -> nn.Module:
        """Return the bare network, free of hooks; the next forward pass attaches them again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        return self.model

    def compile(self, *args: Any, whole: Sequence[int] = (), **kwargs: Any) -> None:
        """Compile the network for the mode that it is in now (a student trains, a teacher evaluates).

        Args:
            *args: Positional arguments of `torch.compile`.
            whole: Sizes of whole batches, the usual one first; inputs of other sizes run uncompiled.
            **kwargs: Keyword arguments of `torch.compile`.
        """
        if len(self._handles) != len(self._places):
            self._attach()
        if self._listening is not None:
            # Compiled code has no attention to listen to.
            return
        kept = self._compiled
        # Compiling takes long, so code that still fits is kept.
        if args or kwargs or kept is None or not kept.serves(whole):
            self._compiled = Compiled(self._run, self, *args, whole=whole, **kwargs)

    def uncompile(self) -> None:
        """Let the network run as it is again."""
        self._compiled = None

    def _run(self, inputs: Any) -> tuple[Tensor | None, dict[str, Tensor]]:
        # The names are the sign for `_capture` that this extractor runs.
        self._captured.update(dict.fromkeys(self._places))
        raw = self._answer(inputs)
        features = {layer: feature for layer, feature in self._captured.items() if feature is not None}
        # Nothing is held after a pass: features keep the graph of the whole network alive.
        self._captured.clear()
        missing = [layer for layer in self._places if layer not in features]
        if missing:
            raise not_reached(missing, self.model)
        if self.training and isinstance(raw, Mapping) and isinstance(raw.get(AUXILIARY), Tensor):
            features[AUXILIARY] = answered(raw[AUXILIARY], inputs)
        return answered(raw, inputs) if self.gives_logits else None, features

    def _answer(self, inputs: Any) -> Any:
        # Compiled code needs no early ending: the compiler drops the layers that nothing depends on.
        if torch.compiler.is_compiling():
            return call(self.model, inputs)
        with keeping_padding(self._encoders), self._listening or nullcontext():
            if self.gives_logits:
                return call(self.model, inputs)
            return self._ending.run(lambda: call(self.model, inputs))

    def _learn(self, trace: Trace) -> None:
        """Learn the shapes of the layers, how often they are reached, and which are changed in place afterwards."""
        found = reads(self.model, self.layers, trace)
        if self.gives_logits:
            # For its error: a network without logits is refused now, and not in the first batch.
            logits_of(trace.raw)
        self.shapes = {layer: tensor_at(layer, event.value).shape for layer, event in found.items()}
        # These are copied when they are read, or a loss would see what a later layer made of them.
        self._changed = frozenset(layer for layer, event in found.items() if not event.is_intact)
        self._ending = Ending({layer: trace.calls(self._places[layer]) for layer in found})

    def _attach(self) -> None:
        self.release()
        for layer in self._places:
            hear = partial(_capture, self._captured, self._ending, layer, layer in self._changed)
            self._handles.append(self._listen(layer, hear))

    def _listen(self, layer: str, hear: Callable[[Any], None]) -> torch.utils.hooks.RemovableHandle | Handles:
        """Call a function with the tensor of a layer as soon as it is computed."""
        there = self._places[layer]
        module = bare(self.model).get_submodule(there.removesuffix(":in").removesuffix(ATTENTION))
        check_readable(module)
        if self._listening is not None and there.endswith(ATTENTION):
            return self._listening.attach(module, hear)
        if there.endswith(":in"):
            return module.register_forward_pre_hook(partial(_hear_input, hear), with_kwargs=True)
        return module.register_forward_hook(partial(_hear_output, hear))

    def __getstate__(self) -> dict[str, Any]:
        # Hooks and compiled code belong to this object: a copy starts without them and attaches its own.
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()
        listening = None if self._listening is None else Listening()
        return {**self.__dict__, "_captured": {}, "_compiled": None, "_auxiliary": None, "_listening": listening}


def _hear_input(hear: Callable[[Any], None], _: nn.Module, args: Any, kwargs: Any) -> None:
    hear(first_input(args, kwargs))


def _hear_output(hear: Callable[[Any], None], _: nn.Module, args: Any, output: Any) -> None:
    hear(output)


def _capture(store: dict[str, Tensor | None], ending: Ending, layer: str, copied: bool, value: Any) -> None:
    # Store only while this extractor runs: others may run the same network, and nobody would free the tensor.
    if layer in store:
        tensor = tensor_at(layer, value)
        store[layer] = tensor.clone() if copied else tensor
        if not torch.compiler.is_compiling():
            ending.note(layer, tensor)


def value_at(trace: Trace, layer: str) -> Tensor:
    """Return the tensor of a layer on the example, as it was when the layer gave it.

    Args:
        trace: The forward pass. If the tensor was changed in place afterwards, the network runs once more.
        layer: A submodule's dotted name for its output, `name:in` for its first input, or `embedding`.
    """
    event = reads(trace.model, [layer], trace)[layer]
    if event.is_intact:
        return tensor_at(layer, event.value)
    reader = FeatureExtractor(trace.model, [layer], example=trace)
    try:
        with evaluating(reader), torch.no_grad():
            found: Tensor = reader(trace.example).features[layer]
            return found
    finally:
        # The reader was for this one value; its hooks must not stay in the user's network.
        reader.release()


def is_trained(network: FeatureExtractor) -> bool:
    """Return whether a network has anything to learn."""
    return any(parameter.requires_grad for parameter in network.parameters())
