"""Who learns from a recording sees the pixels that the teacher saw, and is refused whatever was not recorded."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import tutelage
from tutelage.core.teachers import NoisyTeacher, Teacher
from tutelage.core.teachers.naming import named_teacher
from tutelage.data.batch import Output
from tutelage.data.label_noise import with_wrong_labels
from tutelage.data.plan import RecordedViews
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.experiments.assembly import experiment_of
from tutelage.experiments.choice import parse_choice
from tutelage.methods.kd import KD
from tutelage.recording import layout, replay
from tutelage.recording.naming import opened
from tutelage.recording.replay import name_of, sampled_answers
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import Recorder, toy_data, toy_experiment, toy_recording, toy_teacher
from tutelage.training.driver import Driver
from tutelage.training.run import Run
from tutelage.training.settings import Training

VIEWS, SAMPLES = 3, 90
TRAINING = Training(epochs=4, batch_size=16, lr=0.1, device="cpu", precision="32-true")


class Spy(Teacher):
    """Keeps what it is asked, and answers in a way that no order of summation changes."""

    def __init__(self):
        super().__init__()
        weight = torch.randint(-8, 9, (64, 10), generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight.double())
        self.asked = []

    def forward(self, batch):
        self.asked.append(batch.inputs.clone())
        return Output(logits=((batch.inputs.flatten(1).double() * 255).round() @ self.weight / 1024).float())


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=100)


def write(teacher, data, folder, **options):
    return tutelage.record(teacher, data=data, out=folder, progress=False, device="cpu", batch_size=10, **options)


@pytest.fixture(scope="module")
def spied(data, tmp_path_factory):
    """A recording in several shards, and the pixels that the recorder saw: `[view, sample, ...]`."""
    spy = Spy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "rows_per_shard", lambda row_bytes: 25)
        recording = write(spy, data, tmp_path_factory.mktemp("spied"), views=VIEWS)
    assert recording.header.shards == 4
    # Beforehand it is asked about two samples, and twice about sixteen.
    seen = torch.cat([inputs for inputs in spy.asked if len(inputs) not in (2, 16)])
    return SimpleNamespace(recording=recording, seen=seen.view(VIEWS, SAMPLES, 1, 8, 8))


def test_each_sample_gets_its_own_answer_for_the_very_pixels_that_were_recorded(data, spied):
    teacher, found = Spy(), torch.zeros(SAMPLES, VIEWS, dtype=torch.int64)
    loader, _ = RecordedTeacher(spied.recording).settle(data)
    loader = replace(loader, recording=spied.recording).loader("train", train=True, batch_size=16, seed=4)
    orders = []
    for epoch in range(VIEWS):
        orders.append([])
        for batch in loader.epoch(epoch):
            orders[-1] += batch.indices.tolist()
            assert torch.equal(batch.teacher.logits, teacher(batch).logits)
            for inputs, index in zip(batch.inputs, batch.indices.tolist(), strict=True):
                views = [view for view in range(VIEWS) if torch.equal(spied.seen[view, index], inputs)]
                assert views, "the student sees what the recorder did not"
                found[index, views[0]] += 1
    assert orders[0] != orders[1] != sorted(orders[1])
    # Some views of digits, shifted by a pixel at most, are alike.
    assert (found.sum(1) == VIEWS).all()
    assert (found == 1).all(1).sum() > SAMPLES / 2


def test_a_live_and_a_recorded_run_on_the_same_views_end_with_the_same_weights(data, spied):
    def train(teacher, recording):
        torch.manual_seed(0)
        student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        Driver(TRAINING, seed=3).fit(KD(student, teacher), replace(data, recording=recording))
        return student[1].weight

    recorded = train(RecordedTeacher(spied.recording), spied.recording)
    assert torch.equal(recorded, train(Spy(), spied.recording))
    assert not torch.equal(recorded, train(Spy(), None)), "freshly drawn views are others"

    class Misaligned(RecordedViews):
        views, augmentation, fingerprint = spied.recording.views, spied.recording.augmentation, "other"

        def read(self, indices, views):
            parameters, _ = spied.recording.read(indices, views)
            return parameters, spied.recording.read((indices + 1) % SAMPLES, views)[1]

    assert not torch.equal(recorded, train(RecordedTeacher(), Misaligned())), "and so are answers of others"


def test_processes_share_the_rows_of_a_batch(data, spied):
    whole = replace(data, recording=spied.recording)

    def batches(rank, world_size):
        return whole.loader("train", train=True, batch_size=16, seed=1, rank=rank, world_size=world_size).epoch(1)

    # One process keeps the last batch, which is smaller.
    for one, first, second in zip(batches(0, 1), batches(0, 2), batches(1, 2), strict=False):
        for part, mine in ((first, slice(0, None, 2)), (second, slice(1, None, 2))):
            assert torch.equal(part.indices, one.indices[mine])
            assert torch.equal(part.inputs, one.inputs[mine])
            assert torch.equal(part.teacher.logits, one.teacher.logits[mine])


def test_methods_that_ask_for_the_teacher_train_on_recorded_views_and_others_do_not(data, spied):
    experiment = experiment_of("tiny_cnn,width=3", spied.recording, data)
    for row, replays in {
        "supervised": False,
        "tf-kd-self": False,
        "kd": True,
        "kd-shuffled-teacher": True,
        "messy-collaboration:method=kd": True,
        "messy-collaboration:method=supervised": False,
        "soft-randomization:method=kd": True,
    }.items():
        run = Recorder()
        experiment.execute(parse_choice(row), run)
        for trained_on in run.data.values():
            assert (trained_on.recording is spied.recording) == replays, row
    noisy = experiment_of("tiny_cnn,width=3", NoisyTeacher(RecordedTeacher(spied.recording), std=0.1), data)
    run = Recorder()
    noisy.execute(parse_choice("kd"), run)
    assert run.data["distill"].recording is spied.recording


def test_a_network_that_is_to_be_trained_is_not_in_a_recording(data, spied):
    experiment = experiment_of("tiny_cnn,width=3", spied.recording, data)
    for row in ("de-kd", "re-kd", "supervised-teacher"):
        with pytest.raises(UserError, match="trains the teacher's network itself"):
            experiment.execute(parse_choice(row), Recorder())


def test_other_samples_are_refused_wherever_they_come_from(data, spied, tmp_path):
    recorded = replace(data, recording=spied.recording)
    run = Run(tmp_path, TRAINING)

    def trained_on(found, method=None):
        student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        return run.fit("distill", method or KD(student, RecordedTeacher(spied.recording)), found)

    order = np.arange(SAMPLES)
    for others in (data.train.select(order[::-1].copy()), data.train.select(order[:50])):
        with pytest.raises(UserError, match="not those of the recording"):
            trained_on(recorded.with_splits(train=others))

    class Elsewhere(KD):
        def transfer_set(self, dataset):
            return tutelage.TransferSet(dataset.select(order))

    method = Elsewhere(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), RecordedTeacher(spied.recording))
    with pytest.raises(UserError, match="samples that it puts together itself"):
        trained_on(recorded, method)
    # Other labels leave the samples where they are.
    spied.recording.check(with_wrong_labels(recorded, 0.5, seed=0))


def test_other_validation_and_test_images_are_no_other_data(data, spied):
    others = replace(data.with_splits(validation=None, test=data.train.select(range(5))), fingerprint="other")
    assert RecordedTeacher(spied.recording).settle(others) == (others, ())


def test_a_run_goes_on_only_with_the_recording_that_it_was_begun_with(data, spied, tmp_path):
    folder = shutil.copytree(spied.recording.folder, tmp_path / "recording")
    short = replace(TRAINING, epochs=1)

    def fit(recording):
        torch.manual_seed(0)
        student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        method = KD(student, RecordedTeacher(recording))
        return Run(tmp_path / "run", short).fit("distill", method, replace(data, recording=recording))

    fit(opened(f"recording:{folder},views=2"))
    fit(opened(f"recording:{folder},views=2"))
    with pytest.raises(
        UserError, match=f"2 views .* with 3, because it has grown .*: write --teacher recording:{folder},views=2"
    ):
        fit(opened(f"recording:{folder}"))
    with pytest.raises(UserError, match="would continue with 1: write"):
        fit(opened(f"recording:{folder},views=1"))
    other = write(Spy(), data, tmp_path / "other", views=2, seed=1)
    with pytest.raises(UserError, match="recording.fingerprint: .* then"):
        fit(other)


def test_what_would_take_long_to_read_is_not_read(data, spied, monkeypatch):
    answers, labels = sampled_answers(spied.recording, data, most=20)
    assert len(answers) == len(labels) == 20
    monkeypatch.setattr(replay, "_CHEAP_BYTES", 1)
    assert sampled_answers(spied.recording, data) is None


def test_views_of_any_kind_may_stand_for_a_recording(data, spied):
    class Views(RecordedViews):
        views, augmentation, fingerprint = 1, spied.recording.augmentation, "own"
        read = spied.recording.read

    found = named_teacher(Views(), data).answers
    assert isinstance(found, RecordedTeacher)
    assert name_of(found.replays()) == "recording (1 view)"
    assert found.settle(data) == (data, ())


def test_the_toy_recording_belongs_to_the_toy_teacher():
    recording = toy_recording("full")
    assert RecordedTeacher(recording).settle(toy_data())[1] == ()
    other = toy_experiment().answers
    batch = next(iter(replace(toy_data(), recording=recording).loader("train", train=True, batch_size=8).epoch(0)))
    assert torch.allclose(toy_teacher()(batch).logits, batch.teacher.logits, atol=1e-6)
    assert not torch.allclose(other(batch).logits, batch.teacher.logits, atol=1e-3)
