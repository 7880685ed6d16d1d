"""Teachers that answer by chance, or otherwise than what is recorded, are told from rounding errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import tutelage
from tutelage.core.teachers import (
    BlackBoxTeacher,
    NoisyTeacher,
    ShuffledTeacher,
    Teacher,
    UniformTeacher,
    VirtualTeacher,
)
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.recording import layout, shards
from tutelage.recording.asking import Answers, asked, decision_of
from tutelage.recording.constancy import check_answers
from tutelage.training.settings import Training

SCHEMES = ["full", "hard", "smoothed", "top3", "top3-renormalized"]


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=100, augment="crop:1,flip")


class Network(nn.Module):
    """Its options are not in its weights."""

    def __init__(self, *, activation=nn.ReLU, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), activation(), nn.Linear(32, 10))
        self.scale = scale

    def forward(self, inputs):
        return self.layers(inputs) * 8 * self.scale


def record(folder, data, teacher, **options):
    settings = {"views": 1, "batch_size": 32, "device": "cpu", "precision": "32-true", "progress": False}
    return tutelage.record(teacher, data=data, out=folder, **settings | options)


def check(recording, data, teacher, *, precision="32-true"):
    found = asked(teacher, data)
    training = Training(device="cpu", precision=precision)
    answers = Answers(found.teacher, decision_of(found, data, training, views=1, begun_in=None))
    header = replace(recording.header, precision=precision)
    check_answers(recording.folder, header, data, answers, [(0, 0)])


@pytest.mark.parametrize("keep", SCHEMES)
@pytest.mark.parametrize("values", ["float32", "float16"])
def test_the_same_weights_under_other_options_are_told(keep, values, data, tmp_path):
    recording = record(tmp_path, data, Network(), keep=keep, values=values)
    check(recording, data, Network())
    check(recording, data, BlackBoxTeacher(Network()))
    with pytest.raises(UserError, match=r"answers to 16 views in view-0000/shard-0000.npy"):
        check(recording, data, Network(activation=nn.Tanh))


@pytest.mark.parametrize("keep", [keep for keep in SCHEMES if keep != "hard"])
def test_another_scale_is_told_wherever_probabilities_are_kept(keep, data, tmp_path):
    recording = record(tmp_path, data, Network(), keep=keep)
    with pytest.raises(UserError, match="holds the recording of another teacher"):
        check(recording, data, Network(scale=1.2))


def test_hard_answers_of_another_scale_are_the_same(data, tmp_path):
    check(record(tmp_path, data, Network(), keep="hard"), data, Network(scale=1.2))


@pytest.mark.parametrize("keep", SCHEMES)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_rounding_is_no_other_teacher(keep, precision, data, tmp_path):
    """Answers that carry the errors of a precision, or are in another batch, pass: exact ones on record, or rounded."""
    for written in ("32-true", precision):
        recording = record(tmp_path / written, data, Network(), keep=keep, precision=written, batch_size=7)
        check(recording, data, Network(), precision=precision)


@pytest.mark.parametrize("keep", SCHEMES)
def test_ties_may_fall_either_way(keep, data, tmp_path):
    class Tied(Teacher):
        def __init__(self, sign):
            super().__init__()
            self.sign = sign

        def forward(self, batch):
            order = torch.linspace(-1e-6, 1e-6, 10) * self.sign
            return tutelage.Output(logits=order.expand(len(batch), 10))

    recording = record(tmp_path, data, Tied(1), keep=keep)
    check(recording, data, Tied(-1))
    check(recording, data, UniformTeacher(10))


@pytest.mark.parametrize("keep", SCHEMES)
def test_sure_teachers_are_compared_by_the_rest_too(keep, data, tmp_path):
    recording = record(tmp_path, data, VirtualTeacher(10, confidence=1.0), keep=keep)
    check(recording, data, VirtualTeacher(10, confidence=1.0))
    recording = record(tmp_path / "99", data, VirtualTeacher(10, confidence=0.99), keep=keep)
    if keep != "hard":
        with pytest.raises(UserError, match="holds the recording of another teacher"):
            check(recording, data, VirtualTeacher(10, confidence=0.9))


@pytest.mark.parametrize("std", [0.001, 0.1, 1.0])
def test_chance_is_told(std, data, tmp_path):
    recording = record(tmp_path, data, Network())
    for teacher in (NoisyTeacher(BlackBoxTeacher(Network()), std=std), ShuffledTeacher(BlackBoxTeacher(Network()))):
        with pytest.raises(UserError, match=r"different answers to the same question, .* without its noise"):
            check(recording, data, teacher)


def test_chance_of_half_precision_is_told(data, tmp_path):
    recording = record(tmp_path, data, Network(), precision="bf16-mixed")
    check(recording, data, Network(), precision="bf16-mixed")
    with pytest.raises(UserError, match="to the same question"):
        check(recording, data, NoisyTeacher(BlackBoxTeacher(Network()), std=0.02), precision="bf16-mixed")


def test_one_row_in_sixteen_is_enough(data, tmp_path):
    recording = record(tmp_path, data, Network())
    path = layout.shard_path(tmp_path, 0, 0)
    rows = np.load(path)
    rows["logits"][0] = rows["logits"][0, ::-1].copy()
    with shards.writing(tmp_path, recording.header, 0, 0) as written:
        written[:] = rows
    with pytest.raises(UserError, match="holds the recording of another teacher"):
        check(recording, data, Network())


def test_nothing_is_compared_where_nothing_is_complete(data, tmp_path):
    recording = record(tmp_path, data, Network())
    found = asked(Network(activation=nn.Tanh), data)
    answers = Answers(found.teacher, decision_of(found, data, Training(device="cpu"), views=1, begun_in=None))
    with pytest.raises(UserError, match="holds the recording of another teacher"):
        check_answers(tmp_path, recording.header, data, answers, [])
    layout.checksum_path(layout.shard_path(tmp_path, 0, 0)).unlink()
    check_answers(tmp_path, recording.header, data, answers, [])
