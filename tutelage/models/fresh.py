"""The same network with new parameters, which each generation of a chain of students starts from."""

from __future__ import annotations

import inspect
import math

import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models.copies import copy_of
from tutelage.system.chance import starting_at

_SHOWN = 5


def fresh(module: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a network with new parameters, the same for the same seed on any device.

    Every submodule resets itself with its `reset_parameters`. Inner ones come first, so that the outer network's own
    initialisation wins. Parameters still left may be reset by a method `init_weights`, which timm's networks have. Any
    initialisation that happens only in a constructor is not repeated: if it matters, build the network from its spec.

    Args:
        module: The network, unchanged.
        seed: Seed of the initialisation.

    Raises:
        UserError: A submodule has parameters of its own and no way to reset them.
    """
    # Reset on the CPU, so that a seed means the same on every device.
    network = copy_of(module).cpu()
    # NaN marks parameters that nothing resets: every way to reset overwrites it, and none produces it by accident.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(math.nan)
    with starting_at(seed), torch.no_grad():
        _reset(network)
    forgotten = [name for name, part in network.named_modules() if _marked(part, recurse=False)]
    if forgotten:
        named = [f"{name or 'the network'} ({type(network.get_submodule(name)).__name__})" for name in forgotten]
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        raise UserError(
            f"These submodules have parameters of their own and no `reset_parameters`: {', '.join(named[:_SHOWN])}"
            f"{more}. Pass a factory instead of the network."
        )
    # Loaded into a second copy, which keeps the module's device.
    result = copy_of(module)
    result.load_state_dict(network.state_dict())
    return result


def _reset(network: nn.Module) -> None:
    inner_first = list(network.modules())[::-1]
    for part in inner_first:
        for name in ("reset_parameters", "_reset_parameters"):
            method = getattr(part, name, None)
            if callable(method):
                method()
                break
    for part in inner_first:
        method = getattr(part, "init_weights", None)
        if callable(method) and _marked(part, recurse=True) and _needs_nothing(method):
            method()


def _marked(part: nn.Module, *, recurse: bool) -> bool:
    return any(bool(parameter.isnan().any()) for parameter in part.parameters(recurse=recurse))


def _needs_nothing(method: object) -> bool:
    parameters = inspect.signature(method).parameters.values()  # type: ignore[arg-type]
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
