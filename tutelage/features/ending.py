"""Networks that run no further than the last layer that is read, and the logits that they then do not give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import UserError


class AbsentLogits(Tensor):
    """Stands in an `Output` for logits that were not computed: whoever reads them gets an error.

    It can be moved, copied and shown, so that the output around it can be, too.
    """

    @staticmethod
    def __new__(cls: type[AbsentLogits]) -> AbsentLogits:
        """Return a stand-in."""
        return Tensor._make_subclass(cls, torch.empty(0))

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[[], Tensor], tuple[()]]:
        """Be the same one when it was pickled or copied."""
        return _absent, ()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Refuse whatever is done with it.

        Raises:
            UserError: Always, but for moving, copying and showing it.
        """
        if func in (Tensor.__repr__, Tensor.__format__):
            return "AbsentLogits()"
        if func in (Tensor.to, Tensor.detach, Tensor.__deepcopy__):
            return args[0]
        raise UserError(
            "These logits were not computed: this network was asked for its layers alone, and ends behind the last of "
            "them. To read its logits as well, ask for them: teacher.reading(layers, logits=True)."
        )


ABSENT = AbsentLogits()


def _absent() -> Tensor:
    return ABSENT


class ReachedError(Exception):
    """The forward pass has come as far as anybody reads.

    Args:
        ending: Whose it is.
        value: What was read last.
    """

    def __init__(self, ending: Ending, value: Tensor) -> None:
        super().__init__()
        self.ending, self.value = ending, value


class Ending:
    """Where a forward pass ends: once each layer was reached as often as on the example, whatever the order.

    The pass is left by an exception, as the network itself knows nothing of it. What is compiled to read features alone
    needs none: the compiler leaves out whatever they do not depend on.

    Args:
        calls: How often each layer was reached on the example.
    """

    def __init__(self, calls: Mapping[str, int]) -> None:
        self.calls = dict(calls)
        self._left: dict[str, int] = {}

    def run(self, forward: Callable[[], object]) -> Tensor | None:
        """Run a forward pass as far as it is needed.

        Returns:
            What was read last; None if the pass came to its own end.
        """
        self._left = dict(self.calls)
        try:
            forward()
        except ReachedError as reached:
            # A network within may have an ending of its own.
            if reached.ending is not self:
                raise
            return reached.value
        finally:
            self._left = {}
        return None

    def note(self, layer: str, value: Tensor) -> None:
        """Take notice of what is read at a layer that was reached.

        Raises:
            ReachedError: If it was the last.
        """
        if layer not in self._left:
            return
        self._left[layer] -= 1
        if not any(count > 0 for count in self._left.values()):
            raise ReachedError(self, value)
