"""Networks that a method puts together from others, such as a network with a second head.

A saved network is built again from its spec, which names the factory that put it together. The factory stands in the
method's own file and is marked there, so that a new method needs no entry anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from torch import nn

from tutelage.errors import UserError
from tutelage.models.user_code import import_factory

Composing = TypeVar("Composing", bound=Callable[..., nn.Module])

# Runs that were saved before factories were marked name these two by a word.
NAMED: Mapping[str, str] = MappingProxyType(
    {"exit": "tutelage.methods.parts.exits:shallow", "simkd": "tutelage.methods.simkd:deployed"}
)
# Methods may import this folder and not the reverse, so the folder of methods is known here as text alone.
_METHODS = "tutelage.methods."
_MARK = "builds_a_composed_network"


def composed(factory: Composing) -> Composing:
    """Mark a factory of `tutelage.methods` as one that builds saved networks of its method again.

    Args:
        factory: `(student, ..., *, num_classes, in_channels) -> nn.Module`; `student` is the spec of the inner network.
    """
    setattr(factory, _MARK, True)
    return factory


def place_of(factory: Callable[..., nn.Module]) -> str:
    """Return the text that names a marked factory in a spec, such as `tutelage.methods.token:two_headed`."""
    return f"{factory.__module__}:{factory.__qualname__}"


def is_composed(target: str) -> bool:
    """Return whether a spec's target names a network that a method put together."""
    return target in NAMED or (target.startswith(_METHODS) and ":" in target)


def composed_factory(target: str) -> Callable[..., nn.Module]:
    """Return the marked factory that a spec's target names.

    Args:
        target: A name that `is_composed` accepts.

    Raises:
        UserError: There is no such factory, or it is not marked. A spec may come from a stranger's file, so no other
            function of the package can be called through it.
    """
    factory = import_factory(NAMED.get(target, target))
    if not getattr(factory, _MARK, False):
        raise UserError(f"{target} builds no network that a method has put together, so no saved network can name it.")
    return factory
