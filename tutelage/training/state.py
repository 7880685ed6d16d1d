"""The state of a training run, and the conditions that end it early."""

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
        after: Number of epochs after which to stop; None for the whole schedule.
        at_score: Validation score of the task's primary metric at which to stop; None for no such limit.
        at_loss: Sum of the training losses, each without its weight and the mean over an epoch, at or below which to
            stop; None for no such limit.
    """

    after: int | None = None
    at_score: float | None = None
    at_loss: float | None = None

    def reached(self, epochs_done: int, history: History, task: Task) -> bool:
        """Return whether to stop now."""
        scores = history.get(f"validation_{task.primary}")
        enough = False
        if self.at_score is not None and scores:
            # `better` is strict, and a score that is just reached is enough.
            enough = scores[-1] == self.at_score or task.metrics[task.primary].better(scores[-1], self.at_score)
        if self.at_loss is not None:
            losses = [values[-1] for name, values in history.items() if name.startswith("train/")]
            enough = enough or (bool(losses) and sum(losses) <= self.at_loss)
        return enough or epochs_done == self.after

    def identity(self) -> dict[str, Any]:
        """Return its part of a fingerprint, under the names that earlier versions stored."""
        found = {"after": self.after, "at_accuracy": self.at_score}
        # Absent where it is not asked for, as in the fingerprints of earlier versions.
        return found if self.at_loss is None else {**found, "at_loss": self.at_loss}


@dataclass(kw_only=True)
class State:
    """The state of a training run. All of it goes into the checkpoint.

    Attributes:
        epoch: Epochs finished.
        batch: Batches seen in the current epoch.
        steps: Batches seen in all.
        samples: Samples seen in all.
        seconds: Time spent, interruptions not counted.
        history: Metrics, one value an epoch.
        sums: For each loss, the sum over the current epoch and the number of values added.
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
        # Checkpoints are read on the CPU.
        sums = {name: (total.to(device), count) for name, (total, count) in content["sums"].items()}
        return cls(**{**content, "sums": sums})
