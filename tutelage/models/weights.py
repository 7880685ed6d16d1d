"""Loads a file of weights into a network: all of them, or none if they do not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from tutelage.errors import UserError
from tutelage.models.heads import last_layer
from tutelage.models.normalization import bare
from tutelage.models.reading import read_weights

_SHOWN = 5
# Counters that profilers and batch norms keep in layers, and losses that training scripts save with the network.
_COUNTERS = ("total_ops", "total_params", "num_batches_tracked")
_LOSSES = ("criterion.", "loss.", "loss_fn.", "loss_function.")


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a file of weights into a network, all of them or none.

    All names in the file may have a prefix such as `module.` or `model.`, or those of one network among several.

    Args:
        network: The network, wrapped by `Normalized` or not; changed in place.
        path: A file of safetensors, or one of `torch.save`.

    Raises:
        UserError: The file cannot be read, holds other weights than the network has, or holds several networks that
            could be meant.
    """
    network, path = bare(network), Path(path)
    expected = network.state_dict()
    raw = read_weights(path)
    # Unchanged names come first: a network's own part may be called `module`.
    for state in (raw, _plain(raw, expected)):
        fitting = [prefix for prefix in _prefixes(state, expected) if _fits(_under(prefix, state), expected)]
        if len(fitting) > 1:
            raise _several(path, fitting)
        if fitting:
            found = _under(fitting[0], state)
            # Counters that the file lacks keep the network's values.
            network.load_state_dict(expected | {key: value for key, value in found.items() if key in expected})
            return
    raise _does_not_fit(path, network, raw)


