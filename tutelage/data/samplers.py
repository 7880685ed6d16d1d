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


class RepeatedBatches:
    """Each sample several times in a batch, and after that not again for as many epochs.

    With $m$ repeats, the samples are dealt into $m$ parts, at random but once for all. Epoch $e$ takes part $e$ mod
    $m$ in an order of its own. So it is as long as one in which every sample comes once, and each sample comes in one
    of any $m$ epochs in a row. A batch has $m$ sections: the same samples in the same order. Where $m$ does not divide
    the number of samples, the larger parts leave one out, each time another.

    Args:
        length: The number of samples.
        batch_size: Entries of a batch, `repeats` times as many as it has different samples.
        repeats: How often a sample is in a batch.
        single_from: First epoch in which all samples come, once each; none by default.
        drop_last: Whether to leave out a last batch that is smaller.

    Raises:
        UserError: If the repeats do not divide the batch size, or there would be no batch.
    """

    def __init__(
        self, length: int, *, batch_size: int, repeats: int, single_from: int | None = None, drop_last: bool = False
    ) -> None:
        if repeats < 1 or batch_size < 1 or batch_size % repeats:
            raise UserError(
                f"A batch of {batch_size} cannot hold each of its samples {repeats} times: take a batch size that is a "
                f"multiple of {max(1, repeats)}."
            )
        self._batch_size, self._repeats, self._single_from = batch_size, repeats, single_from
        self._entries = length - length % repeats
        self._batches = self._entries // batch_size if drop_last else math.ceil(self._entries / batch_size)
        if not self._batches:
            raise UserError(
                f"{length} samples, each {repeats} times, give no batch of {batch_size}: take a smaller batch size, "
                "fewer repeats or more data."
            )
        self._dealt = torch.randperm(length, generator=Generator().manual_seed(0))

    def __len__(self) -> int:
        return self._batches

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors of an epoch, each a number of equal sections."""
        single = self._single_from is not None and number >= self._single_from
        times = 1 if single else self._repeats
        part = self._dealt if single else self._dealt[number % times :: times]
        order = part[torch.randperm(len(part), generator=generator)][: self._entries // times]
        for samples in torch.split(order, self._batch_size // times)[: self._batches]:
            yield samples.repeat(times)


class PairBatches:
    """Every sample once per epoch as an anchor; behind the anchors of a batch, a partner of the same class for each.

    A batch has two sections: the anchors, and as many partners in the same order. A partner is drawn from all samples
    of the class, the anchor among them, so that one may come again, and a class of one sample is paired with itself.

    Args:
        targets: The classes of all samples, `[sample]`.
        batch_size: Anchors per batch, half of its samples; the last batch may have fewer. A last batch of one anchor,
            which batch norm cannot normalise, is left out.
        drop_last: Whether to leave out any last batch that is smaller.

    Raises:
        UserError: If there would be no batch.
    """

    def __init__(self, targets: Tensor, *, batch_size: int, drop_last: bool = False) -> None:
        samples = len(targets)
        leaves_one = 1 < batch_size < samples and samples % batch_size == 1
        self._anchors = ShuffledBatches(samples, batch_size=batch_size, drop_last=drop_last or leaves_one)
        found = targets.cpu().unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
        _, self._class, self._count = found
        # The samples class by class, and where each class begins.
        self._order, self._start = self._class.argsort(stable=True), self._count.cumsum(0) - self._count

    def __len__(self) -> int:
        return len(self._anchors)

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors of an epoch, anchors before partners."""
        for anchors in self._anchors.epoch(number, generator):
            classes = self._class[anchors]
            # A remainder of numbers this large is uniform, and exact where a product of floats is not.
            drawn = torch.randint(2**62, anchors.shape, generator=generator) % self._count[classes]
            yield torch.cat([anchors, self._order[self._start[classes] + drawn]])
