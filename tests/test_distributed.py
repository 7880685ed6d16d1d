"""Two processes train as one does: the same batches, the same gradients, the same weights."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.evaluation.scores import measure_network
from tutelage.methods.afd import AFD
from tutelage.methods.byot import BYOT
from tutelage.methods.cs_kd import CSKD
from tutelage.methods.dml import DML
from tutelage.methods.end import EnD
from tutelage.methods.endd import EnDD
from tutelage.methods.ferkd import FerKD
from tutelage.methods.fkd import FKD
from tutelage.methods.kd import KD
from tutelage.methods.msd import MSD
from tutelage.methods.supervised import Supervised
from tutelage.methods.tf_kd_reg import TfKDReg
from tutelage.methods.vid import VID
from tutelage.models.loading import load_network
from tutelage.recording.teacher import RecordedTeacher
from tutelage.recording.writing import record
from tutelage.training.driver import Driver
from tutelage.training.run import Run
from tutelage.training.settings import Training


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def convolutional(seed, width):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, width, 3, 2, 1), nn.Tanh(), nn.Conv2d(width, width, 3, 2, 1), nn.Tanh(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * width, 10))


def method_of(name):
    if name == "kd":
        return KD(network(1), FrozenTeacher(network(2)), temperature=2.0)
    if name == "recorded":
        return KD(network(1), RecordedTeacher(), temperature=2.0)
    if name == "vid":
        # It reads layers of both, and has adapters with parameters of their own.
        teacher = FrozenTeacher(convolutional(2, 6))
        return VID(convolutional(1, 4), teacher, torch.randn(2, 1, 8, 8), layers="1:1+3:3")
    if name in ("simultaneous", "sequential"):
        # Several networks, each with an optimizer of its own.
        networks = [network(1), convolutional(2, 4), network(3)]
        return DML(networks, update=name, lr_scales=[1, 0.5, 1])
    if name in ("end", "endd"):
        teacher = EnsembleTeacher([FrozenTeacher(network(seed)) for seed in (2, 3)])
        return EnD(network(1), teacher) if name == "end" else EnDD(network(1), teacher)
    if name == "cs-kd":
        # Anchors and partners, of which each process must get its own.
        return CSKD(network(1), batch_size=32)
    if name == "fkd":
        # Crops of one image, which no process must get alone.
        return FKD(network(1), FrozenTeacher(network(2)), 32, 2)
    if name == "ferkd":
        # Of each process's crops another share is kept.
        thresholds = {"discard_below": 0.07, "soft_from": 0.1, "discard_above": 0.14}
        return FerKD(network(1), FrozenTeacher(network(2)), 32, 2, cutmix=0.0, **thresholds)
    if name in ("byot", "msd", "afd"):
        return normless(with_parts(name))
    return TfKDReg(network(1), 10)


def with_parts(name):
    """Return a method whose exits or discriminators are trained beside the networks."""
    torch.manual_seed(4)
    example = torch.randn(2, 1, 8, 8)
    if name == "afd":
        return AFD([convolutional(1, 4), convolutional(2, 6)], example, feature_lr=1e-3)
    return (BYOT if name == "byot" else MSD)(convolutional(1, 4), example, exits="1")


def normless(method):
    """Return a method without batch norm, which in each process normalises by that process's samples."""
    for name, module in list(method.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            method.set_submodule(name, nn.Identity())
    return method


METHODS = (
    "kd",
    "recorded",
    "tf-kd-reg",
    "vid",
    "simultaneous",
    "sequential",
    "end",
    "endd",
    "cs-kd",
    "fkd",
    "ferkd",
    "byot",
    "msd",
    "afd",
)


def train(name, devices):
    # 96 samples in batches of 32: no smaller last batch, which several processes leave out.
    data = load_data("digits", subset=96, validation=0, augment="rotate:10")
    training = Training(
        epochs=2, batch_size=32, lr=0.1, device="cpu", devices=devices, precision="32-true", channels_last="off"
    )
    method = method_of(name)
    with tempfile.TemporaryDirectory() as folder:
        if name == "recorded":
            recording = record(network(2), data=data, out=folder, views=2, device="cpu", progress=False)
            data = replace(data, recording=recording)
        state = Driver(training, seed=5).fit(method, data)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    return [parameter.detach().clone() for parameter in trained], state.samples


def run(folder):
    """Train a network with batch norm as a stage; return its state and what the stage measured."""
    data = load_data("digits", subset=160, validation=0.2)
    training = Training(epochs=3, batch_size=32, device="cpu", devices=2)
    stages = Run(Path(folder) / "run", training)
    trained = stages.fit("stage", Supervised(load_network("tiny_cnn,width=3", num_classes=10, in_channels=1)), data)
    return trained.state_dict(), stages.fitted[-1].scores


class Numbers:
    """Images of digits, and a number to predict of each."""

    def __init__(self, count=120):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 1, 8, 8, generator=generator)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], float(self.images[index].mean())


def predict_numbers(folder):
    """Train on numbers, whose meter would wait for the other processes if it were asked to; return the scores."""
    data = as_data(Numbers(), task="regression", validation=Numbers(90))
    training = Training(epochs=1, batch_size=32, device="cpu", devices=2)
    stages = Run(Path(folder) / "numbers", training)
    torch.manual_seed(0)
    stages.fit("stage", Supervised(nn.Sequential(nn.Flatten(), nn.Linear(64, 1))), data)
    return stages.fitted[-1].scores


def work(rank, port, folder):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    torch.set_num_threads(1)
    found = {name: train(name, devices=2) for name in METHODS}
    torch.save(found | {"run": run(folder), "numbers": predict_numbers(folder)}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("two")
    mp.start_processes(work, args=(port, str(folder)), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_end_with_the_weights_of_one(name, two):
    alone, samples = train(name, devices=1)
    for (weights, seen), other in zip((rank[name] for rank in two), (two[1][name], two[0][name]), strict=True):
        assert seen == samples
        for mine, theirs, single in zip(weights, other[0], alone, strict=True):
            assert torch.equal(mine, theirs)
            assert torch.allclose(mine, single, rtol=0, atol=1e-6)


def test_training_moved_the_weights(two):
    assert not torch.allclose(two[0]["kd"][0][0], next(method_of("kd").student.parameters()), atol=1e-3)


def test_a_stage_leaves_one_network_to_all(two):
    """Batch-norm statistics, the choice of the best epoch and the files are one process's, and everybody's."""
    (state, scores), (other_state, other_scores) = (found["run"] for found in two)
    assert scores == other_scores
    assert any("running_mean" in key for key in state)
    for key, value in state.items():
        assert torch.equal(value, other_state[key]), key


def test_scores_are_those_of_one_process(two):
    """Each process measures a part of the validation samples; together they are the whole split in its order."""
    state, scores = two[0]["run"]
    network = load_network("tiny_cnn,width=3", num_classes=10, in_channels=1)
    network.load_state_dict(state)
    data = load_data("digits", subset=160, validation=0.2)
    for split in ("validation", "test"):
        alone = measure_network(network, data, split, device="cpu").compute()
        for metric in ("accuracy", "nll"):
            # The network was trained with another layout in memory, which changes the last digits.
            assert scores["best"][f"{split}_{metric}"] == pytest.approx(alone[metric], rel=1e-6)


def test_numbers_are_measured_by_all_processes_too(two):
    first, second = (found["numbers"] for found in two)
    assert first == second
    assert first["best"]["validation_mae"] > 0
