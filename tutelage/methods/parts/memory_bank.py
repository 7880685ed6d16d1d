"""CRD's memory of every training sample's embedding, and the negatives that are drawn from it."""

from __future__ import annotations

import math
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage.data.batch import Batch
from tutelage.errors import UserError

# The most numbers that are gathered from a bank at once: 256 MiB in float32.
_MOST_GATHERED = 2**26


class MemoryBank(nn.Module):
    """A remembered embedding for every training sample. All processes keep equal banks.

    Args:
        samples: Number of samples.
        dim: Length of an embedding's vector.
        temperature: Temperature that divides the cosines.
        momentum: Share of the remembered embedding that an update keeps.
    """

    vectors: Tensor
    log_z: Tensor

    def __init__(self, samples: int, dim: int, *, temperature: float, momentum: float) -> None:
        super().__init__()
        self.temperature, self.momentum = temperature, momentum
        # As in the authors' code: random rows of about length one.
        bound = 1 / math.sqrt(dim / 3)
        self.register_buffer("vectors", torch.empty(samples, dim).uniform_(-bound, bound))
        # The log of zero means that $Z$ is not set yet.
        self.register_buffer("log_z", torch.tensor(-math.inf))

    def forward(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        r"""Return $\log P$ of rows of the bank, `[batch, row]`. The first call sets $Z$.

        Args:
            embeddings: `[batch, dim]`, of length one; gradients flow into them.
            rows: `[batch, row]`.
        """
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            scores = self._cosines(embeddings, rows) / self.temperature
        self._set_z(scores.detach())
        return scores - self.log_z

    @torch.no_grad()
    def remember(self, rows: Tensor, embeddings: Tensor) -> None:
        """Move rows of the bank towards embeddings.

        Args:
            rows: `[sample]`.
            embeddings: `[sample, dim]`, of length one.
        """
        rows, embeddings = _of_all_processes(rows), _of_all_processes(embeddings.detach())
        # A mean of two vectors of length one is shorter than one, so it is scaled again.
        moved = self.momentum * self.vectors[rows] + (1 - self.momentum) * embeddings
        self.vectors.index_copy_(0, rows, unit(moved))

    def _set_z(self, scores: Tensor) -> None:
        # All processes must set the same Z, or their equal banks would give different probabilities.
        means = _of_all_processes(_log_mean_exp(scores.flatten())[None])
        first = _log_mean_exp(means) + math.log(len(self.vectors))
        # A `where` instead of an `if`, which would make the CPU wait for the device.
        self.log_z.copy_(torch.where(self.log_z.isinf(), first, self.log_z))

    def _cosines(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """Return cosines `[batch, row]`, computed in the way that takes less memory at once."""
        product, gathered = _at_once(*rows.shape, *self.vectors.shape)
        if product <= gathered:
            # All products at once, of which the needed ones are taken.
            return (embeddings @ self.vectors.T).gather(1, rows)
        size = gathered // (rows.shape[1] * embeddings.shape[1])
        # Checkpointing gathers the rows again in the backward pass instead of keeping them.
        parts = [
            checkpoint(_gathered, self.vectors, *part, use_reentrant=False, preserve_rng_state=False)
            for part in zip(torch.split(embeddings, size), torch.split(rows, size))
        ]
        return torch.cat(parts)


class ContrastRows(nn.Module):
    """Chooses the rows of the banks that a batch is compared with. The banks are sorted by class.

    Args:
        targets: The classes of all samples, `[sample]`.
        num_classes: Number of classes.
        negatives: Number of negatives for each sample.

    Raises:
        UserError: If all samples have one class.
    """

    own: Tensor
    start: Tensor
    count: Tensor

    def __init__(self, targets: Tensor, num_classes: int, negatives: int) -> None:
        super().__init__()
        self.samples, self.negatives = len(targets), negatives
        # Rows of the banks stand in the order of the classes; `start` is the first row of a class.
        count = targets.bincount(minlength=num_classes)
        if int(count.max()) == self.samples:
            raise UserError(
                "All training samples have one class, so CRD has no negatives: add samples of other classes."
            )
        # These follow from the data, so checkpoints do not need them.
        # The argsort of an order gives each sample's row in it.
        self.register_buffer("own", targets.argsort(stable=True).argsort(), persistent=False)
        self.register_buffer("start", count.cumsum(0) - count, persistent=False)
        self.register_buffer("count", count, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Return each sample's own row, then the rows of its negatives, `[batch, 1 + negative]`.

        Raises:
            UserError: If the batch has no positions of its samples in the dataset.
        """
        if batch.indices is None:
            raise without_positions()
        start, count = self.start[batch.labels, None], self.count[batch.labels, None]
        # The remainder of so large a number is practically uniform. Scaling a random float would not be exact.
        drawn = torch.randint(2**62, (len(start), self.negatives), device=start.device) % (self.samples - count)
        # Rows are sorted by class, so adding `count` skips the block of the sample's own class.
        drawn += (drawn >= start) * count
        return torch.cat([self.own[batch.indices, None], drawn], 1)


def unit(vectors: Tensor) -> Tensor:
    """Return vectors `[sample, dim]` scaled to length one."""
    return F.normalize(vectors, dim=1, eps=torch.finfo(vectors.dtype).eps)


def without_positions() -> UserError:
    """Return the error for samples without positions, which cannot be told apart."""
    return UserError(
        "CRD remembers every training sample by its position, and a DataLoader does not give positions: pass the "
        "dataset instead."
    )


def bank_bytes(samples: int, dim: int) -> int:
    """Return the bytes of two banks."""
    return 2 * 4 * samples * dim


def step_bytes(batch: int, columns: int, samples: int, dim: int) -> int:
    """Return the bytes that comparing a batch with both banks takes: rows, scores and the largest temporary.

    Args:
        batch: Samples of a batch.
        columns: Rows of the bank for each of them.
        samples: Samples that the banks remember.
        dim: Length of an embedding's vector.
    """
    # Rows are int64, scores float32. There are two banks.
    rows, scores = 8 * batch * columns, 4 * batch * columns
    return rows + 2 * 3 * scores + 4 * min(_at_once(batch, columns, samples, dim))


def memory_note(samples: int, dim: int, batch: int, negatives: int) -> str:
    """Return a note on the memory that the banks and a training step take.

    Args:
        samples: Training samples.
        dim: Length of the embeddings.
        batch: Samples in a batch.
        negatives: Negatives of each sample.
    """
    banks, step = bank_bytes(samples, dim) / 1e6, step_bytes(batch, 1 + negatives, samples, dim) / 1e6
    return (
        f"The memory banks, 2 x {samples:,} samples x {dim} numbers, take {banks:,.1f} MB, and as much again in the "
        f"copy of the best epoch; comparing a batch of {batch} with them takes {step:,.1f} MB."
    )


def check_memory(samples: int, dim: int) -> None:
    """Refuse banks that would exceed the machine's memory, before they are made.

    Raises:
        UserError: If they do.
    """
    # All of the memory, not only the free part: what is refused here could never work.
    needed, there = bank_bytes(samples, dim), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"The memory banks of CRD, 2 x {samples} samples x {dim} numbers, take {needed / 1e9:.1f} GB, and this "
            f"machine has {there / 1e9:.1f} GB. Lower --embedding-dim, or train on fewer samples."
        )


def _at_once(batch: int, columns: int, samples: int, dim: int) -> tuple[int, int]:
    """Return the sizes, in numbers, of the product with the whole bank and of the rows gathered at once."""
    some = min(batch, max(1, _MOST_GATHERED // (columns * dim)))
    return batch * samples, some * columns * dim


def _gathered(vectors: Tensor, embeddings: Tensor, rows: Tensor) -> Tensor:
    return torch.einsum("bkd,bd->bk", vectors[rows], embeddings)


def _log_mean_exp(values: Tensor) -> Tensor:
    return values.logsumexp(0) - math.log(len(values))


def _of_all_processes(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes, joined; a single process gets its own tensor back."""
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
