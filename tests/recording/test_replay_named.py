"""A recording is opened by its name, held against data and teacher as they are now, and described."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

import tutelage
from tutelage.core.teachers import NoisyTeacher, UniformTeacher
from tutelage.core.teachers.naming import named_teacher
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.experiments.assembly import experiment_of
from tutelage.experiments.choice import parse_choice
from tutelage.experiments.comparison import Comparison
from tutelage.models.loading import load_network
from tutelage.models.saving import save_network
from tutelage.recording.naming import opened
from tutelage.recording.replay import name_of
from tutelage.recording.teacher import RecordedTeacher
from tutelage.system.console import Silent
from tutelage.testing.toys import toy_data
from tutelage.training.settings import Training

SAMPLES = 90
NET = "from torch.nn import *\n\ndef net(num_classes):\n    return Sequential(Flatten(), Linear(64, num_classes))\n"
TRAINING = Training(epochs=1, batch_size=16, lr=0.1, device="cpu", precision="32-true")


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=100)


def write(teacher, data, folder, **options):
    return tutelage.record(teacher, data=data, out=folder, progress=False, device="cpu", batch_size=10, **options)


@pytest.fixture(scope="module")
def taught(data, tmp_path_factory):
    """A teacher in a folder, and a recording of it."""
    folder = tmp_path_factory.mktemp("taught")
    save(folder / "teacher", data, seed=0)
    write(str(folder / "teacher"), data, folder / "recording", views=2, keep="top5")
    return folder


def settled(source, data):
    """Return what the data become with the teacher of a recording, and what the user is told."""
    return named_teacher(source, data).answers.settle(data)


def save(folder, data, *, seed, mean=0.5):
    torch.manual_seed(seed)
    network = load_network(f"tiny_cnn,width=3,normalize={mean}:0.5", num_classes=10, in_channels=1)
    save_network(folder, network, spec="tiny_cnn,width=3", num_classes=10, in_channels=1)


def test_it_is_named_with_and_without_its_number_of_views(taught, data):
    place = taught / "recording"
    assert opened(f"recording:{place}").views == 2
    assert opened(f"recording:{place},views=1").views == 1
    for text, message in {
        "recording:": "names no folder",
        f"recording:{place},view=1": "no option of a recording named 'view'",
        f"recording:{place},views=some": "takes views as a whole number of 1 or more, not 'some'",
        f"recording:{place},views=0": "takes views as a whole number of 1 or more, not 0",
        f"recording:{place},2": "'2' in the recording .* is not an option",
        f"recording:{place},views=3": "has 2 views that can be replayed",
        f"recording:{place}s": "There is no recording in",
    }.items():
        with pytest.raises(UserError, match=message):
            opened(text)
    with pytest.raises(UserError, match=f"not a network: write recording:{place}"):
        named_teacher(str(place), data)
    assert named_teacher("resnet20", data).answers is None
    assert named_teacher(None, data).answers is None
    assert named_teacher(UniformTeacher(10), data).answers.replays() is None
    assert name_of(opened(f"recording:{place}")) == f"recording: {taught / 'teacher'} (top5, 2 views)"


def test_it_is_known_by_its_name_itself_and_whoever_replays_it(taught, data):
    name = f"recording:{taught / 'recording'}"
    teacher = RecordedTeacher(opened(name))
    for source in (name, opened(name), teacher, NoisyTeacher(teacher, std=0.1)):
        assert named_teacher(source, data).answers.replays().fingerprint == teacher.recording.fingerprint


def test_a_recording_teaches_alone(taught, data):
    name = f"recording:{taught / 'recording'}"
    for teachers in ([name, name], [name, "tiny_cnn"], [UniformTeacher(10), opened(name)]):
        with pytest.raises(UserError, match="A recording cannot be combined"):
            experiment_of("tiny_cnn", teachers, data)
    assert experiment_of("tiny_cnn", [name], data).answers.recording.views == 2


def test_the_augmentation_is_the_recorded_one_unless_another_was_asked_for(taught):
    name = f"recording:{taught / 'recording'}"
    usual = load_data("digits", subset=100)
    assert settled(name, usual)[1] == ()
    default = replace(usual, augmentation=load_data("digits", subset=100, augment="crop:2,flip").augmentation)
    given_way, notes = settled(name, default)
    assert notes == ("Training images are augmented by crop:1, as recorded, instead of crop:2,flip.",)
    assert str(given_way.augmentation) == "crop:1"
    with pytest.raises(UserError, match=r"another augmentation \(crop:1 there, crop:2 here\)"):
        settled(name, load_data("digits", subset=100, augment="crop:2"))
    assert settled(name, load_data("digits", subset=100, augment="crop:1"))[1] == ()


def test_other_data_are_refused_with_the_reason(taught):
    name = f"recording:{taught / 'recording'}"
    with pytest.raises(UserError, match=r"data:\n  another number of training samples \(90 there, 60 here\)"):
        settled(name, load_data("digits", subset=75, validation=0.2))
    with pytest.raises(UserError, match="the training samples are others"):
        settled(name, load_data("digits", subset=100, split_seed=1))
    with pytest.raises(UserError, match="another dataset .digits there, toy here"):
        settled(name, toy_data())


def test_a_teacher_that_changed_is_refused_with_the_reason(taught, data):
    name, home = f"recording:{taught / 'recording'}", taught / "teacher"
    kept = shutil.copytree(home, taught / "kept")
    try:
        save(home, data, seed=1)
        with pytest.raises(UserError, match="other weights of the teacher"):
            settled(name, data)
        save(home, data, seed=0, mean=0.25)
        with pytest.raises(UserError, match=r"another normalisation of .* \(0.5:0.5 there, 0.25:0.5 here\)"):
            settled(name, data)
        shutil.rmtree(home)
        # Gone: there is nothing to compare with.
        assert settled(name, data) is not None
    finally:
        shutil.rmtree(home, ignore_errors=True)
        shutil.move(kept, home)
    assert settled(name, data) is not None


def test_a_teacher_that_is_there_and_cannot_be_loaded_is_not_checked(taught, data, tmp_path):
    name = f"recording:{taught / 'recording'}"
    for part in (taught / "teacher").iterdir():
        part.rename(tmp_path / part.name)
        try:
            assert [note.partition(": ")[0] for note in settled(name, data)[1]] == [
                f"It was not checked whether {taught / 'teacher'} has changed since"
            ]
        finally:
            (tmp_path / part.name).rename(part)
    (tmp_path / "nets.py").write_text(NET)
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict(), tmp_path / "own.pt")
    own = write(f"{tmp_path}/nets.py:net@{tmp_path}/own.pt", data, tmp_path / "recording", views=1)
    assert settled(own, data)[1] == ()
    for code in ("import nothing_of_this_name", None):
        (tmp_path / "nets.py").unlink() if code is None else (tmp_path / "nets.py").write_text(code)
        assert "cannot be loaded" in settled(own, data)[1][0]


def test_a_teacher_is_looked_for_where_it_was_and_nowhere_else(data, tmp_path, monkeypatch):
    for project, seed in (("one", 0), ("two", 1)):
        save(tmp_path / project / "runs/teacher", data, seed=seed)
    monkeypatch.chdir(tmp_path / "one")
    write("runs/teacher", data, "recording", views=1)
    assert name_of(opened("recording:recording")) == "recording: runs/teacher (full, 1 view)"
    monkeypatch.chdir(tmp_path / "two")
    name = f"recording:{tmp_path / 'one/recording'}"
    assert settled(name, data)[1] == ()
    save(tmp_path / "one/runs/teacher", data, seed=1)
    with pytest.raises(UserError, match="other weights of the teacher"):
        settled(name, data)


class Told(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text, *, once=False):
        self.notes.append(text)


def comparison(folder, experiment, rows=("supervised", "kd")):
    choices = [parse_choice(row) for row in rows]
    return Comparison(
        choices=choices,
        experiment=experiment,
        training=TRAINING,
        teacher_training=TRAINING,
        seeds=[0],
        folder=folder,
        baseline=rows[0],
    )


def test_a_comparison_says_what_is_replayed_and_goes_on(taught, data, tmp_path):
    default = replace(data, augmentation=load_data("digits", subset=100, augment="flip").augmentation)
    experiment = experiment_of("tiny_cnn,width=3", f"recording:{taught / 'recording'}", default)
    told = Told()
    content = comparison(tmp_path, experiment).run(told)
    assert told.notes[0].startswith("Training images are augmented by crop:1, as recorded")
    assert content["teacher"]["spec"] == f"recording: {taught / 'teacher'} (top5, 2 views)"
    assert content["teacher"]["recorded_views"] == SAMPLES
    network = load_network(str(taught / "teacher"), num_classes=10, in_channels=1).eval()
    right = network(first_views(experiment.answers.recording, data)).argmax(1) == data.train.targets
    assert content["teacher"]["recorded_accuracy"] == pytest.approx(right.double().mean().item())
    finished = {row["label"]: row["runs"][0]["folder"] for row in content["rows"]}
    again = comparison(tmp_path, experiment).run()
    assert again["rows"][1]["runs"][0] == content["rows"][1]["runs"][0]
    # Another recording is another row, and the plain student the same.
    other = write(str(taught / "teacher"), data, tmp_path / "other", views=2, keep="top5", seed=1)
    rows = comparison(tmp_path, experiment_of("tiny_cnn,width=3", other, data)).run()["rows"]
    folders = {row["label"]: row["runs"][0]["folder"] for row in rows}
    assert folders["supervised"] == finished["supervised"]
    assert folders["kd"] != finished["kd"]


def first_views(recording, data):
    """Return the first recorded view of each sample."""
    order = torch.arange(SAMPLES)
    parameters, _ = recording.read(order, torch.zeros_like(order))
    return recording.augmentation.apply(data.train.images[order], parameters) / 255
