"""Stages: done once, refused when something else is asked for, and nothing of the teacher in them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tutelage.core.method import Method
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import cross_entropy
from tutelage.methods.kd import KD
from tutelage.methods.supervised import Supervised
from tutelage.models.loading import load_network
from tutelage.system.console import Silent
from tutelage.training.run import Run
from tutelage.training.settings import Training

TRAINING = Training(epochs=1, batch_size=64, precision="32-true")


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=200)


def supervised(seed=0):
    torch.manual_seed(seed)
    return Supervised(load_network("tiny_cnn,width=4", num_classes=10, in_channels=1))


class Counting(Silent):
    def __init__(self):
        self.begun = []

    def begin(self, title, *, total, done):
        self.begun.append(title)


def test_a_finished_stage_is_not_run_again(data, tmp_path):
    reporter = Counting()
    first = Run(tmp_path, TRAINING, reporter=reporter, title="row")
    network = first.fit("distill", supervised(), data)
    second = Run(tmp_path, TRAINING, reporter=reporter)
    again = second.fit("distill", supervised(), data)
    assert reporter.begun == ["row distill"]
    assert first.fitted == second.fitted
    assert not again.training
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values()))


def test_a_finished_stage_leaves_no_checkpoint(data, tmp_path):
    Run(tmp_path, TRAINING).fit("distill", supervised(), data)
    names = {path.name for path in (tmp_path / "distill").iterdir()}
    assert names == {"fingerprint.json", "network.json", "result.json", "student.safetensors"}


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("training.lr", lambda run, method, data: (Run(run.folder, replace(TRAINING, lr=0.3)), method, data)),
        ("seed", lambda run, method, data: (Run(run.folder, TRAINING, seed=1), method, data)),
        ("weights", lambda run, method, data: (run, supervised(1), data)),
        ("data", lambda run, method, data: (run, method, load_data("digits", subset=190))),
        ("augmentation", lambda run, method, data: (run, method, load_data("digits", subset=200, augment="rotate:5"))),
    ],
)
def test_a_changed_setting_is_refused_and_named(what, change, data, tmp_path):
    run = Run(tmp_path, TRAINING)
    run.fit("distill", supervised(), data)
    other, method, changed = change(run, supervised(), data)
    with pytest.raises(UserError, match=f"the results of other work:\n(.|\n)*{what}.* then, .* now"):
        other.fit("distill", method, changed)


def test_conveniences_may_change(data, tmp_path):
    Run(tmp_path, TRAINING).fit("distill", supervised(), data)
    other = replace(TRAINING, log_every=7, checkpoint_seconds=1.0, workers=0)
    assert Run(tmp_path, other).fit("distill", supervised(), data) is not None


def test_another_teacher_is_another_piece_of_work(data, tmp_path):
    def method(seed):
        return KD(supervised().student.model, FrozenTeacher(supervised(seed).student.model))

    Run(tmp_path, TRAINING).fit("distill", method(1), data)
    with pytest.raises(UserError, match="weights"):
        Run(tmp_path, TRAINING).fit("distill", method(2), data)


def test_an_artefact_is_made_once_and_seeded_by_its_name(tmp_path):
    made = []

    def make():
        made.append(torch.rand(3))
        return {"tensor": made[-1], "numbers": [1, 2.5, "three"]}

    torch.rand(11)
    first = Run(tmp_path / "a", TRAINING).stage("pool", make, size=3)
    again = Run(tmp_path / "a", TRAINING).stage("pool", make, size=3)
    elsewhere = Run(tmp_path / "b", TRAINING).stage("pool", make, size=3)
    assert len(made) == 2
    assert torch.equal(first["tensor"], again["tensor"])
    assert torch.equal(first["tensor"], elsewhere["tensor"])
    assert again["numbers"] == [1, 2.5, "three"]
    assert not torch.equal(first["tensor"], Run(tmp_path / "c", TRAINING).stage("other", make)["tensor"])
    with pytest.raises(UserError, match="size: 3 then, 4 now"):
        Run(tmp_path / "a", TRAINING).stage("pool", make, size=4)


def test_best_and_last_weights_are_both_scored_and_the_wanted_ones_kept(data, tmp_path):
    training = replace(TRAINING, epochs=3, lr=0.3, schedule="constant")
    for keep in ("best", "last"):
        run = Run(tmp_path / keep, replace(training, keep=keep))
        network = run.fit("distill", supervised(), data)
        result = run.fitted[0]
        assert result.epochs == 3
        assert set(result.scores) == {"best", "last"}
        accuracy = run.evaluate("check", network, data, split="test")["accuracy"]
        assert accuracy == pytest.approx(result.scores[keep]["test_accuracy"])
        assert result.scores["best"]["validation_accuracy"] == pytest.approx(
            max(result.history["validation_accuracy"]), abs=1e-6
        )


def test_scores_that_a_task_gives_as_numpys_numbers_are_read_again(data, tmp_path, monkeypatch):
    class Numpys:
        def compute(self):
            return {"accuracy": np.float64(0.5), "nll": np.float32(2.0)}

    monkeypatch.setattr("tutelage.training.run.measure_network", lambda *args, **options: Numpys())
    network = torch.nn.Linear(2, 3)
    for _ in range(2):
        found = Run(tmp_path, TRAINING).evaluate("check", network, data)
        assert found == {"accuracy": 0.5, "nll": 2.0}
        assert {type(value) for value in found.values()} == {float}


def test_a_stage_may_have_a_schedule_of_its_own(data, tmp_path):
    training = replace(TRAINING, epochs=3, warmup_epochs=0, schedule="steps", milestones=(0.5,), gamma=0.1)
    run = Run(tmp_path, training)
    run.fit("its own", supervised(), data, schedule="constant")
    run.fit("the settings'", supervised(), data)
    its_own, settings = (fitted.history["lr"] for fitted in run.fitted)
    assert its_own == [training.lr] * 3
    assert settings[-1] == pytest.approx(training.lr * 0.1)
    with pytest.raises(UserError, match="schedule: constant then, steps now"):
        run.fit("its own", supervised(), data)


def test_what_follows_a_stage_draws_the_same_whether_it_was_done_now_or_before(data, tmp_path):
    def draw():
        run = Run(tmp_path, TRAINING)
        run.stage("pool", lambda: torch.rand(3))
        after_an_artefact = torch.rand(3)
        run.fit("distill", supervised(), data)
        return torch.stack([after_an_artefact, torch.rand(3)])

    first = draw()
    assert torch.equal(draw(), first)
    assert not torch.equal(first[0], first[1])


def test_a_damaged_checkpoint_names_itself_and_the_remedy(data, tmp_path):
    run = Run(tmp_path, TRAINING)
    file = tmp_path / "distill" / "checkpoint.pt"
    file.parent.mkdir()
    file.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged.*Delete it"):
        run.fit("distill", supervised(), data)


@pytest.mark.parametrize("file", ["fingerprint.json", "result.json"])
def test_a_damaged_result_names_itself_and_the_remedy(file, data, tmp_path):
    Run(tmp_path, TRAINING).fit("distill", supervised(), data)
    (tmp_path / "distill" / file).write_text('{"seed": ')
    with pytest.raises(UserError, match=rf"{file} is damaged.*Delete"):
        Run(tmp_path, TRAINING).fit("distill", supervised(), data)


def test_result_is_plain_json(data, tmp_path):
    Run(tmp_path, TRAINING).fit("distill", supervised(), data)
    content = json.loads((tmp_path / "distill" / "result.json").read_text())
    assert content["history"].keys() >= {"train/ce", "lr", "validation_accuracy", "validation_nll"}
    assert sum(content["pictures"]["reliability"]["count"]) == len(data.test)


class Pair(Method):
    """Two plain students, of which the second is a member; their mean is a prediction that ships as nothing."""

    def __init__(self, student, other):
        super().__init__()
        self.student, self.other = FeatureExtractor(student), FeatureExtractor(other)

    def losses(self, batch):
        logits = self.student(batch.inputs).logits, self.other(batch.inputs).logits
        return {f"ce-{number}": cross_entropy(each, batch.labels) for number, each in enumerate(logits)}

    def forward(self, inputs):
        one, other = self.student(inputs).logits, self.other(inputs).logits
        return {"student": one, "student-2": other, "mean": (one + other) / 2}

    def members(self):
        return {"student-2": self.other.release()}


def pair():
    torch.manual_seed(0)
    spec = {"num_classes": 10, "in_channels": 1}
    return Pair(load_network("tiny_cnn,width=4", **spec), load_network("tiny_cnn,width=8,normalize=0.5:0.5", **spec))


def test_members_are_scored_sized_saved_and_come_back(data, tmp_path):
    run = Run(tmp_path, TRAINING)
    network = run.fit("distill", pair(), data)
    (fitted,) = run.fitted
    assert "test_accuracy/student-2" in fitted.scores["best"]
    assert "test_accuracy/mean" in fitted.scores["last"]
    assert list(fitted.members) == ["student-2"]
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in run.members.items()}
    assert (
        fitted.members["student-2"]["parameters"] == sizes["student-2"] > sum(p.numel() for p in network.parameters())
    )
    assert fitted.members["student-2"]["multiply_adds"] > 0
    assert fitted.members["student-2"]["spec"] == "tiny_cnn,width=8,normalize=0.5:0.5"
    folder = run.member_folders()["student-2"]
    saved = load_network(str(folder), num_classes=10, in_channels=1).eval()
    inputs = data.example(3)
    assert torch.allclose(saved(inputs), run.members["student-2"](inputs), atol=1e-5)
    again = Run(tmp_path, TRAINING)
    again.fit("distill", pair(), data)
    assert torch.allclose(again.members["student-2"](inputs), saved(inputs), atol=1e-5)
    again.fit("plain", supervised(), data)
    assert again.members == {}


def test_a_wrapping_run_wraps_what_it_trains_and_shares_the_rest(data, tmp_path):
    run, seen = Run(tmp_path, TRAINING), []

    def wrap(name):
        return lambda method: (seen.append(name), method)[1]

    twice = run.wrapping(wrap("outer")).wrapping(wrap("inner"))
    twice.fit("distill", pair(), data)
    assert seen == ["inner", "outer"]
    assert [stage.name for stage in run.fitted] == ["distill"]
    assert list(run.members) == ["student-2"]
    run.fit("plain", supervised(), data)
    assert seen == ["inner", "outer"]
