"""What a network is made of, found from one forward pass: its stages, its classifier, the map that it classifies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.batch import Output
from tutelage.errors import UserError
from tutelage.features.maps import MapLayout
from tutelage.models.answers import answer, uncompiled
from tutelage.models.modes import evaluating
from tutelage.models.normalization import bare

EMBEDDING = "embedding"
# How many stages a network of equal blocks is divided in.
_DEPTHS = 4


@dataclass(frozen=True)
class Tap:
    """A layer that is read, and how its output becomes a map.

    Attributes:
        layer: Its name, as in `FeatureExtractor`.
        layout: What its output looks like.
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
        except UserError as error:
            raise UserError(f"The layer {layer!r} cannot be compared with another. {error}") from error
        _, channels, *size = layout.to_map(feature).shape
        return cls(layer, layout, channels, (size[0], size[1]))

    def map(self, output: Output) -> Tensor:
        """Return what was read there as a map `[batch, channel, height, width]`."""
        return self.layout.to_map(output.features[self.layer])

    def __str__(self) -> str:
        return f"{self.layer} ({self.channels}x{self.size[0]}x{self.size[1]})"


def image_size(example: Any) -> tuple[int, int] | None:
    """Return height and width of the images of an example; None if it holds none."""
    inputs = example.values() if isinstance(example, Mapping) else [example]
    images = (one for one in inputs if isinstance(one, Tensor) and one.ndim == 4)
    return next(((one.shape[2], one.shape[3]) for one in images), None)


def classifier(model: nn.Module, example: Any) -> str:
    """Return the name of the layer that makes the logits: the last linear or convolution with logits as its output.

    Args:
        model: The network.
        example: Inputs for one forward pass.

    Raises:
        UserError: If no example is given, or no such layer exists.
    """
    calls, logits = _probe(model, example)
    for call in reversed(calls):
        is_linear = isinstance(call.module, nn.Linear | nn.Conv2d)
        if is_linear and call.output.numel() == logits.numel() and torch.equal(call.output.view_as(logits), logits):
            return call.name
    raise UserError(
        f"{type(bare(uncompiled(model))).__name__} has no linear or 1x1-convolution layer whose output is its logits, "
        "so its classifier cannot be found. Name the layer to read instead of 'embedding', or choose a method that "
        "needs no classifier."
    )


def classifier_copy(model: nn.Module, example: Any) -> nn.Linear:
    """Return a copy of the classifier as a linear layer, frozen. It maps the flat embedding to the logits.

    Args:
        model: The network.
        example: Inputs for one forward pass.

    Raises:
        UserError: If the classifier cannot be found, or is a convolution over more than one place.
    """
    name = classifier(model, example)
    layer: Any = bare(uncompiled(model)).get_submodule(name)
    weight = layer.weight.detach().flatten(1)
    if weight.shape[1] != layer.weight.shape[1] or getattr(layer, "groups", 1) > 1:
        raise UserError(f"The classifier {name} is a convolution of {list(layer.weight.shape)}: one place is needed.")
    twin = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)
    twin.load_state_dict({"weight": weight} | ({} if layer.bias is None else {"bias": layer.bias.detach()}))
    return twin.to(weight.device, weight.dtype).requires_grad_(False)


def classified(model: nn.Module, example: Any, *, once: bool = False) -> Tap:
    """Return where the map is read whose mean over its places is what the classifier reads.

    For most convolutional networks that is the last map, after the last normalisation and activation. Where there is
    none, as behind a class token, a second layer of the classifier or a normalisation of the mean, it is `"embedding"`,
    the classifier's input itself: a map of one place.

    Args:
        model: The network.
        example: Inputs for one forward pass.
        once: Whether to pass over layers that a forward pass calls again and again, such as one ReLU for all places:
            nothing can be put behind one of their calls alone.

    Raises:
        UserError: If the classifier cannot be found.
    """
    name = classifier(model, example)
    calls, _ = _probe(model, example)
    embedding = next(call.input for call in reversed(calls) if call.name == name)
    counts = Counter(call.name for call in calls)
    for call in reversed(calls):
        tap = _tap(call, example) if call.name and not (once and counts[call.name] > 1) else None
        if tap is not None and _equal(tap.layout.to_map(call.output).mean((2, 3)), embedding):
            return tap
    return Tap.of(EMBEDDING, embedding, example)


