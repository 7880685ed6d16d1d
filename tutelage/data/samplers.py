"""Batch samplers: they choose the samples of each batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from tutelage.errors import UserError


@runtime_checkable
class BatchSampler(Protocol):
    """Forms the batches of an epoch. A method may bring its own, for pairs or for balanced classes."""

    def __len__(self) -> int:
        """Return the number of batches per epoch."""

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors of epoch `number`; all random numbers come from `generator`, made for this epoch."""


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


class GroupedBatches:
    """Every sample once, in given order, in batches whose samples belong together, such as images of one size.

    Args:
        groups: The number of each sample's group.
        batch_size: Samples per batch; the last one of a group may be smaller.
    """

    def __init__(self, groups: Sequence[int], *, batch_size: int) -> None:
        members: dict[int, list[int]] = {}
        for sample, group in enumerate(groups):
            members.setdefault(group, []).append(sample)
        self._batches = [
            torch.tensor(found[start : start + batch_size])
            for found in members.values()
            for start in range(0, len(found), batch_size)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors, the same in every epoch."""
        yield from self._batches


class LikeLengths:
    """Every sample once per epoch in random order, in batches of samples of about one length, so that little is padded.

    The shuffled samples are divided into pools of many batches. Each pool is sorted by length and cut into batches, and
    the batches come in random order.

    Args:
        lengths: The length of each sample, `[sample]`.
        batch_size: Samples per batch; one may be smaller.
        drop_last: Whether to leave out the batch that is smaller. Its samples are others in each epoch.

    Raises:
        UserError: If there would be no batch.
    """

    # Enough for batches of one length, and few enough that a batch still has other company in each epoch.
    _POOL = 50

    def __init__(self, lengths: Tensor, *, batch_size: int, drop_last: bool = False) -> None:
        self._lengths, self._batch_size = lengths.cpu(), batch_size
        self._shuffled = ShuffledBatches(len(lengths), batch_size=batch_size, drop_last=drop_last)

    def __len__(self) -> int:
        return len(self._shuffled)

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors of an epoch."""
        order = torch.cat(list(self._shuffled.epoch(number, generator)))
        batches: list[Tensor] = []
        for pool in torch.split(order, self._POOL * self._batch_size):
            batches += torch.split(pool[self._lengths[pool].argsort(stable=True)], self._batch_size)
        for place in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[place]


class BoundedBatches:
    """Every sample once, from the shortest to the longest, in batches of a bounded number of tokens with the padding.

    Args:
        lengths: The length of each sample, `[sample]`.
        batch_size: Most samples per batch.
        tokens: Most tokens of a batch, padding included; a sample that is longer is a batch by itself.
    """

    def __init__(self, lengths: Tensor, *, batch_size: int, tokens: int) -> None:
        order = lengths.cpu().argsort(stable=True)
        starts, ordered = [0], lengths.cpu()[order].tolist()
        for place, length in enumerate(ordered):
            # The last one of a batch is its longest.
            several = place + 1 - starts[-1]
            if several > 1 and (several > batch_size or several * length > tokens):
                starts.append(place)
        self._batches = list(torch.tensor_split(order, torch.tensor(starts[1:], dtype=torch.int64)))

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors, the same in every epoch."""
        yield from self._batches


class RepeatedBatches:
    """Batches that hold each of their samples several times; a sample occurs in one of as many epochs.

    With $m$ repeats, the samples are divided at random into $m$ parts, once for all epochs. Epoch $e$ uses part $e$ mod
    $m$ in its own order. So an epoch is as long as usual, and each sample occurs in one of any $m$ consecutive epochs.
    A batch has $m$ sections with the same samples in the same order. If $m$ does not divide the number of samples, the
    larger parts leave out one sample, each time another.

    Args:
        length: The number of samples.
        batch_size: Entries of a batch: `repeats` times its number of different samples.
        repeats: How often a sample occurs in a batch.
        single_from: First epoch that uses all samples, once each; by default, no epoch does.
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
        # A fixed seed, because the parts must stay the same in every epoch and after a resume.
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
    """Batches of pairs: every sample once per epoch as an anchor, each with a partner of the same class.

    A batch has two sections: the anchors, then their partners in the same order. A partner is drawn from all samples of
    the class, the anchor included. So partners may repeat, and the sample of a class of one is its own partner.

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
        # The samples ordered by class, and the place where each class begins.
        self._order, self._start = self._class.argsort(stable=True), self._count.cumsum(0) - self._count

    def __len__(self) -> int:
        return len(self._anchors)

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors of an epoch, anchors before partners."""
        for anchors in self._anchors.epoch(number, generator):
            classes = self._class[anchors]
            # The remainder of numbers this large is as good as uniform, and exact; rounding a product of floats is not.
            drawn = torch.randint(2**62, anchors.shape, generator=generator) % self._count[classes]
            yield torch.cat([anchors, self._order[self._start[classes] + drawn]])


class MixedBatches:
    """Every sample once per epoch, in batches that all hold labelled and unlabelled samples in the data's proportion.

    A batch has as many sections as there are views, with the same samples in the same order. Batches differ in size by
    two samples at most.

    Args:
        labelled: Which samples have a label, bool `[sample]`.
        batch_size: The most samples per batch, each of which is there once for each view.
        views: How often each sample occurs in its batch.
        drop_last: Whether all batches hold equally many samples; a few samples are then left out, each epoch others.

    Raises:
        UserError: If the labelled or the unlabelled samples are fewer than the batches.
    """

    def __init__(self, labelled: Tensor, *, batch_size: int, views: int, drop_last: bool = False) -> None:
        if batch_size < 2 or views < 1:
            raise UserError(
                f"A batch of {batch_size} samples in {views} views cannot be mixed: take 2 samples or more."
            )
        self._groups = [torch.nonzero(labelled.cpu() == has)[:, 0] for has in (True, False)]
        self._batches, self._views, self._drop_last = math.ceil(len(labelled) / batch_size), views, drop_last
        fewest = min(map(len, self._groups))
        if fewest < self._batches:
            kinds = f"{len(self._groups[0])} labelled and {len(self._groups[1])} unlabelled samples"
            raise UserError(
                f"{kinds} cannot both be in each of {self._batches} batches of {batch_size}: take a larger batch size, "
                "or more samples."
            )

    def __len__(self) -> int:
        return self._batches

    def epoch(self, number: int, generator: Generator) -> Iterator[Tensor]:
        """Yield the index tensors of an epoch, each a number of equal sections."""
        parts = [self._dealt(group, generator) for group in self._groups]
        for labelled, unlabelled in zip(*parts, strict=True):
            yield torch.cat([labelled, unlabelled]).repeat(self._views)

    def _dealt(self, group: Tensor, generator: Generator) -> Sequence[Tensor]:
        order = group[torch.randperm(len(group), generator=generator)]
        if self._drop_last:
            order = order[: len(order) - len(order) % self._batches]
        # The larger parts come first in `tensor_split`, of both groups.
        return order.tensor_split(self._batches)
