"""Adapters take the type of numbers and the device of the network whose features they adapt."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


def adapting(adapter: N, network: nn.Module, *, wide: bool = False) -> N:
    """Return an adapter of a network's features, in their type of numbers and on their device.

    Args:
        adapter: The adapter, changed in place.
        network: The network.
        wide: Whether the adapter is given features that `tutelage.losses.wide` has widened.
    """
    # Quantised weights are integers, which an adapter cannot learn with.
    like = next((parameter for parameter in network.parameters() if parameter.is_floating_point()), None)
    return adapter if like is None else adapter.to(like.device, wide_type(like.dtype) if wide else like.dtype)


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type that `tutelage.losses.wide` gives numbers of a type: float32, or what is wider."""
    return torch.promote_types(dtype, torch.float32)


def in_one_type(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return what two networks give, both in the wider type of the two, and in float32 at least.

    Older versions of torch compute losses between two types of numbers, but not their gradients.

    Args:
        student: Numbers of any shape.
        teacher: The same.
    """
    dtype = wide_type(torch.promote_types(student.dtype, teacher.dtype))
    return student.to(dtype), teacher.to(dtype)


def number_type(network: nn.Module) -> torch.dtype:
    """Return the type of a network's numbers; torch's default type if it has none."""
    types = (parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())
    return next(types, torch.get_default_dtype())


def taken_by(layer: nn.Module, features: Tensor) -> Tensor:
    """Return widened features in the type of the adapter that takes them: two networks may differ in theirs.

    Args:
        layer: The adapter, or a layer of it.
        features: The features of either network.
    """
    # A student and a teacher of different types meet in one adapter.
    return features.to(number_type(layer))
