"""Compiled forward passes: which calls use them, and which tensors they treat as constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# A batch of a size that makes up less of the calls runs as it is: compiling takes longer than it would ever save.
_RARE = 1 / 4
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


class Compiled:
    """The forward pass of a network, compiled for the mode that the network is in.

    If no parameter of the network is trainable, its tensors are constants of the compiled code: batch norm is folded
    into the convolutions, and weights are stored once in the layout and precision they are multiplied in. The network's
    own tensors stay as they are. If one of them changes later, the constants are given up. A write through `.data`
    changes no version counter, so only `serves` notices it.

    Args:
        run: The forward pass: a method of `network`.
        network: What it runs.
        *args: Positional arguments of `torch.compile`.
        whole: The usual numbers of samples, the size of a whole batch first. Multiples of the first also count. Inputs
            of other sizes run uncompiled. If empty, a size counts as rare by how often it was seen so far.
        **kwargs: Keyword arguments of `torch.compile`. With any of them, tensors are not constants.

    Attributes:
        freezes: Whether the network's tensors are constants.
    """

    def __init__(
        self, run: Callable[[Any], Any], network: nn.Module, *args: Any, whole: Sequence[int] = (), **kwargs: Any
    ) -> None:
        self.network, self.training, self.whole = network, network.training, tuple(whole)
        self.freezes = not args and not kwargs and can_freeze(network)
        self._plain = run
        # One whole graph: if there were several, all but the first would be kept with code that other networks share.
        self._run = torch.compile(_apart(run), fullgraph=True) if self.freezes else _compiled(run, *args, **kwargs)
        self._sizes: Counter[int] = Counter()
        self._constants: list[tuple[Tensor, int]] | None = None
        self._digest = ""

    def suits(self, inputs: Any) -> bool:
        """Return whether the compiled code should answer these inputs, instead of the plain network."""
        if self.network.training != self.training or (self.freezes and torch.is_grad_enabled()):
            return False
        if not self._is_whole(batch_size(inputs)):
            return False
        if self.freezes and not self._is_unchanged():
            self._thaw()
        return True

    def serves(self, whole: Sequence[int]) -> bool:
        """Return whether the constants still equal the network's tensors, so that compiling again would gain nothing.

        Args:
            whole: The usual numbers of samples, as given to the class. Other numbers than those need a new compilation.
        """
        if not self.freezes or self.network.training != self.training or self.whole != tuple(whole):
            return False
        if self._constants is None:
            return can_freeze(self.network)
        # The digest also notices writes through `.data`, which change no version counter.
        return can_freeze(self.network) and self._is_unchanged() and self._digest == _digest(self.network)

    def __call__(self, inputs: Any) -> Any:
        """Return what the forward pass returns."""
        if self.freezes:
            try:
                with _freezing():
                    return self._run(inputs)
            except Exception:  # The compiler failed, or the network did: then the call below raises it again.
                self._thaw()
        return self._run(inputs)

    def _is_whole(self, size: int) -> bool:
        if self.whole:
            return size in self.whole or size % self.whole[0] == 0
        self._sizes[size] += 1
        return self._sizes[size] >= _RARE * self._sizes.total()

    def _is_unchanged(self) -> bool:
        found = _tensors(self.network)
        if self._constants is None:
            # Recorded at the first call, because networks are moved after they are built. Keeping the tensors holds
            # their memory, so that no other tensor can get the same address.
            self._constants = [(tensor.detach(), _version(tensor)) for tensor in found]
            self._digest = _digest(self.network)
            return True
        return len(found) == len(self._constants) and all(
            tensor.data_ptr() == kept.data_ptr() and _version(tensor) == version
            for tensor, (kept, version) in zip(found, self._constants, strict=True)
        )

    def _thaw(self) -> None:
        """Give up the constants: from now on the network's tensors are inputs of the compiled code."""
        self.freezes, self._constants = False, None
        self._run = _compiled(self._plain)


def can_freeze(network: nn.Module) -> bool:
    """Return whether the network's parameters may become constants, and something is gained by it.

    It is known to pay on a CPU, for convolutions with batch norms. It made other kinds of networks slower, such as
    those with shifted-window attention (pytorch/pytorch issue 190757).
    """
    tensors = _tensors(network)
    is_still = not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    on_cpu = all(tensor.device.type == "cpu" and tensor.layout == torch.strided for tensor in tensors)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    # Without running statistics there is nothing constant to fold.
    return is_still and on_cpu and any(norm.running_mean is not None for norm in norms)


def batch_size(inputs: Any) -> int:
    """Return the number of samples; 0 if no tensor tells it."""
    parts = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    return next((len(part) for part in parts if isinstance(part, Tensor) and part.ndim), 0)


def _freezing() -> AbstractContextManager[Any]:
    # Not `torch.compile(options=)`, which takes effect after the graph was captured: by then parameters are inputs, and
    # no guard tells apart two networks of one architecture.
    import torch._inductor.config as inductor

    context: AbstractContextManager[Any] = inductor.patch(freezing=True)
    return context


def _compiled(run: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    compiled: Callable[[Any], Any] = torch.compile(_apart(run), *args, **kwargs)
    return compiled


def _apart(run: Any) -> Any:
    """Return the method with code of its own.

    PyTorch keeps compiled code with the function's code object, and only a few versions of it: a ninth network would
    run uncompiled. Constants must not be shared either: they belong to one network.
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


def _tensors(network: nn.Module) -> list[Tensor]:
    """Return every tensor of a network: parameters, buffers, and what its modules have as plain attributes."""
    found: list[Tensor] = []
    for module in network.modules():
        own = vars(module)
        for named in (own["_parameters"], own["_buffers"]):
            found += [tensor for tensor in named.values() if tensor is not None]
        # This runs before every call, so attributes that every module has are skipped: none of them is a tensor.
        found += [value for name, value in own.items() if name not in _OF_EVERY_MODULE and isinstance(value, Tensor)]
    return found


def _digest(network: nn.Module) -> str:
    # Imported here, because it imports what compiles.
    from tutelage.system.digests import of_tensors

    return of_tensors({str(place): tensor for place, tensor in enumerate(_tensors(network))})


def _version(tensor: Tensor) -> int:
    # Tensors made in inference mode have no version counter.
    return 0 if tensor.is_inference() else tensor._version
