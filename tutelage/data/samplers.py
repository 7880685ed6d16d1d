"""Which samples form a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from tutelage.errors import UserError


@runtime_checkable
class BatchSampler(Protocol):
    """Decides the batches of an epoch. A method may bring its own, for pairs or for balanced classes."""

    def __len__(self) -> int:
        """Return the number of batches per epoch."""

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors of epoch `number`; all chance comes from `generator`, which is made for it."""


class ShuffledBatches:
    """Every sample once per epoch, in batches of equal size, in random or in given order.

    Args:
        length: The number of samples.
        batch_size: Samples per batch; the last one may be smaller.
        shuffle: Whether each epoch has its own order.
        drop_last: Whether to leave out a last batch that is smaller.

    Raises:
        UserError: If there would be no batch.
    """

    def __init__(self, length: int, *, batch_size: int, shuffle: bool = True, drop_last: bool = False) -> None:
        if batch_size < 1:
            raise UserError(f"The batch size is {batch_size}: give 1 or more.")
        if length < (batch_size if drop_last else 1):
            raise UserError(f"{length} samples give no batch of {batch_size}: take a smaller batch size or more data.")
        self._length, self._batch_size, self._shuffle = length, batch_size, shuffle
        self._batches = length // batch_size if drop_last else math.ceil(length / batch_size)

    def __len__(self) -> int:
        return self._batches

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors of an epoch."""
        order = torch.randperm(self._length, generator=generator) if self._shuffle else torch.arange(self._length)
        for start in range(0, self._batches * self._batch_size, self._batch_size):
            yield order[start : start + self._batch_size]