def stages(model: nn.Module, example: Any) -> Sequence[Tap]:
    """Return the ends of a network's stages, from the first to the last.

    A network may name them itself in an attribute `stage_names` (a stem is no stage). Otherwise they are the layers at
    which it leaves each resolution. A network of equal blocks and one resolution, such as a vision or text transformer,
    is divided by depth into four.

    Args:
        model: The network.
        example: Inputs for one forward pass.

    Raises:
        UserError: If nothing in it is a map or a sequence of tokens.
    """
    calls, _ = _probe(model, example)
    found = {call.name: call for call in calls if call.name}
    taps = {name: tap for name, call in found.items() if (tap := _tap(call, example)) is not None}
    # On small images the last of them may be maps of one place.
    declared = [name for name in getattr(bare(uncompiled(model)), "stage_names", ()) if name in taps and name != "stem"]
    if not taps:
        raise UserError(f"{type(bare(uncompiled(model))).__name__} has no layer whose output is a map or tokens.")
    by_resolution = _last_of_each_resolution(taps)
    by_depth = _depths(taps, found) if len(by_resolution) == 1 else []
    return [taps[name] for name in declared or by_depth or by_resolution]


@dataclass(frozen=True)
class _Call:
    """One call of a submodule."""

    name: str
    module: nn.Module
    input: Any
    output: Any


def _probe(model: nn.Module, example: Any) -> tuple[Sequence[_Call], Tensor]:
    """Return the calls of all submodules in the order in which they ended, and the logits."""
    if example is None:
        raise UserError("Finding the parts of a network takes an example: pass example= (a batch of inputs).")
    calls: list[_Call] = []
    model = uncompiled(model)

    def remember(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        first = next(iter((*args, *kwargs.values())), None)
        calls.append(_Call(name, module, first, output if isinstance(output, Tensor) else _first(output)))

    handles = [
        module.register_forward_hook(partial(remember, name), with_kwargs=True)
        for name, module in bare(model).named_modules()
    ]
    try:
        with evaluating(model), torch.no_grad():
            logits = answer(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return calls, logits


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) and output else None


def _equal(mean: Tensor, embedding: Tensor) -> bool:
    fits = mean.numel() == embedding.numel()
    return fits and torch.allclose(mean, embedding.reshape(mean.shape), rtol=1e-4, atol=1e-5)


def _tap(call: _Call, example: Any) -> Tap | None:
    """Return the tap of a call whose output has places, and None for any other."""
    output = call.output
    samples = len(next(iter(example.values()))) if isinstance(example, Mapping) else len(example)
    has_places = isinstance(output, Tensor) and output.ndim in (3, 4) and output.is_floating_point()
    if not has_places or len(output) != samples or isinstance(call.module, nn.Identity):
        return None
    if output.ndim == 3 and output.shape[2] == 1:
        # A vector that a pooling over tokens left.
        return None
    tap = Tap.of(call.name, output, example)
    return tap if math.prod(tap.size) > 1 else None


def _last_of_each_resolution(taps: Mapping[str, Tap]) -> Sequence[str]:
    """Return the layer at which each resolution is left.

    A layer inside a block that itself leaves at another resolution belongs to that block, and is not taken where there
    is one further out. Resolutions only fall: what looks like a finer map behind a coarser one is a matrix of attention
    or transposed tokens.
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
    """Return how many blocks around a layer leave at another resolution. A trunk of many resolutions is no block."""
    parts = name.split(".")
    around = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    others = [outer for outer in around if sizes.get(outer, sizes[name]) != sizes[name]]
    return sum(len({size for inner, size in sizes.items() if inner.startswith(f"{outer}.")}) <= 2 for outer in others)


def _depths(taps: Mapping[str, Tap], found: Mapping[str, _Call]) -> Sequence[str]:
    """Return blocks at equal depths: of the longest row of blocks of one kind in one container."""
    rows: dict[tuple[str, type[nn.Module]], list[str]] = {}
    for name in taps:
        row = (name.rpartition(".")[0], type(found[name].module))
        if any(found[name].module.children()):
            rows.setdefault(row, []).append(name)
    blocks = max(rows.values(), key=len, default=[])
    count = min(_DEPTHS, len(blocks))
    return [blocks[len(blocks) * (number + 1) // count - 1] for number in range(count)]
