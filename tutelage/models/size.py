"""How large a network is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tutelage.data.dataset import Data
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
    """Measure a network on one example.

    Args:
        network: The network; its state is left as it was.
        input_shape: Shape of one example, `(channels, height, width)`.
    """
    parameters = list(network.parameters())
    like = parameters[0] if parameters else torch.empty(0)
    example = torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype)
    _, flops = forward_flops(network, example)
    return NetworkSize(parameters=sum(parameter.numel() for parameter in parameters), multiply_adds=flops // 2)


def forward_flops(network: nn.Module, inputs: Any) -> tuple[Any, int]:
    """Return what a network answers in eval mode, and the floating-point operations that it took.

    Args:
        network: The network; its state is left as it was.
        inputs: What it takes.
    """
    # It warns of every operation that it has no formula for.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    with evaluating(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        answer = network(inputs)
    return answer, counter.get_total_flops()


def size_for(network: nn.Module, data: Data) -> NetworkSize:
    """Return how large a network is on images of the data's size."""
    return describe(network, input_shape=(data.in_channels, *data.image_size))
