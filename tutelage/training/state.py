"""Where a training run stands, and when it ends before its schedule does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

History = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When training ends before its schedule does.

    Attributes:
        after: Number of epochs.
        at_accuracy: Validation accuracy that is enough.
    """

    after: int | None = None
    at_accuracy: float | None = None

    def reached(self, epochs_done: int, history: History) -> bool:
        """Return whether to stop now."""
        enough = self.at_accuracy is not None and history.get("validation_accuracy", [0.0])[-1] >= self.at_accuracy
        return enough or epochs_done == self.after


@dataclass(kw_only=True)
class State:
    """Where a training run stands. All of it goes into the checkpoint.

    Attributes:
        epoch: Epochs finished.
        batch: Batches seen in the epoch under way.
        steps: Batches seen in all.
        samples: Samples seen in all.
        seconds: Time spent, interruptions not counted.
        history: Metrics, one value an epoch.
        sums: Sum of each loss over the epoch under way, and how many were added.
        best_epoch: Epoch of the highest validation accuracy, counted from one; the earliest if several.
        best: The method's state after that epoch.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    history: History = field(default_factory=dict)
    sums: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)

    def packed(self) -> dict[str, Any]:
        """Return the state as tensors and plain values, for a checkpoint."""
        return {**vars(self), "sums": {name: list(pair) for name, pair in self.sums.items()}}

    @classmethod
    def unpacked(cls, content: Mapping[str, Any], device: torch.device) -> Self:
        """Return the state that `packed` stored, its sums on the device where training goes on."""
        sums = {name: (total.to(device), count) for name, (total, count) in content["sums"].items()}
        return cls(**{**content, "sums": sums})
