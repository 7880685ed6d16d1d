"""The order in which modules run, and which ran before a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from tutelage.features.trace import Trace

# Modules with weights that mix their inputs; all others count as normalisation or activation.
_WEIGHING = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding, nn.MultiheadAttention)


def entered_before(trace: Trace, places: Sequence[str]) -> tuple[nn.Module, ...]:
    """Return the modules that have started when the last of some places is read.

    Args:
        trace: The forward pass.
        places: Modules' names for their outputs, `name:in` for a first input, before which the module has not started.
    """
    before = trace.events[: max(map(trace.when, places))]
    return tuple(event.module for event in before if event.side == "in")


def unused(trace: Trace, place: str) -> tuple[str, ...]:
    """Return the outermost modules that are not called before a place is read.

    A module that has already finished is kept whole, because it may use its parts without calling them.

    Args:
        trace: The forward pass.
        place: A module's name, for its output, or `name:in`, for its first input.
    """
    before = trace.events[: trace.when(place) + 1]
    entered = frozenset(event.name for event in before)
    finished = frozenset(event.name for event in before if event.side == "out")
    return tuple(_unreached(trace.network, "", entered, finished))


def is_stem(trace: Trace, place: str) -> bool:
    """Return whether only normalisation or activation lies between the first convolution and a place.

    Args:
        trace: The forward pass.
        place: A module's name, for its output, or `name:in`, for its first input.
    """
    before = trace.events[: trace.when(place) + 1]
    weighing = [event for event in before if event.side == "out" and isinstance(event.module, _WEIGHING)]
    # A block with parts is a stage of its own, even if it holds the first convolution.
    return len(weighing) <= 1 and not any(trace.network.get_submodule(place.removesuffix(":in")).children())


def _unreached(module: nn.Module, path: str, entered: frozenset[str], finished: frozenset[str]) -> Iterator[str]:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if inner in finished:
            continue
        # A list of modules is never called itself, so it counts as entered if anything in it was.
        if any(other == inner or other.startswith(f"{inner}.") for other in entered):
            yield from _unreached(child, inner, entered, finished)
        else:
            yield inner
