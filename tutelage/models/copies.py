"""Copies of a user's network with everything it holds, and layers that learn their sizes from a first input."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.overrides import TorchFunctionMode

from tutelage.errors import UserError
from tutelage.models.answers import call
from tutelage.models.modes import evaluating

N = TypeVar("N", bound=nn.Module)


def copy_of(network: N) -> N:
    """Return a copy that shares nothing with a network: parameters, buffers and everything else it holds.

    Tensors that it computed and kept, such as activations or the weight of an old `weight_norm`, are copied without
    their gradient history.

    Args:
        network: The network, unchanged.

    Raises:
        UserError: It holds something that cannot be copied.
    """
    try:
        # Without no_grad, TorchScript's copied parameters would have a history: computed from the originals.
        with _Detaching(), torch.no_grad():
            twin = copy.deepcopy(network)
    except (TypeError, RuntimeError, NotImplementedError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{type(network).__name__} has to be copied, but cannot be: {error}. Pass a factory that builds it "
            "(student=lambda: Net()), or remove from it what cannot be copied."
        ) from error
    # Copying under no_grad may change which parameters are trainable.
    for old, new in zip(network.parameters(), twin.parameters()):
        if new.requires_grad is not old.requires_grad:
            new.requires_grad_(old.requires_grad)
    return twin


def freeze(network: N) -> N:
    """Freeze a network's parameters, also in TorchScript, and return the network.

    Raises:
        UserError: It has lazy layers, whose parameters do not exist yet.
    """
    if is_lazy(network):
        raise UserError(
            f"{type(network).__name__} has lazy layers that have never seen an input: run it once on a batch of the "
            "data before you pass it."
        )
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def sized(network: nn.Module, example: Any) -> nn.Module:
    """Return a network whose lazy layers, if it has any, have the sizes that an example gives them.

    Args:
        network: The network, changed in place.
        example: Inputs for one forward pass.
    """
    if is_lazy(network):
        with evaluating(network), torch.no_grad():
            call(network, example)
    return network


def is_lazy(network: nn.Module) -> bool:
    """Return whether a network has layers that do not know their sizes yet."""
    tensors = (*network.parameters(), *network.buffers())
    return any(isinstance(tensor, UninitializedBuffer | UninitializedParameter) for tensor in tensors)


class _Detaching(TorchFunctionMode):
    """Copies computed tensors without their history; `copy.deepcopy` alone would refuse to copy them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))
