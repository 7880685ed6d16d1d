"""The parts of a network, found from one forward pass: its stages, its classifier, and the map that it classifies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.batch import Output
from tutelage.errors import UserError
from tutelage.features.attention import ATTENTION, heard, no_attention
from tutelage.features.maps import MapLayout
from tutelage.features.padding import ATTENTION_MASK, image_size, mean_over_places, padded, valid_tokens
from tutelage.features.trace import Event, Trace, checked_place, tensor_at
from tutelage.models.answers import uncompiled
from tutelage.models.normalization import bare

EMBEDDING = "embedding"
# Into how many stages a network of equal blocks is divided.
_DEPTHS = 4


@dataclass(frozen=True)
class Tap:
    """A layer that is read, and how its output becomes a map.

    Attributes:
        layer: Its name: a submodule's, `name:in` for its first input, or `embedding`.
        layout: How its output is laid out.
        channels: Channels of the map.
        size: Height and width of the map.
    """

    layer: str
    layout: MapLayout
    channels: int
    size: tuple[int, int]

    @classmethod
    def of(cls, layer: str, feature: Tensor, example: Any) -> Tap:
        """Return the tap of a layer, from its output on an example.

        Raises:
            UserError: If the output cannot be a map.
        """
        try:
            layout = MapLayout.of(feature.shape, image_size(example))
            _check_padding(layout, feature, example)
        except UserError as error:
            raise UserError(f"The layer {layer!r} cannot be compared with another. {error}") from error
        _, channels, *size = layout.to_map(feature).shape
        return cls(layer, layout, channels, (size[0], size[1]))

    def map(self, output: Output) -> Tensor:
        """Return the layer's output as a map `[batch, channel, height, width]`."""
        return self.layout.to_map(output.features[self.layer])

    def mask(self, output: Output) -> Tensor | None:
        """Return which places of the map are not padding, `[batch, 1, height, width]`; None if no place is padding.

        Raises:
            UserError: If padding cannot be told from places in this layer.
        """
        return self.layout.mask(output.features[self.layer], output.valid)

    def __str__(self) -> str:
        return f"{self.layer} ({self.channels}x{self.size[0]}x{self.size[1]})"


def classifier(model: nn.Module, example: Any) -> str:
    """Return the name of the layer that makes the logits: the last linear or convolution with logits as its output.

    Args:
        model: The network.
        example: Inputs for one forward pass, or a `Trace` of it.

    Raises:
        UserError: If no example is given, or no such layer exists.
    """
    trace = Trace.of(model, example)
    logits = trace.logits
    for event in reversed(trace.events):
        # A tensor that was changed in place afterwards no longer holds the layer's output.
        if event.side == "out" and isinstance(event.module, nn.Linear | nn.Conv2d) and event.is_intact:
            output = event.value
            # Compared by value, as names say little; a convolution gives `[batch, class, 1, 1]`, which only has another
            # shape.
            if output.numel() == logits.numel() and torch.equal(output.view_as(logits), logits):
                return event.name
    raise UserError(
        f"{type(trace.network).__name__} has no linear or 1x1-convolution layer whose output is its logits, "
        "so its classifier cannot be found. Name the layer to read instead of 'embedding', or choose a method that "
        "needs no classifier."
    )


def classifier_copy(model: nn.Module, example: Any) -> nn.Linear:
    """Return a copy of the classifier as a linear layer, frozen. It maps the flat embedding to the logits.

    Args:
        model: The network.
        example: Inputs for one forward pass, or a `Trace` of it.

    Raises:
        UserError: If the classifier cannot be found, or is a convolution over more than one place.
    """
    name = classifier(model, example)
    layer: Any = bare(uncompiled(model)).get_submodule(name)
    weight = layer.weight.detach().flatten(1)
    # Flattened, a kernel of more than one place has more columns than the layer has input channels.
    if weight.shape[1] != layer.weight.shape[1] or getattr(layer, "groups", 1) > 1:
        raise UserError(
            f"The classifier {name} is a convolution with weights {list(layer.weight.shape)}: only a 1x1 convolution "
            "without groups can be copied."
        )
    kind = {"device": weight.device, "dtype": weight.dtype}
    twin = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None, **kind)
    twin.load_state_dict({"weight": weight} | ({} if layer.bias is None else {"bias": layer.bias.detach()}))
    return twin.requires_grad_(False)


