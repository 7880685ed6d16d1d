"""Compiled forward passes: which calls are worth them, and what may be taken for constant in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# A batch of a size that makes up less of the calls runs as it is: compiling takes longer than it would ever save.
_RARE = 1 / 4


class Compiled:
    """The forward pass of a network, compiled for the mode that the network is in.

    Where nothing of the network can be trained any more, its parameters are constants of the compiled code: batch norm
    is folded into the convolutions, and weights are stored once in the layout and precision they are multiplied in.
    The network's own tensors stay as they are; should they change all the same, the code is not used again.

    Args:
        run: The forward pass: a method of `network`.
        network: What it runs.
        *args: As in `torch.compile`.
        **kwargs: As in `torch.compile`. Constants are for the default backend.
    """

    def __init__(self, run: Callable[[Any], Any], network: nn.Module, *args: Any, **kwargs: Any) -> None:
        self.network, self.training = network, network.training
        self.freezes = not args and not kwargs and can_freeze(network)
        self._run = torch.compile(_apart(run) if self.freezes else run, *args, **kwargs)
        self._sizes: Counter[int] = Counter()
        self._constants: tuple[tuple[int, int], ...] | None = None

    def suits(self, inputs: Any) -> bool:
        """Return whether to answer these inputs by the compiled code, rather than by the network as it is."""
        if self.network.training != self.training or (self.freezes and torch.is_grad_enabled()):
            return False
        size = batch_size(inputs)
        self._sizes[size] += 1
        if self._sizes[size] < _RARE * self._sizes.total():
            return False
        return not self.freezes or self._is_unchanged()

    def __call__(self, inputs: Any) -> Any:
        """Return what the forward pass returns."""
        with _freezing() if self.freezes else nullcontext():
            return self._run(inputs)

    def _is_unchanged(self) -> bool:
        found = tuple(_identity(tensor) for tensor in (*self.network.parameters(), *self.network.buffers()))
        if self._constants is None:
            # Not before the first call: networks are moved after they are built.
            self._constants = found
        return found == self._constants


def can_freeze(network: nn.Module) -> bool:
    """Return whether the network's parameters may become constants, and something is gained by it.

    It is known to pay on a CPU, for convolutions with batch norms; networks of other kinds it has made slower, such as
    those that attend to shifted windows (pytorch/pytorch issue 190757).
    """
    parameters = list(network.parameters())
    is_still = not network.training and not any(parameter.requires_grad for parameter in parameters)
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    # Without running statistics there is nothing constant to fold.
    return is_still and on_cpu and any(norm.running_mean is not None for norm in norms)


def batch_size(inputs: Any) -> int:
    """Return the number of samples; 0 where it is not to be seen."""
    parts = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    return next((len(part) for part in parts if isinstance(part, Tensor) and part.ndim), 0)


def _freezing() -> AbstractContextManager[Any]:
    # Not `torch.compile(options=)`, which takes effect after the graph was captured: by then parameters are inputs, and
    # no guard tells apart two networks of one architecture.
    import torch._inductor.config as inductor

    context: AbstractContextManager[Any] = inductor.patch(freezing=True)
    return context


def _apart(run: Any) -> Any:
    """Return the method with code of its own.

    Compiled code is kept, up to eight pieces, with the code of the function, and constants serve one network only: of a
    ninth teacher nothing would be compiled.
    """
    function = run.__func__
    twin = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return MethodType(twin, run.__self__)


def _identity(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
