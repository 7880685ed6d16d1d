"""Memory stays flat: after 300 steps a training holds what it held after 100.

What Python sees are tensors; what a graph keeps for its backward pass is seen only by the allocator.
"""

import ctypes
import gc
from dataclasses import replace

import pytest
import torch

from tutelage.experiments import catalogue
from tutelage.methods.kd import KD
from tutelage.methods.supervised import Supervised
from tutelage.recording.teacher import RecordedTeacher
from tutelage.system.console import Silent
from tutelage.system.devices import threads
from tutelage.testing.toys import BATCH, SAMPLES, TRAINING, ToyNetwork, toy_data, toy_recording, toy_teacher
from tutelage.testing.trials import fresh_methods
from tutelage.training.driver import Driver

STEPS_OF_AN_EPOCH = SAMPLES // BATCH
FIRST, LAST = 100, 300
# The losses' history of the epochs between takes some; a leaked scalar a step would take more.
ALLOWANCE = 32 * 1024


class Mallinfo(ctypes.Structure):
    """What glibc says of its heap."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "k")
    ]


def allocated():
    """Return the bytes that are allocated and not freed, Python's small objects aside; 0 where nobody knows."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return 0
    ask.restype = Mallinfo
    found = ask()
    return found.uordblks + found.hblkhd


class Census(Silent):
    """Counts tensors and bytes after the first and the last of some steps."""

    def __init__(self):
        self.steps, self.tensors, self.bytes = 0, [], []

    def advance(self, steps):
        self.steps += steps
        if self.steps in (FIRST, LAST):
            gc.collect()
            self.tensors.append(sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()))
            self.bytes.append(allocated())

    @property
    def growth(self):
        return self.tensors[1] - self.tensors[0], self.bytes[1] - self.bytes[0]


def grown(method, recording=None, **settings):
    """Return by how many tensors and bytes a training grows."""
    census, data = Census(), replace(toy_data().with_splits(validation=None), recording=recording)
    training = replace(TRAINING, epochs=LAST // STEPS_OF_AN_EPOCH, log_every=FIRST, **settings)
    with threads(1):
        Driver(training, reporter=census).fit(method, data)
    return census.growth


def is_flat(name):
    for stage, method in fresh_methods(catalogue.get(name)).items():
        tensors, size = grown(method)
        assert tensors <= 0, f"{stage}: {tensors} tensors more"
        assert size < ALLOWANCE, f"{stage}: {size} bytes more"


@pytest.mark.parametrize("name", ["supervised", "kd", "crd", "dml"])
def test_memory_is_flat(name):
    is_flat(name)


def test_memory_is_flat_where_a_recording_is_replayed():
    recording = toy_recording("top2")
    tensors, size = grown(KD(ToyNetwork(), RecordedTeacher(recording)), recording)
    assert tensors <= 0
    assert size < ALLOWANCE


def test_memory_is_flat_where_networks_are_compiled():
    tensors, size = grown(KD(ToyNetwork(), toy_teacher()), compile="on")
    assert tensors <= 0
    assert size < ALLOWANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue.names())
def test_memory_of_every_method_is_flat(name):
    is_flat(name)


class Hoarding(Supervised):
    """Keeps the losses that it has seen."""

    def losses(self, batch):
        found = super().losses(batch)
        self.__dict__.setdefault("seen", []).extend(loss.detach() for loss in found.values())
        return found


class Summing(Supervised):
    """Adds up its losses, and with them the graphs of all steps."""

    sum = 0.0

    def losses(self, batch):
        found = super().losses(batch)
        self.__dict__["sum"] = self.sum + sum(found.values())
        return found


def test_a_leak_is_found():
    tensors, _ = grown(Hoarding(ToyNetwork()))
    assert tensors >= LAST - FIRST
    if allocated():
        tensors, size = grown(Summing(ToyNetwork()))
        assert tensors < LAST - FIRST, "Python does not see them"
        assert size > 10 * ALLOWANCE