def _plain(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights without the name parts that wrappers inside the network added."""
    # torch.compile and data-parallel training add these.
    for wrapper in ("_orig_mod", "module"):
        if not any(wrapper in key.split(".") for key in expected):
            found = {".".join(part for part in key.split(".") if part != wrapper): found[key] for key in found}
    return found


def _prefixes(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the possible prefixes of the network's names in the file: one for each network that it may hold."""
    # Every file of the network's weights holds this name, so what stands before it there is a prefix.
    sought = next((key for key in expected if not _is_counter(key)), None)
    if sought is None:
        return [""]
    return [key[: -len(sought)] for key in found if key == sought or key.endswith(f".{sought}")]


def _under(prefix: str, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}


def _fits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return not any(_differences(found, expected))


def _differences(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the names that are missing, are unexpected, have another shape, or another kind of number."""
    missing = [key for key in expected if key not in found and not _is_counter(key)]
    unexpected = [key for key in found if key not in expected and not _is_counter(key) and not key.startswith(_LOSSES)]
    both = [key for key in expected if key in found]
    sized = [key for key in both if not isinstance(expected[key], UninitializedBuffer | UninitializedParameter)]
    different = [key for key in sized if expected[key].shape != found[key].shape]
    # Quantised weights, of eight bits for instance, mean nothing without their scales.
    numbers = [key for key in both if expected[key].is_floating_point() != found[key].is_floating_point()]
    return missing, unexpected, different, [key for key in numbers if not _is_counter(key)]


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] in _COUNTERS


def _common_prefix(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return the prefix that all names in the file share and the network lacks; messages leave it out."""
    prefix = ""
    while found:
        first = next(iter(found)).removeprefix(prefix).partition(".")[0]
        longer = f"{prefix}{first}."
        is_common = all(key.startswith(longer) for key in found)
        if not is_common or all(key.startswith(f"{first}.") for key in expected):
            break
        prefix = longer
    return prefix


def _several(path: Path, prefixes: list[str]) -> UserError:
    names = " and ".join(repr(prefix) for prefix in prefixes)
    return UserError(
        f"{path} holds several networks that fit, under the prefixes {names}: it is not clear which one you mean. Save "
        f"one of them: `torch.save({{key.removeprefix({prefixes[0]!r}): value for key, value in state.items() if "
        f"key.startswith({prefixes[0]!r})}}, FILE)`."
    )


def _does_not_fit(path: Path, network: nn.Module, raw: Mapping[str, Tensor]) -> UserError:
    expected = network.state_dict()
    found = _under(_common_prefix(raw, expected), raw)
    missing, unexpected, different, numbers = _differences(found, expected)
    shapes = [f"{key} (file {list(found[key].shape)}, network {list(expected[key].shape)})" for key in different]
    types = [f"{key} ({found[key].dtype})" for key in numbers]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "of another type": types}
    lines = [f"{kind}: {_some(keys)}" for kind, keys in kinds.items() if keys]
    return UserError(
        f"The weights in {path} do not fit the network ({type(network).__name__}). {'; '.join(lines)}. Likely "
        f"{_backbone(raw, network) or _cause(found, network)}."
    )


def _cause(found: Mapping[str, Tensor], network: nn.Module) -> str:
    expected = network.state_dict()
    missing, unexpected, different, numbers = _differences(found, expected)
    parts = sorted({key.partition(".")[0] for key in found})
    if missing and len(parts) > 1 and not {key.partition(".")[0] for key in expected} & set(parts):
        names = ", ".join(f"{part}." for part in parts[:_SHOWN])
        return f"they come from a file of several networks, under the prefixes {names}, none of which fits"
    if not (missing or unexpected or different) and numbers:
        return "they are quantised: load them with the library that made them, and save them as floating-point numbers"
    if different and not missing and not unexpected:
        return _cause_of_shapes(found, expected, different, head=last_layer(network)) or _ANOTHER
    return _ANOTHER


_ANOTHER = "they belong to another architecture, or to other options of this one"


def _cause_of_shapes(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    different: list[str],
    *,
    head: tuple[str, nn.Module] | None,
) -> str | None:
    weight = f"{head[0]}.weight" if head else ""
    if head is not None and weight in different and all(key.startswith(f"{head[0]}.") for key in different):
        return f"the checkpoint has {found[weight].shape[0]} classes, the data {expected[weight].shape[0]}"
    if all(_is_of_positions(key) for key in different):
        return _of_another_size(found, expected, different[0])
    # A single convolution differs: the first, because no other depends on the channels of the images.
    if len(different) == 1 and found[different[0]].ndim == expected[different[0]].ndim == 4:
        theirs, ours = found[different[0]].shape[1], expected[different[0]].shape[1]
        return f"the checkpoint takes {theirs} input channels, the data have {ours}"
    return None


def _backbone(found: Mapping[str, Tensor], network: nn.Module) -> str | None:
    """Return that a file holds all of a network but its classifier, and what to do; None if it does not."""
    expected, head = network.state_dict(), last_layer(network)
    if head is None:
        return None
    for prefix in _prefixes(found, expected):
        missing, _, different, numbers = _differences(_under(prefix, found), expected)
        if missing and not different and not numbers and all(key.startswith(f"{head[0]}.") for key in missing):
            return _without_classifier(prefix, missing)
    return None


def _without_classifier(prefix: str, missing: list[str]) -> str:
    under = f"under the prefix {prefix!r} " if prefix else ""
    strip = f"{{key.removeprefix({prefix!r}): value for key, value in state.items() if key.startswith({prefix!r})}}"
    return (
        f"they are a backbone: {under}they are the network without its classifier ({_some(missing)}). For a teacher "
        "whose layers alone are read, build it without one too: add the option num_classes=0 (timm: and torchvision:). "
        "To train it further, pass a module of your own, with a fresh classifier: "
        f"network.load_state_dict({strip if prefix else 'state'}, strict=False)"
    )


def _is_of_positions(key: str) -> bool:
    """Return whether a weight is a learned one for each place of a grid, which depends on the size of the images."""
    return "pos_embed" in key or "position_embedding" in key or "positional_embedding" in key


def _of_another_size(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], key: str) -> str:
    sides = _sides(found[key].shape, expected[key].shape)
    patches = [value.shape[-1] for name, value in expected.items() if value.ndim == 4 and value.shape[-1] > 1]
    if sides is None or not patches:
        theirs, ours = "another size", "this one's"
    else:
        theirs, ours = (f"{side * patches[0]}x{side * patches[0]} pixels" for side in sides)
    size = sides[0] * patches[0] if sides is not None and patches else "SIDE"
    return (
        f"the checkpoint is for images of {theirs} and the network for {ours}: {key} has a vector for each place. "
        f"Build the network for the checkpoint's size (timm: img_size={size}; torchvision: image_size={size}) and "
        f"resize the images to it (--image-size {size}), or bring the weights to the new size first, as timm's "
        "load_checkpoint(network, FILE) does"
    )


def _sides(theirs: Sequence[int], ours: Sequence[int]) -> tuple[int, int] | None:
    """Return the sides of two square grids of places, beside the same few tokens of their own; None if not square."""
    counts = [shape[-2] for shape in (theirs, ours)]
    for tokens in range(6):
        first, second = (math.isqrt(max(0, count - tokens)) for count in counts)
        if first and second and [first**2 + tokens, second**2 + tokens] == counts:
            return first, second
    return None


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
