"""Dropout that stays active in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

_DROP: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nn.Dropout: F.dropout,
    nn.Dropout1d: F.dropout1d,
    nn.Dropout2d: F.dropout2d,
    nn.Dropout3d: F.dropout3d,
    nn.AlphaDropout: F.alpha_dropout,
    nn.FeatureAlphaDropout: F.feature_alpha_dropout,
}


class ActiveDropout(nn.Module):
    """Dropout that drops in eval mode too, from a fresh mask at every call.

    Args:
        p: Probability that an element, or with some kinds a channel, becomes zero; from 0 to below 1.
        kind: Name of PyTorch's class that drops in the same way, such as `Dropout2d`.
    """

    def __init__(self, p: float, kind: str = "Dropout") -> None:
        super().__init__()
        # Underscored, because public settings enter fingerprints, and this one is switched to and fro.
        self.p, self.kind, self._steady = p, kind, False
        self._drop = next(drop for layer, drop in _DROP.items() if layer.__name__ == kind)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs with some elements dropped and the others scaled up to keep the mean, in any mode."""
        return inputs if self._steady else self._drop(inputs, self.p, training=True)


def kind_of_dropout(layer: nn.Module) -> str | None:
    """Return the kind of dropout that a layer is; None if it never drops anything."""
    kind = next((known.__name__ for known in _DROP if isinstance(layer, known)), None)
    # With a probability of 0 it is there for nothing.
    return kind if kind is not None and layer.p else None


@contextmanager
def steady(*networks: nn.Module) -> Iterator[None]:
    """Switch `ActiveDropout` off within the context."""
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, ActiveDropout)]
    before = [layer._steady for layer in layers]
    for layer in layers:
        layer._steady = True
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer._steady = was
