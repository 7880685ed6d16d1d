"""Classes by name: puts a saved network's answers in the order of the data's classes, or refuses the network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.batch import moved
from tutelage.data.class_names import are_names
from tutelage.errors import UserError, notice
from tutelage.models.answers import answer
from tutelage.models.heads import last_layer, width
from tutelage.models.modes import evaluating

_SHOWN = 10
_SIDES = (32, 64, 224)


def put_in_order(
    network: nn.Module,
    saved: Sequence[str] | None,
    wanted: Sequence[str] | None,
    *,
    source: str,
    shapes: Sequence[tuple[int, ...]],
) -> None:
    """Let a network answer in the order of the data's classes, by exchanging the rows of its classifier.

    Names that only count positions, such as `label 3`, say nothing beside others: such classes are matched by
    position. Names that differ only in upper case, spaces, underscores or hyphens count as the same.

    Args:
        network: The network, changed in place.
        saved: Its classes in the order of its logits; None if that is not known.
        wanted: The data's classes; None if they have none.
        source: The network's name in messages.
        shapes: Possible shapes of a sample. The first that the network accepts is used to test the new order.

    Raises:
        UserError: If the classes are others, or the network has no classifier whose rows could be exchanged.
    """
    if saved is None or wanted is None or [*saved] == [*wanted]:
        return
    order = _order(saved, wanted)
    # Without names on both sides, classes can only be matched by position.
    if order is None and not (are_names(saved) and are_names(wanted)):
        return
    both = lists(saved, wanted)
    if order is None:
        raise UserError(
            f"The network {source!r} has other classes than the data. {both} Use a network for the data's classes. If "
            "they are the same classes with other names, in the same order, delete class_names from its network.json."
        )
    if order == list(range(len(order))):
        return
    if not _exchange(network, torch.tensor(order), shapes):
        raise UserError(
            f"The network {source!r} has the data's classes in another order, and no classifier whose rows could be "
            f"reordered. {both} Name the class folders so that their alphabetical order is the network's."
        )
    notice(f"The network {source!r} has its classes in another order than the data: it is read by name. {both}")


def lists(saved: Sequence[str] | None, wanted: Sequence[str] | None) -> str:
    """Return a sentence with the classes of a network and of the data; empty if either has no names.

    Args:
        saved: The network's.
        wanted: The data's.
    """
    if saved is None or wanted is None or not (are_names(saved) or are_names(wanted)):
        return ""
    return f"The network has {_listed(saved, wanted)}; the data have {_listed(wanted, saved)}."


def _order(saved: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return the network's position of each of the data's classes; None if the classes differ."""
    # First as they are, because two names may differ in nothing but case.
    for plain in (str, _plain):
        place = {plain(name): position for position, name in enumerate(saved)}
        names = [plain(name) for name in wanted]
        if len(place) == len(saved) == len(set(names)) and set(names) == set(place):
            return [place[name] for name in names]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


@torch.no_grad()
def _exchange(network: nn.Module, order: Tensor, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Put the rows of the last layer in another order. If the answer does not follow, undo it and return False."""
    found = last_layer(network)
    if found is None or width(found[1]) != len(order):
        return False
    before, example = _asked(network, shapes)
    if before is None:
        return False
    own = [tensor for tensor in (found[1].weight, found[1].bias) if tensor is not None]
    kept = [tensor.clone() for tensor in own]
    for tensor, values in zip(own, kept):
        tensor.copy_(values[order])
    with evaluating(network):
        after = answer(network, example)
    expected, size = before[:, order], before.abs().max()
    follows = torch.allclose(after, expected, rtol=1e-4, atol=1e-5 * float(size))
    # The test proves nothing if the logits are equal: they would follow any order.
    if follows and not torch.allclose(before, expected, rtol=1e-4, atol=1e-5 * float(size)):
        return True
    for tensor, values in zip(own, kept):
        tensor.copy_(values)
    return False


def _asked(network: nn.Module, shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor | None, Any]:
    """Return a network's answer to the first example inputs that it accepts, and those inputs."""
    # A generator of its own, so that loading a network draws nothing from the user's.
    chance = torch.Generator().manual_seed(0)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    # Networks of `transformers` bring inputs of their own, because they read no images.
    own = getattr(network, "dummy_inputs", None)
    examples = [own] if isinstance(own, Mapping) else [torch.rand(4, *shape, generator=chance) for shape in shapes]
    example: Any = None
    for example in (moved(one, device) for one in examples):
        try:
            with evaluating(network):
                return answer(network, example), example
        except Exception:  # A user's network may refuse a size with any error; then the next one is tried.
            continue
    return None, example


def usual_shapes(in_channels: int, size: Sequence[int] | None) -> list[tuple[int, ...]]:
    """Return shapes of a sample that a network of images is likely to take, the known size first.

    Args:
        in_channels: Channels of its images.
        size: Height and width of the images that it was trained on, if known.
    """
    known = [] if size is None else [(in_channels, *size)]
    return [*known, *((in_channels, side, side) for side in _SIDES)]


def _listed(names: Sequence[str], others: Sequence[str]) -> str:
    if len(names) <= _SHOWN:
        return ", ".join(names)
    # Of many classes, show those that differ between the two lists.
    differing = [name for name in names if name not in set(others)] or [
        f"{name} at {position}" for position, name in enumerate(names) if others[position : position + 1] != [name]
    ]
    shown = ", ".join(differing[:_SHOWN])
    return f"{len(names)} classes, among them {shown}"
