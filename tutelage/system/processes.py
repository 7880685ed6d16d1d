"""Several processes that train as one: which of them writes, and how they wait and share values."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

# torch is imported late: the console only asks whether to write, and must not wait for it.

T = TypeVar("T")


def is_first() -> bool:
    """Return whether this process writes: it is the only one, or the first that a launcher started."""
    # From the environment rather than torch.distributed, which may not have started yet.
    return os.environ.get("RANK", "0") == "0"


def wait() -> None:
    """Wait until every process has called this; a single process does not wait."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def count() -> int:
    """Return how many processes train as one."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def planned() -> int:
    """Return how many processes a launcher started to train as one, even if they are not connected yet."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def mean(value: Tensor) -> Tensor:
    """Return the mean of every process's value, a new tensor without a gradient."""
    import torch.distributed as dist

    value = value.detach().clone()
    if count() > 1:
        dist.all_reduce(value)
    return value / count()


def part(size: int) -> range:
    """Return which of `size` pieces of work, in order, are this process's. The parts are whole ranges of equal size."""
    import torch.distributed as dist

    first, number = (dist.get_rank(), count()) if count() > 1 else (0, 1)
    return range(size * first // number, size * (first + 1) // number)


def gather(value: T) -> list[T]:
    """Return the values of all processes, in their order. Every process must call this, with a value to pickle."""
    if count() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def share(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors of every process, in place, with those of the first process."""
    import torch.distributed as dist

    for tensor in tensors:
        dist.broadcast(tensor.detach(), 0)
