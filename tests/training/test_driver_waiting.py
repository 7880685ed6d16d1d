"""No step waits for the device: what is computed there stays there until the losses are read, every n steps."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.experiments import catalogue
from tutelage.methods.kd import KD
from tutelage.methods.supervised import Supervised
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import TRAINING, ToyNetwork, toy_data, toy_recording
from tutelage.testing.trials import fresh_methods
from tutelage.training import driver
from tutelage.training.driver import Driver

# What brings a number from the device to Python, or makes a shape that depends on numbers.
WAITING = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::masked_select"}
DATA = toy_data().with_splits(validation=None)
ONE_EPOCH = replace(TRAINING, epochs=1, log_every=1000)


class Listening(TorchDispatchMode):
    """Notes what waits."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in WAITING:
            self.heard.append(func._schema.name)
        return func(*args, **(kwargs or {}))


class Waiting(Supervised):
    """Reads a number in its step."""

    def losses(self, batch):
        found = super().losses(batch)
        assert found["ce"].item() > 0
        return found


@pytest.fixture
def around_each_step(monkeypatch):
    """Return a function that has another called before and after each step of a training."""

    def set_up(act):
        step = driver._Fit._step

        def watched(fit, batch):
            act(fit)
            step(fit, batch)
            act(fit)

        monkeypatch.setattr(driver._Fit, "_step", watched)

    return set_up


def waits(method, around_each_step, data=DATA):
    """Return what waited from the first step's beginning to the last one's end, the reading of batches included."""
    listening, counts = Listening(), []
    around_each_step(lambda fit: counts.append(len(listening.heard)))
    with listening:
        state = Driver(ONE_EPOCH).fit(method, data)
    assert len(counts) == 2 * state.steps > 2
    return listening.heard[counts[0] : counts[-1]]


@pytest.mark.parametrize("name", ["supervised", "kd"])
def test_nothing_waits_between_two_readings_of_the_losses(name, around_each_step):
    (method,) = fresh_methods(catalogue.get(name)).values()
    assert waits(method, around_each_step) == []


@pytest.mark.parametrize("keep", ["full", "top2", "hard"])
def test_nothing_waits_where_a_recording_is_replayed(keep, around_each_step):
    recording = toy_recording(keep)
    method = KD(ToyNetwork(), RecordedTeacher(recording))
    assert waits(method, around_each_step, replace(DATA, recording=recording)) == []


def test_who_waits_is_heard(around_each_step):
    assert waits(Waiting(ToyNetwork()), around_each_step) == ["aten::_local_scalar_dense"] * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("name", ["supervised", "kd"])
def test_no_step_waits_for_the_accelerator(name, around_each_step):
    (method,) = fresh_methods(catalogue.get(name)).values()

    def forbid(fit):
        # In the first epoch libraries choose and load their kernels; at an epoch's end the losses are read.
        inside = fit.state.epoch > 0 and fit.state.batch < len(fit.loader)
        torch.cuda.set_sync_debug_mode("error" if inside else "default")

    around_each_step(forbid)
    try:
        Driver(replace(ONE_EPOCH, device="cuda", epochs=2)).fit(method, DATA)
    finally:
        torch.cuda.set_sync_debug_mode("default")
