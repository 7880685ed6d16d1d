"""Whether this machine computes convolutions correctly in half precision.

A vendor's kernel can be wrong for a single shape: on some processors the bf16 convolution of 16 channels, 4 x 4 places
and a stride of 4 gives noise. A network trained there would have results that no other machine repeats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Rounding in bf16 leaves a few thousandths; a wrong kernel leaves about one.
TOLERANCE = 0.1
# Which kernel runs depends on the sizes of batch and map. From these sizes on, the wrong ones are used.
_SAMPLES, _KERNELS = 8, 4


def unsound_convolutions(network: nn.Module, dtype: torch.dtype = torch.bfloat16) -> list[str]:
    """Return the names of the convolutions that are wrong in half precision, forwards or backwards.

    Each shape is compared once with float32, on random numbers.

    Args:
        network: The module that holds the convolutions. Neither it nor any global random generator changes.
        dtype: The half precision.
    """
    verdicts: dict[tuple[object, ...], bool] = {}
    wrong = []
    for name, layer in network.named_modules():
        # Only shapes that can be rebuilt from the numbers below are checked.
        if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
            continue
        steps = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        shape = (layer.in_channels, layer.out_channels, layer.groups, *steps)
        if shape not in verdicts:
            verdicts[shape] = _is_sound(layer, dtype)
        if not verdicts[shape]:
            wrong.append(name)
    return wrong


def _is_sound(layer: nn.Conv2d, dtype: torch.dtype) -> bool:
    """Return whether answer and gradients of a convolution's shape agree with float32."""
    generator = torch.Generator().manual_seed(0)
    reach = [step * (side - 1) + 1 for step, side in zip(layer.dilation, layer.kernel_size, strict=True)]
    inputs = torch.randn(_SAMPLES, layer.in_channels, *(_KERNELS * side for side in reach), generator=generator)
    weight = torch.randn(layer.weight.shape, generator=generator)
    wide, half = (_answer_and_gradients(layer, inputs.to(kind), weight.to(kind)) for kind in (torch.float32, dtype))
    pairs = zip(wide, half, strict=True)
    return all(bool((one - other).norm() <= TOLERANCE * one.norm()) for one, other in pairs)


def _answer_and_gradients(layer: nn.Conv2d, inputs: Tensor, weight: Tensor) -> Sequence[Tensor]:
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        inputs, weight = inputs.requires_grad_(), weight.requires_grad_()
        answer = nn.functional.conv2d(
            inputs,
            weight,
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        # A plain sum would send back a constant gradient, which can hide faults; squares send back the answer itself.
        found = torch.autograd.grad(answer.square().sum(), (inputs, weight))
    return [tensor.detach().float() for tensor in (answer, *found)]
