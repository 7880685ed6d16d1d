"""Batch norms: what they remember of the data they were trained on, and what they see of other data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from tutelage.errors import UserError
from tutelage.features.trace import Trace, first_input
from tutelage.losses import wide
from tutelage.models.answers import uncompiled
from tutelage.models.normalization import bare

WHY_NONE = (
    "It has no batch norm with running statistics, which are what is compared. Networks with layer norm or group norm "
    "have none, and a network whose batch norms were folded into its convolutions for deployment has lost them."
)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of each channel.

    Attributes:
        mean: `[channel]`.
        variance: `[channel]`, without bias.
        count: Over how many values they were taken; 0 if that is not known, as for what a network remembers.
        floor: A small number that is added to variances before they are compared: the layer's own epsilon, by which
            the network itself tells a dead channel from noise.
    """

    mean: Tensor
    variance: Tensor
    count: int = 0
    floor: float = 0.0

    @property
    def biased_variance(self) -> Tensor:
        """The variance as the mean of the squares, `[channel]`; for an unknown count the same as `variance`."""
        return self.variance * ((self.count - 1) / self.count) if self.count else self.variance


def batch_norms(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a network that remember mean and variance of their inputs, by name.

    Every kind of batch norm counts, also frozen ones such as torchvision's.

    Args:
        network: The network, wrapped or not.
    """
    layers = bare(uncompiled(network)).named_modules()
    return {name: layer for name, layer in layers if _remembers(layer) and not isinstance(layer, _InstanceNorm)}


def remembered(layer: nn.Module) -> Moments:
    """Return the moments of the inputs that a batch norm was trained on, in float32 or wider."""
    epsilon = float(getattr(layer, "eps", 0.0))
    return Moments(wide(_tensor(layer, "running_mean")), wide(_tensor(layer, "running_var")), floor=epsilon)


def reached(network: nn.Module, example: Any) -> dict[str, nn.Module]:
    """Return the batch norms that a forward pass reaches, in the order of the pass.

    Args:
        network: The network.
        example: Inputs for one forward pass.

    Raises:
        UserError: If there is none.
    """
    known, trace = batch_norms(network), Trace.of(network, example)
    order = dict.fromkeys(event.name for event in trace.events if event.name in known)
    if not order:
        raise UserError(WHY_NONE)
    return {name: known[name] for name in order}


@contextmanager
def hearing(layers: Mapping[str, nn.Module]) -> Iterator[list[tuple[str, Moments]]]:
    """Collect the moments of what enters some batch norms within the block, with their gradients.

    A layer that is called several times is heard each time.

    Args:
        layers: The batch norms by name.
    """
    heard: list[tuple[str, Moments]] = []
    hooks = [
        layer.register_forward_pre_hook(partial(_hear, heard, name), with_kwargs=True) for name, layer in layers.items()
    ]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def moments_of(values: Tensor, *, floor: float = 0.0) -> Moments:
    """Return mean and unbiased variance of each channel over the batch and its places.

    Args:
        values: `[batch, channel, ...]`.
        floor: The small number that belongs to the layer.
    """
    # Never in half precision: the variance would lose its digits where the mean is far from zero.
    rows = wide(values).transpose(0, 1).flatten(1)
    # A single value has no unbiased variance; it counts as zero.
    variance = rows.var(1, correction=1) if rows.shape[1] > 1 else torch.zeros_like(rows[:, 0])
    return Moments(rows.mean(1), variance, rows.shape[1], floor)


def _hear(heard: list[tuple[str, Moments]], name: str, layer: nn.Module, args: Any, kwargs: Any) -> None:
    values = first_input(args, kwargs)
    heard.append((name, moments_of(values, floor=float(getattr(layer, "eps", 0.0)))))


def _remembers(layer: nn.Module) -> bool:
    found = [getattr(layer, name, None) for name in ("running_mean", "running_var")]
    return all(isinstance(one, Tensor) and one.ndim == 1 for one in found)


def _tensor(layer: nn.Module, name: str) -> Tensor:
    found = getattr(layer, name)
    assert isinstance(found, Tensor)
    return found
