"""Compiled forward passes: which calls are worth them, and what may be taken for constant in them."""

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

    Where nothing of the network can be trained any more, its tensors are constants of the compiled code: batch norm is
    folded into the convolutions, and weights are stored once in the layout and precision they are multiplied in. The
    network's own tensors stay as they are; should they change all the same, they are constants no longer. A write
    through `.data` leaves no trace, and is not seen before `serves` is asked.

    Args:
        run: The forward pass: a method of `network`.
        network: What it runs.
        *args: As in `torch.compile`.
        whole: How many samples whole inputs have, and other sizes that are as frequent. Multiples of the first count as
            whole, too; other inputs run as they are. Without any, what is rare is told from what was seen so far.
        **kwargs: As in `torch.compile`. Constants are for the default backend.

    Attributes:
        freezes: Whether the network's tensors are constants.
    """

    def __init__(
        self, run: Callable[[Any], Any], network: nn.Module, *args: Any, whole: Sequence[int] = (), **kwargs: Any
    ) -> None:
        self.network, self.training, self.whole = network, network.training, tuple(whole)
        self.freezes = not args and not kwargs and can_freeze(network)
        self._plain = run
        # Of what compiles to several graphs, all but the first are kept with code that other networks run as well.
        self._run = torch.compile(_apart(run), fullgraph=True) if self.freezes else _compiled(run, *args, **kwargs)
        self._sizes: Counter[int] = Counter()
        self._constants: list[tuple[Tensor, int]] | None = None
        self._digest = ""

    def suits(self, inputs: Any) -> bool:
        """Return whether to answer these inputs by the compiled code, rather than by the network as it is."""
        if self.network.training != self.training or (self.freezes and torch.is_grad_enabled()):
            return False
        if not self._is_whole(batch_size(inputs)):
            return False
        if self.freezes and not self._is_unchanged():
            self._thaw()
        return True

    def serves(self, whole: Sequence[int]) -> bool:
        """Return whether these constants are still the network's, so that nothing is gained by compiling it again.

        Args:
            whole: As above.
        """
        if not self.freezes or self.network.training != self.training or self.whole != tuple(whole):
            return False
        if self._constants is None:
            return can_freeze(self.network)
        return can_freeze(self.network) and self._is_unchanged() and self._digest == _digest(self.network)

    def __call__(self, inputs: Any) -> Any:
        """Return what the forward pass returns."""
        if self.freezes:
            try:
                with _freezing():
                    return self._run(inputs)
            except Exception:  # Of several graphs, of the compiler, or the network's own, which comes again.
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
            # Not before the first call: networks are moved after they are built. What is kept holds the memory, so that
            # no other tensor can come to lie there.
            self._constants = [(tensor.detach(), _version(tensor)) for tensor in found]
            self._digest = _digest(self.network)
            return True
        return len(found) == len(self._constants) and all(
            tensor.data_ptr() == kept.data_ptr() and _version(tensor) == version
            for tensor, (kept, version) in zip(found, self._constants, strict=True)
        )

    def _thaw(self) -> None:
        """Take the network's tensors for inputs from now on."""
        self.freezes, self._constants = False, None
        self._run = _compiled(self._plain)


def can_freeze(network: nn.Module) -> bool:
    """Return whether the network's parameters may become constants, and something is gained by it.

    It is known to pay on a CPU, for convolutions with batch norms; networks of other kinds it has made slower, such as
    those that attend to shifted windows (pytorch/pytorch issue 190757).
    """
    tensors = _tensors(network)
    is_still = not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    on_cpu = all(tensor.device.type == "cpu" and tensor.layout == torch.strided for tensor in tensors)
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


def _compiled(run: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    compiled: Callable[[Any], Any] = torch.compile(_apart(run), *args, **kwargs)
    return compiled


def _apart(run: Any) -> Any:
    """Return the method with code of its own.

    Compiled code is kept with the code of the function, a limited number of pieces: of a ninth network nothing would be
    compiled. And constants serve one network only.
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
        # This runs before every call: what each module has is left out.
        found += [value for name, value in own.items() if name not in _OF_EVERY_MODULE and isinstance(value, Tensor)]
    return found


def _digest(network: nn.Module) -> str:
    # Imported here, because it imports what compiles.
    from tutelage.system.digests import of_tensors

    return of_tensors({str(place): tensor for place, tensor in enumerate(_tensors(network))})


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
