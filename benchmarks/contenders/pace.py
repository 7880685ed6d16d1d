"""Who may train when: contenders take turns, and tell the time that their steps took."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import active_children
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from tutelage.experiments.doctor.cost import peak_memory

PROMPT = "go"


class Over(Exception):
    """All turns were taken."""


class Pace:
    """Told of every step, and lets it pass; the learning rate follows a cosine to zero.

    Args:
        lr: Learning rate at first.
        total: Steps until zero.

    Attributes:
        facts: What a contender wants to have told beside its times, once it is ready.
    """

    def __init__(self, lr: float, total: int) -> None:
        self.lr, self.total, self.done = lr, total, 0
        self.facts: dict[str, Any] = {}

    @property
    def every(self) -> int:
        """Steps between two reports of a contender that does not report every one."""
        return 50

    def step(self, optimizer: Optimizer | None = None, count: int = 1) -> None:
        """Take note of steps.

        Args:
            optimizer: Its learning rate is set for the next step.
            count: How many steps were taken.
        """
        self.done += count
        if optimizer is not None:
            rate = self.lr * (1 + math.cos(math.pi * min(1.0, self.done / self.total))) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate


class Turns(Pace):
    """Stops a contender between its steps until it is its turn.

    Warm-up, which compiles, is told first. Then each turn begins with some steps that are not timed: in them, caches
    are warm again, and what workers prepared while they waited is used up. Of the timed ones, `lead` at a time, the
    median counts: on a virtual machine everything may be slow for seconds at a time, and no counter tells why.

    Args:
        lr: Learning rate at first.
        total: Steps until zero.
        tell: Takes what is to be told.
        wait: Returns when a turn begins, and raises `Over` when there are none left.
        lead: Steps before the timed ones; reports come as often.
        steps: Timed steps of a turn, a multiple of `lead`.
    """

    def __init__(
        self,
        lr: float,
        total: int,
        *,
        tell: Callable[[dict[str, Any]], None],
        wait: Callable[[], None],
        lead: int,
        steps: int,
    ) -> None:
        super().__init__(lr, total)
        if steps % lead:
            raise ValueError(f"{steps} timed steps are no multiple of {lead}")
        self._tell, self._wait, self._lead, self._steps = tell, wait, lead, steps
        self._course = self._play()
        self._goal = next(self._course)

    @property
    def every(self) -> int:
        """Steps between two reports, so that turns begin and end with one."""
        return self._lead

    def step(self, optimizer: Optimizer | None = None, count: int = 1) -> None:
        """Take note of steps, and wait where a turn ends."""
        super().step(optimizer, count)
        if self.done >= self._goal:
            self._goal = self.done + next(self._course)

    def _play(self) -> Iterator[int]:
        """Yield how many steps to go until something happens."""
        born = time.perf_counter()
        yield 2 * self._lead
        synchronize()
        self._tell({"prepared": time.perf_counter() - born, "most_memory": peak_memory()[1], **self.facts})
        forget_peak()
        while True:
            self._wait()
            yield self._lead
            synchronize()
            times = []
            for _ in range(self._steps // self._lead):
                started = time.perf_counter()
                yield self._lead
                synchronize()
                times.append((time.perf_counter() - started) / self._lead)
            seconds = statistics.median(times)
            self._tell({"seconds": seconds, "memory": peak(), "workers_memory": workers_memory()})


def waiting_for(pipe: Connection) -> Callable[[], None]:
    """Return what waits for a prompt in a pipe."""

    def wait() -> None:
        try:
            prompt = pipe.recv()
        except EOFError:
            prompt = None
        if prompt != PROMPT:
            raise Over

    return wait


def synchronize() -> None:
    """Wait until a device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forget_peak() -> None:
    """Let the peak of memory begin anew, where the system can: compiling needs more than training."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most memory since `forget_peak`, in bytes: of a GPU, or of this process."""
    status = Path("/proc/self/status")
    if torch.cuda.is_available() or not status.exists():
        return peak_memory()[1]
    return _kilobytes(status, "VmHWM") * 1024


def workers_memory() -> int:
    """Return what the worker processes of this one have for themselves, in bytes; 0 where that cannot be known."""
    files = [Path(f"/proc/{worker.pid}/smaps_rollup") for worker in active_children()]
    kinds = ("Private_Clean", "Private_Dirty")
    return sum(_kilobytes(file, kind) for file in files for kind in kinds) * 1024


def _kilobytes(file: Path, kind: str) -> int:
    with suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1])
    return 0
