"""The cost of a training run: time, estimated from a few real steps, and memory."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.method import Method, Progress
from tutelage.data.batch import Batch, count_of
from tutelage.data.dataset import Data
from tutelage.models.answers import answer
from tutelage.models.modes import evaluating
from tutelage.system.console import Silent
from tutelage.training.driver import Driver
from tutelage.training.settings import Training

# Batches before the clock counts, and batches that count; and the seconds after which fewer must do.
WARM_UP, TIMED = 3, 8
PATIENCE = 20.0
# A training step that would take longer, in seconds, is rehearsed on fewer samples, but not on fewer than these.
BEARABLE, FEWEST = 3.0, 4
# What a step takes, in forward passes: one back costs two forth.
_PASSES = 3


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of a training step, in bytes.

    Attributes:
        parameters: Parameters and buffers of all networks, the teacher's included.
        gradients: Gradients of the trained parameters.
        optimizer: State of the optimizers.
        activations: Tensors that the forward pass keeps for the backward pass.
        terms: What losses take at once beside that, by their names, as the method foretells it.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    terms: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer + self.activations + sum(self.terms.values())


class _Enough(Exception):
    """Ends a rehearsal that has timed enough batches."""


class _Stopwatch(Silent):
    """A reporter that looks at the clock after every batch, and ends the training after a few."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.times: list[float] = []

    def advance(self, steps: int) -> None:
        """Look at the clock."""
        # A GPU computes asynchronously: without waiting, only the time to launch its work would be measured.
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        # At least two steps are timed, however slow they are.
        late = len(self.times) > 2 and self.times[-1] - self.started > PATIENCE
        if late or len(self.times) > WARM_UP + TIMED:
            raise _Enough


@torch.no_grad()
def bearable_samples(asked: Sequence[tuple[nn.Module, Any]], wanted: int) -> int:
    """Return with how many samples a step can be rehearsed in a few seconds: all, or fewer where that takes long.

    Args:
        asked: The networks that a step asks, each with inputs of a few samples on its device.
        wanted: Samples of a training batch.
    """
    each = 0.0
    for network, inputs in asked:
        with evaluating(network):
            answer(network, inputs)
            # The second pass counts: the first also pays for starting up.
            started = time.perf_counter()
            answer(network, inputs).sum().item()
            each += (time.perf_counter() - started) / count_of(inputs)
    whole = _PASSES * each * wanted
    return wanted if whole <= BEARABLE else min(wanted, max(FEWEST, int(wanted * BEARABLE / whole)))


def seconds_per_step(method: Method, data: Data, training: Training) -> float:
    """Train for a few batches with the real driver, and return the time of one batch. The method is changed by this.

    Args:
        method: The method.
        data: The data.
        training: The settings; networks are not compiled for the rehearsal.
    """
    stopwatch = _Stopwatch()
    # Reports after every batch, saves nothing, and compiles nothing: compiling would take longer than the rehearsal.
    short = replace(training, log_every=1, checkpoint_seconds=float("inf"), compile="off")
    with suppress(_Enough):
        Driver(short, reporter=stopwatch).fit(method, data.with_splits(validation=None))
    times = stopwatch.times
    if len(times) < 2:
        return times[0] - stopwatch.started
    # The first steps are slower, as caches and allocators fill; the median ignores single slow ones.
    steps = [after - before for before, after in pairwise(times)]
    return statistics.median(steps[WARM_UP:] or steps)


@torch.no_grad()
def seconds_to_score(method: Method, data: Data, split: str, batch_size: int, device: torch.device) -> float:
    """Return the time of one pass over a split, estimated from two of its batches."""
    if not data.count(split):
        return 0.0
    loader = data.loader(split, train=False, batch_size=batch_size, device=device, workers=0)
    batches: Iterator[Batch] = islice(loader.epoch(0), 2)
    with evaluating(method):
        times = []
        for batch in batches:
            started = time.perf_counter()
            # `item` waits for the device, which a forward pass alone does not.
            next(iter(method(batch.inputs).values())).sum().item()
            times.append(time.perf_counter() - started)
    # The first batch also pays for starting up.
    return min(times) * len(loader)


def measure_memory(method: Method, batch: Batch, training: Training) -> Memory:
    """Return the memory of a training step on a batch.

    Args:
        method: The method.
        batch: A training batch on the method's device.
        training: The settings.
    """
    trained = {id(p): p for spec in method.optimizers().values() for p in spec.params}
    gradients = sum(_bytes(parameter) for parameter in trained.values())
    # AdamW keeps two values for each parameter, SGD with momentum one.
    states = 2 if training.optimizer == "adamw" else int(training.momentum > 0)
    own = [*method.parameters(), *method.buffers()]
    with _saved({tensor.untyped_storage().data_ptr() for tensor in own}) as saved:
        for update in method.step(batch, Progress()):
            # Nothing steps, so the graph of each update is seen once.
            method.total(update, Progress())
    return Memory(
        parameters=sum(map(_bytes, own)),
        gradients=gradients,
        optimizer=states * gradients,
        activations=sum(saved.values()),
    )


def peak_memory() -> tuple[str, int]:
    """Return whose memory is measured, and its peak so far in this process, in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
    # ru_maxrss is in bytes on macOS, and in kB on Linux.
    unit = 1 if sys.platform == "darwin" else 1024
    return "this process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _saved(known: set[int]) -> Iterator[dict[int, int]]:
    """Record the storages that autograd keeps, by address. Known ones, such as those of parameters, do not count."""
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            # By address, because views of one tensor share its memory.
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
