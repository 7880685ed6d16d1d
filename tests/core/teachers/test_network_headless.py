"""A teacher without a classifier, or with other classes, teaches whatever reads only its layers: live and recorded."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import tutelage
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.experiments.assembly import experiment_of
from tutelage.experiments.choice import parse_choice
from tutelage.models.saving import save_network
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import Recorder, toy_transformer

QUICK = {"epochs": 1, "batch_size": 32, "precision": "32-true", "progress": False, "device": "cpu"}
READ_LAYERS = ["fitnet", "at", "sp", "vid", "semckd:alpha=0", "features", "quest:clusters=4"]
READ_ANSWERS = ["kd", "semckd", "fitnet:variant=paper", "dkd", "mlld", "kd-shuffled-teacher"]


class Backbone(nn.Module):
    """Two stages, as many channels as the student's, and their mean."""

    def __init__(self, channels=(8, 12)):
        super().__init__()
        torch.manual_seed(0)
        self.layer1 = nn.Sequential(nn.Conv2d(1, channels[0], 3, padding=1), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(channels[0], channels[1], 3, 2, 1), nn.ReLU())

    def forward(self, inputs):
        return self.layer2(self.layer1(inputs)).mean((2, 3))


class Answered:
    """What a backbone of transformers returns: no logits."""

    def __init__(self, hidden):
        self.last_hidden_state, self.pooler_output = hidden, hidden[:, 0]