def classified(model: nn.Module, example: Any, *, once: bool = False) -> Tap:
    """Return the layer whose map, averaged over its places, is the classifier's input.

    For most convolutional networks that is the last map, after the last normalisation and activation. Some networks
    have no such map: their classifier reads a class token, has a second layer, or normalises the mean. Then the result
    is `"embedding"`, the classifier's input itself, a map of one place.

    Args:
        model: The network.
        example: Inputs for one forward pass, or a `Trace` of it.
        once: Whether to skip layers that a forward pass calls several times, such as one ReLU shared by many blocks:
            nothing can be inserted after only one of their calls.

    Raises:
        UserError: If the classifier cannot be found.
    """
    trace = Trace.of(model, example)
    read = reads(model, [EMBEDDING], trace)[EMBEDDING]
    embedding = tensor_at(EMBEDDING, read.value)
    outputs = [event for event in trace.events if event.side == "out"]
    counts = Counter(event.name for event in outputs)
    # An embedding that was changed in place can be compared with nothing.
    for event in reversed(outputs if read.is_intact else []):
        tap = _tap(event, trace) if event.name and event.is_intact and not (once and counts[event.name] > 1) else None
        if tap is not None and _equal(_mean(tap, _output(event), trace.example), embedding):
            return tap
    return Tap.of(EMBEDDING, embedding, trace.example)


def stages(model: nn.Module, example: Any) -> Sequence[Tap]:
    """Return the ends of a network's stages, from the first to the last.

    A network may name its stages in an attribute `stage_names` (a stem is not a stage). Otherwise they are the last
    layers at each resolution. A network with one resolution, such as a vision or text transformer, is divided by depth
    into four.

    Args:
        model: The network.
        example: Inputs for one forward pass, or a `Trace` of it.

    Raises:
        UserError: If nothing in it is a map or a sequence of tokens.
    """
    trace = Trace.of(model, example)
    found = {event.name: event for event in trace.events if event.side == "out" and event.name}
    taps = {name: tap for name, event in found.items() if (tap := _tap(event, trace)) is not None}
    # A declared stage without a tap is skipped: on small images the last ones may be maps of one place.
    declared = [name for name in getattr(trace.network, "stage_names", ()) if name in taps and name != "stem"]
    if not taps:
        raise UserError(f"{type(trace.network).__name__} has no layer whose output is a map or tokens.")
    by_resolution = _last_of_each_resolution(taps)
    # With one resolution there is one end, so depth has to tell stages apart.
    by_depth = _depths(taps, found) if len(by_resolution) == 1 else []
    return [taps[name] for name in declared or by_depth or by_resolution]


def place(model: nn.Module, layer: str, example: Any = None) -> str:
    """Return the place of a layer in a `Trace`: its own name, or that of the classifier's input for `"embedding"`.

    Args:
        model: The network.
        layer: A submodule's dotted name for its output, `name:in` for its first input, `name:attention` for the
            attention within it, or `embedding`.
        example: Inputs for one forward pass, or a `Trace` of it: needed to find the classifier.

    Raises:
        UserError: If there is no such layer, or the classifier cannot be found.
    """
    if layer == EMBEDDING:
        # The input of the classifier, whichever module made it: a flattening may have no module of its own.
        return f"{classifier(model, example)}:in"
    return checked_place(bare(uncompiled(model)), layer)


def reads(model: nn.Module, layers: Sequence[str], example: Any) -> dict[str, Event]:
    """Return the events at which some layers are read.

    Args:
        model: The network.
        layers: Their names: a submodule's, `name:in` for its first input, `name:attention` or `embedding`.
        example: Inputs for one forward pass, or a `Trace` of it.

    Raises:
        UserError: If a layer does not exist, or is not reached, or computes no attention that can be read.
    """
    trace = Trace.of(model, example)
    places = {layer: place(model, layer, trace) for layer in layers}
    # By another forward pass, where attention is read at all.
    attentions = _attentions(trace, [there for there in places.values() if there.endswith(ATTENTION)])
    found = {layer: attentions.get(there) or trace.last(there) for layer, there in places.items()}
    reached = {layer: event for layer, event in found.items() if event is not None}
    if len(reached) < len(found):
        raise not_reached([layer for layer in found if layer not in reached], model)
    return reached


def _attentions(trace: Trace, places: Sequence[str]) -> dict[str, Event]:
    """Return the events at which the attention of some modules is read; all of them, or an error."""
    names = [there.removesuffix(ATTENTION) for there in places]
    found = heard(trace.model, names, trace.example) if names else {}
    for name in names:
        if name not in found:
            raise no_attention(trace.network, within=name)
    modules = {name: trace.network.get_submodule(name) for name in names}
    return {name + ATTENTION: Event(name, "out", modules[name], found[name], found[name]._version) for name in names}


