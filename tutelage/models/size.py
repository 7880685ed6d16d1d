"""The size of a network: its parameters and multiply-adds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.models.answers import call
from tutelage.models.modes import evaluating


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """Size of a network.

    Attributes:
        parameters: Number of parameters, trainable or not.
        multiply_adds: Multiplications, each with its addition, for one example; convolutions and matrix products only.
    """

    parameters: int
    multiply_adds: int

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.2f} M parameters, {self.multiply_adds / 1e6:.1f} M multiply-adds"


def describe(network: nn.Module, *, input_shape: tuple[int, ...] = (3, 32, 32)) -> NetworkSize:
    """Measure a network on one image.

    Args:
        network: The network; its state is left as it was.
        input_shape: Shape of one image, `(channels, height, width)`.
    """
    like = _like(network)
    return measure(network, torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype))


def measure(network: nn.Module, example: Any) -> NetworkSize:
    """Measure a network on the first sample of an example.

    Args:
        network: The network; its state is left as it was.
        example: Inputs of one sample or more: a tensor or a mapping.
    """
    asked = Batch(inputs=_first(example)).to(_like(network).device).inputs
    flops = forward_flops(network, lambda: call(network, asked))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    # The counter counts a multiplication and its addition as two operations.
    return NetworkSize(parameters=parameters, multiply_adds=flops // 2)


def forward_flops(network: nn.Module, run: Callable[[], object]) -> int:
    """Return the floating-point operations of a forward pass in eval mode, without gradients.

    Args:
        network: The network; its state is left as it was.
        run: The forward pass.
    """
    from torch.utils.flop_counter import FlopCounterMode

    # Hides the counter's warnings about operations for which it has no formula.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    with evaluating(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def size_for(network: nn.Module, data: Data) -> NetworkSize:
    """Return the size of a network on one sample of the data."""
    shape = (data.in_channels, *data.image_size)
    # Zeros stand for inputs that are no images.
    return describe(network, input_shape=shape) if all(shape) else measure(network, data.example(1))


def _first(example: Any) -> Any:
    if isinstance(example, Mapping):
        return {name: _first(value) for name, value in example.items()}
    return example[:1] if isinstance(example, Tensor) else example


def _like(network: nn.Module) -> Tensor:
    """Return a tensor with the device and dtype of a network."""
    return next(network.parameters(), torch.empty(0))
