"""Which parameters of the trained networks a loss reaches in the first step."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from tutelage.core.method import Method, networks
from tutelage.models.normalization import bare


class Reach:
    """Notes in the first step which parameters get a gradient, and tells of those that get none.

    Whether there is a gradient is known without waiting for the device.
    """

    def __init__(self) -> None:
        self._trained: set[nn.Parameter] = set()
        self._reached: set[nn.Parameter] = set()
        self._is_first = True

    def note(self, params: Iterable[nn.Parameter]) -> None:
        """Note which parameters of an optimizer have a gradient after a backward pass."""
        if self._is_first:
            params = list(params)
            self._trained |= set(params)
            self._reached |= {parameter for parameter in params if parameter.grad is not None}

    def told(self, method: Method) -> str | None:
        """Return a sentence about the parts that no loss reached, at the end of the first step; None later.

        Args:
            method: The method with the trained networks.
        """
        if not self._is_first:
            return None
        self._is_first = False
        left = self._trained - self._reached
        for network in networks(method, trained=True) if left else []:
            parts = _parts(bare(network.model), left)
            if parts:
                named = ", ".join(parts[:5]) + (f" and {len(parts) - 5} more" if len(parts) > 5 else "")
                return f"No loss reaches {named}: as in the first step, such parts of the network stay as they are."
        return None


def _parts(network: nn.Module, left: set[nn.Parameter]) -> list[str]:
    """Return the names of the largest modules whose parameters are all left, and of other parameters that are left."""
    # `named_modules` gives a module before its parts, so what lies inside a found one is skipped.
    found: list[str] = []
    for name, module in network.named_modules():
        own = list(module.parameters())
        is_inside = any(name.startswith(f"{part}.") for part in found)
        # Without parameters of its own a module would count as left, because an empty set is a part of any.
        if name and own and not is_inside and left.issuperset(own):
            found.append(name)
    others = [name for name, one in network.named_parameters() if one in left]
    return found + [name for name in others if not any(name.startswith(f"{part}.") for part in found)]