def not_reached(layers: Sequence[str], model: nn.Module) -> UserError:
    """Return the error for layers that a forward pass did not reach."""
    return UserError(
        f"The network ran without reaching the layers {list(layers)} of {type(bare(uncompiled(model))).__name__}, "
        "so there is nothing to distill from them. Choose layers that take part in every forward pass."
    )


def _output(event: Event) -> Any:
    """Return a module's output, or the first of several. A mapping stays whole: its map could be any entry."""
    several = isinstance(event.value, tuple | list)
    return next(iter(event.value), None) if several else event.value


def _mean(tap: Tap, output: Tensor, example: Any) -> Tensor:
    """Return the mean over the places of a map on the example."""
    return mean_over_places(tap.layout.to_map(output), tap.layout.mask(output, valid_tokens(example)))


def _check_padding(layout: MapLayout, feature: Tensor, example: Any) -> None:
    """Refuse an output of padded inputs if padding cannot be told from places in it.

    Raises:
        UserError: If it cannot.
    """
    layout.mask(feature, valid_tokens(example))
    mask = example.get(ATTENTION_MASK) if isinstance(example, Mapping) else None
    is_of_length = layout.kind == "tokens" and mask is not None and mask.shape[1:2] == feature.shape[1:2]
    if is_of_length and valid_tokens(example) is None:
        raise padded("with images beside the text, tokens may belong to either")


def _equal(mean: Tensor, embedding: Tensor) -> bool:
    fits = mean.numel() == embedding.numel()
    # Not exactly: the network may add the places in another order.
    return fits and torch.allclose(mean, embedding.reshape(mean.shape), rtol=1e-4, atol=1e-5)


def _tap(event: Event, trace: Trace) -> Tap | None:
    """Return the tap of a module whose output has places; None for any other module."""
    output = _output(event)
    has_places = isinstance(output, Tensor) and output.ndim in (3, 4) and output.is_floating_point()
    # Attention in windows has several rows a sample. What an identity gives is named after the module before it.
    if not has_places or len(output) != trace.samples or isinstance(event.module, nn.Identity):
        return None
    if output.ndim == 3 and output.shape[2] == 1:
        # Pooling over tokens leaves such a vector: its axis 1 holds channels, not places.
        return None
    try:
        tap = Tap.of(event.name, output, trace.example)
    except UserError:
        # Such outputs of padded inputs have no mask: attention between tokens, or a shortened sequence.
        return None
    return tap if math.prod(tap.size) > 1 else None


def _last_of_each_resolution(taps: Mapping[str, Tap]) -> Sequence[str]:
    """Return the layer at which each resolution is left.

    A layer inside a block that ends at another resolution belongs to that block. A layer outside of such blocks is
    preferred to it. Resolutions only fall: what looks like a finer map after a coarser one is a matrix of attention or
    transposed tokens.
    """
    sizes = {name: tap.size for name, tap in taps.items()}
    last: dict[tuple[int, int], str] = {}
    for name, size in sizes.items():
        if size not in last or _blocks_around(name, sizes) <= _blocks_around(last[size], sizes):
            last[size] = name
    areas = [math.prod(size) for size in last]
    finest = accumulate(areas, min)
    return [name for name, area, least in zip(last.values(), areas, finest) if area == least]


def _blocks_around(name: str, sizes: Mapping[str, tuple[int, int]]) -> int:
    """Return how many blocks around a layer end at another resolution. A trunk of many resolutions is not a block."""
    parts = name.split(".")
    around = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    others = [outer for outer in around if sizes.get(outer, sizes[name]) != sizes[name]]
    return sum(len({size for inner, size in sizes.items() if inner.startswith(f"{outer}.")}) <= 2 for outer in others)


def _depths(taps: Mapping[str, Tap], found: Mapping[str, Event]) -> Sequence[str]:
    """Return blocks at equal depths, taken from the longest row of blocks of one class in one container."""
    rows: dict[tuple[str, type[nn.Module]], list[str]] = {}
    for name in taps:
        row = (name.rpartition(".")[0], type(found[name].module))
        # A row of single layers, such as norms, is no row of blocks.
        if any(found[name].module.children()):
            rows.setdefault(row, []).append(name)
    blocks = max(rows.values(), key=len, default=[])
    count = min(_DEPTHS, len(blocks))
    return [blocks[len(blocks) * (number + 1) // count - 1] for number in range(count)]
