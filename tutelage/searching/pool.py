"""Candidates examined in this process, or side by side in several; the results are the same, bit for bit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol

import torch

from tutelage.errors import Notice, UserError
from tutelage.models.spec import NetworkSpec
from tutelage.searching.examining import Examiner, Result
from tutelage.system.devices import threads

# The examiner of a worker process, which is sent once and not with each candidate.
_HERE: list[Examiner] = []


class Examining(Protocol):
    """Examines candidates one after the other, or side by side."""

    def __call__(self, networks: Iterable[NetworkSpec], /) -> Iterator[Result]:
        """Yield the result of each candidate, in order."""


@contextmanager
def examining(examiner: Examiner, workers: int) -> Iterator[Examining]:
    """Yield a function that examines candidates.

    Each candidate is computed by one thread, whoever computes it: sums over several threads have other last bits.

    Args:
        examiner: What is done with each.
        workers: How many processes share the work; 0 for this process alone.
    """
    if workers == 0:
        with threads(1):
            yield lambda networks: map(examiner.examine, networks)
        return
    # Fresh processes: copies of this one could hang on locks that its threads hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(examiner,))
    try:
        yield lambda networks: _told(pool.map(_examine, networks), workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _told(results: Iterator[Result], workers: int) -> Iterator[Result]:
    try:
        yield from results
    except BrokenProcessPool as error:
        raise UserError(
            "A process that scores networks has ended, perhaps because memory ran out: what is scored is kept, and the "
            f"same command goes on. Give fewer --workers than {workers}, or a smaller --batch-size in another --out. "
            "In a Python script, call search below `if __name__ == '__main__':`, because its processes import the "
            "script."
        ) from error


def _begin(examiner: Examiner) -> None:
    """Prepare a worker process."""
    # Ctrl-C reaches all processes of a terminal; the first one decides when the others stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is to be told about the networks was told when the first one was built.
    warnings.simplefilter("ignore", Notice)
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    _HERE[:] = [examiner]


def _follow_parent() -> None:
    """End this process when the first one is gone: one that was killed cannot say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _examine(network: NetworkSpec) -> Result:
    return _HERE[0].examine(network)
