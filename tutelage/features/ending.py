"""Networks that stop after the last layer that is read, and a stand-in for the logits they then do not compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import UserError


class AbsentLogits(Tensor):
    """Stands in an `Output` for logits that were not computed. Using them is an error.

    It can be moved, copied and printed, so that the `Output` that holds it can be, too.
    """

    @staticmethod
    def __new__(cls: type[AbsentLogits]) -> AbsentLogits:
        """Return a stand-in."""
        return Tensor._make_subclass(cls, torch.empty(0))

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[[], Tensor], tuple[()]]:
        """Stay one object: pickling and copying give back `ABSENT` itself."""
        return _absent, ()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Refuse every operation on it but moving, copying and printing.

        Raises:
            UserError: For every other operation.
        """
        if func in (Tensor.__repr__, Tensor.__format__):
            return "AbsentLogits()"
        if func in (Tensor.to, Tensor.detach, Tensor.__deepcopy__):
            return args[0]
        raise UserError(
            "These logits were not computed: only layers are read from this network, and it stops after the last of "
            "them. To read its logits as well, ask for them: teacher.reading(layers, logits=True)."
        )


ABSENT = AbsentLogits()


def _absent() -> Tensor:
    return ABSENT


class ReachedError(Exception):
    """Ends a forward pass early: nothing after this point is read.

    Args:
        ending: The ending that raised it.
        value: The tensor that was read last.
    """

    def __init__(self, ending: Ending, value: Tensor) -> None:
        super().__init__()
        self.ending, self.value = ending, value


class Ending:
    """Ends a forward pass as soon as each layer was reached as often as on the example, in any order.

    An exception ends the pass, because the network itself has no way to stop early. Compiled code needs none: the
    compiler leaves out everything that the features do not depend on.

    Args:
        calls: How often each layer was reached on the example.
    """

    def __init__(self, calls: Mapping[str, int]) -> None:
        self.calls = dict(calls)
        self._left: dict[str, int] = {}

    def run(self, forward: Callable[[], object]) -> Tensor | None:
        """Run a forward pass as far as it is needed.

        Returns:
            The tensor that was read last; None if the pass ran to its own end.
        """
        self._left = dict(self.calls)
        try:
            forward()
        except ReachedError as reached:
            # Endings may be nested: an exception of another one is left for that one to catch.
            if reached.ending is not self:
                raise
            return reached.value
        finally:
            self._left = {}
        return None

    def note(self, layer: str, value: Tensor) -> None:
        """Count a layer that was reached, and end the pass if it was the last one needed.

        Raises:
            ReachedError: If it was.
        """
        if layer not in self._left:
            return
        self._left[layer] -= 1
        # A count falls below zero if its layer is reached more often than on the example.
        if not any(count > 0 for count in self._left.values()):
            raise ReachedError(self, value)