class Hidden(nn.Module):
    """A backbone that returns an object with the hidden states of its last layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(1, 16, 2, 2)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(2))

    def forward(self, inputs):
        tokens = self.patches(inputs).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return Answered(tokens)


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=150)


def student():
    torch.manual_seed(1)
    return tutelage.load_network("tiny_cnn,width=4", num_classes=10, in_channels=1).model


@pytest.mark.parametrize("row", READ_LAYERS)
@pytest.mark.parametrize("wrap", [lambda network: network, FrozenTeacher], ids=["network", "teacher"])
def test_what_reads_layers_alone_is_taught(row, wrap, data):
    experiment, run = experiment_of(student(), wrap(Backbone()), data), Recorder()
    if experiment.answers is None:
        experiment = replace(experiment, answers=experiment.train_teacher(run))
    experiment.execute(parse_choice(row), run)
    batch = next(iter(data.loader("train", train=True, batch_size=run.training.batch_size).epoch(0)))
    losses = run.methods["distill"].losses(batch)
    assert len(losses) > 1
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("row", READ_ANSWERS)
def test_what_reads_answers_is_refused_with_the_ways_out(row, data, tmp_path):
    own = {"student": student(), "data": data, "teacher": Backbone(), "out": tmp_path}
    with pytest.raises(UserError, match=r"\(2, 12\), but digits has 10 classes.*--teacher-classes.*such as features"):
        method, _, options = row.partition(":")
        settings = dict(part.split("=") for part in options.split(",") if part)
        tutelage.distill(method, **own, **settings, **QUICK)
    assert not list(tmp_path.rglob("student.safetensors"))


def test_a_whole_run_says_what_the_teacher_is_and_measures_nothing_of_it(data, tmp_path):
    network = tutelage.distill("features", student=student(), data=data, teacher=Backbone(), out=tmp_path, **QUICK)
    assert network(data.example(2)).shape == (2, 10)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["teacher"]["spec"] == "Backbone"
    assert not any("accuracy" in name for name in content["teacher"])
    assert (tmp_path / "report.html").exists()
    again = tutelage.distill("features", student=student(), data=data, teacher=Backbone(), out=tmp_path, **QUICK)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters()))


def test_a_transformer_without_a_classifier_teaches_by_its_tokens(data):
    teacher = toy_transformer(0, image_size=(32, 32))
    found = load_data("digits", subset=150, image_size=32)
    network = nn.Sequential(nn.Conv2d(1, 3, 1), teacher)
    trained = tutelage.distill("features", student="tiny_cnn,width=4", data=found, teacher=network, **QUICK)
    assert trained(found.example(2)).shape == (2, 10)


def test_a_backbone_that_returns_hidden_states_teaches(data):
    for layers in ("auto", "layer3:blocks.1"):
        own = {"student": student(), "data": data, "teacher": Hidden(), "layers": layers}
        assert tutelage.distill("features", **own, **QUICK)(data.example(2)).shape == (2, 10)
    with pytest.raises(UserError, match="it must return the logits"):
        tutelage.distill("kd", student=student(), data=data, teacher=Hidden(), **QUICK)


def record(data, folder, **options):
    settings = {"views": 2, "batch_size": 32, "device": "cpu", "precision": "32-true", "progress": False}
    return tutelage.record(Backbone(), data=data, out=folder, **settings | options)


def test_layers_are_recorded_without_answers_and_teach_as_the_network_does(data, tmp_path):
    recording = record(data, tmp_path / "one", keep="none", layers=["layer2", "layer1"])
    assert list(recording.header.layers) == ["layer1", "layer2"]
    teacher = RecordedTeacher(recording)
    quick = QUICK | {"epochs": 2}
    recorded = tutelage.distill("features", student=student(), data=data, teacher=teacher, **quick)
    assert recorded(data.example(2)).shape == (2, 10)
    # The same views, answered by the network itself.
    again = record(data, tmp_path / "one", keep="none", layers=["layer1", "layer2"], views=3)
    assert again.views == 3
    batch = next(iter(replace(data, recording=recording).loader("train", train=True, batch_size=16).epoch(0)))
    live = FrozenTeacher(Backbone()).reading(["layer2"], example=data.example(2), logits=False)
    torch.testing.assert_close(batch.teacher.features["layer2"], live(batch).features["layer2"], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="holds only layers"):
        tutelage.distill("kd", student=student(), data=data, teacher=teacher, **QUICK)


def test_a_recording_without_answers_needs_layers_and_their_teacher(data, tmp_path):
    with pytest.raises(UserError, match="--keep none leaves nothing to record"):
        record(data, tmp_path, keep="none")
    with pytest.raises(UserError, match="has 10 classes"):
        record(data, tmp_path, layers=["layer2"])
    record(data, tmp_path, keep="none", layers=["layer2"])

    class Other(Backbone):
        def forward(self, inputs):
            return super().forward(0.9 * inputs)

    settings = {"views": 2, "batch_size": 32, "device": "cpu", "precision": "32-true", "progress": False}
    with pytest.raises(UserError, match="holds the recording of another teacher"):
        tutelage.record(Other(), data=data, out=tmp_path, keep="none", layers=["layer2"], **settings)


def test_as_many_classes_by_other_names_are_others(data, tmp_path):
    network = tutelage.load_network("tiny_cnn,width=6", num_classes=10, in_channels=1)
    names = [f"{word} {n}" for n, word in enumerate(["cat", "dog"] * 5)]
    save_network(tmp_path / "pets", network, spec=network.spec, num_classes=10, in_channels=1, class_names=names)
    digits = replace(data, class_names=("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
    own = {"student": student(), "data": digits, "teacher": str(tmp_path / "pets")}
    with pytest.raises(UserError, match=r"has other classes than the data.*cat.*--teacher-classes FILE"):
        tutelage.distill("kd", **own, out=tmp_path / "kd", **QUICK)
    trained = tutelage.distill("features", **own, **QUICK)
    assert trained(digits.example(2)).shape == (2, 10)
    given = {name: number for number, name in enumerate(names)}
    tutelage.distill("kd", **own, teacher_classes=given, **QUICK)


def test_inputs_that_do_not_fit_have_nothing_to_do_with_classes(data):
    teacher = FrozenTeacher(nn.Sequential(nn.Flatten(), nn.Linear(7, 10)))
    with pytest.raises(UserError, match="teacher cannot take inputs") as error:
        tutelage.distill("kd", student=student(), data=data, teacher=teacher, **QUICK)
    assert "classes" not in str(error.value)


def test_an_untrained_network_without_a_classifier_is_not_trained_first(data, tmp_path):
    code = "from torch.nn import *\n\ndef net():\n    return Sequential(Flatten(), Linear(64, 3))\n"
    (tmp_path / "nets.py").write_text(code)
    with pytest.raises(UserError, match=r"For 2 samples the .* returns shape \(2, 3\), but digits has 10 classes"):
        tutelage.distill("features", student=student(), data=data, teacher=f"{tmp_path}/nets.py:net", **QUICK)


def test_unlabelled_images_are_enough(data, tmp_path):
    found = load_data("digits", subset=150, task="unlabelled")
    trained = tutelage.distill("features", student=student(), data=found, teacher=Backbone(), out=tmp_path, **QUICK)
    assert trained(found.example(2)).shape == (2, 10)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert 0 <= content["rows"][0]["runs"][0]["best"]["test_knn_accuracy"] <= 1
    assert content["teacher"]["test_knn_accuracy"] > 0.3
