"""Where a training run stands, and when it ends before its schedule does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from tutelage.data.task import Task

History = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When training ends before its schedule does.

    Attributes:
        after: Number of epochs.
        at_score: Score of the task's primary metric on validation data that is enough.
    """

    after: int | None = None
    at_score: float | None = None

    def reached(self, epochs_done: int, history: History, task: Task) -> bool:
        """Return whether to stop now."""
        scores = history.get(f"validation_{task.primary}")
        enough = False
        if self.at_score is not None and scores:
            enough = scores[-1] == self.at_score or task.metrics[task.primary].better(scores[-1], self.at_score)
        return enough or epochs_done == self.after

    def identity(self) -> dict[str, Any]:
        """Return what a fingerprint says of it, by the names that runs of earlier versions have."""
        return {"after": self.after, "at_accuracy": self.at_score}


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
        best_epoch: Epoch of the best validation score, counted from one; the earliest if several.
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
