"""Novel class discovery as a task: its metrics against slow loops, and a run from the data to the report."""

import json
import os
import signal
import subprocess
import sys
from itertools import permutations

import pytest
import torch
from torch import nn

import tutelage
from tutelage.cli.main import main
from tutelage.data.novel import with_novel
from tutelage.data.task import task_named
from tutelage.errors import UserError
from tutelage.report.html import render_html
from tutelage.tasks.discovery import Discovery, DiscoveryMeter
from tutelage.testing.toys import toy_data

KNOWN, NOVEL = 3, 2


def answers(count=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, KNOWN + NOVEL, (count,), generator=generator)
    return torch.randn(count, KNOWN + NOVEL, generator=generator), labels


def slow(scores, labels):
    """Return the metrics by trying every matching."""
    pairs = [(row, int(label)) for row, label in zip(scores.tolist(), labels) if label >= 0]
    known = [(row, label) for row, label in pairs if label < KNOWN]
    novel = [(row, label - KNOWN) for row, label in pairs if label >= KNOWN]

    def best(row):
        return max(range(len(row)), key=row.__getitem__)

    def clustered(found):
        return max(sum(order[label] == cluster for cluster, label in found) for order in permutations(range(NOVEL)))

    right = sum(best(row) == label for row, label in known)
    right += clustered([(best(row) - KNOWN, label) for row, label in novel])
    return {
        "accuracy": right / len(pairs),
        "known_accuracy": sum(best(row[:KNOWN]) == label for row, label in known) / len(known),
        "novel_accuracy": clustered([(best(row[KNOWN:]), label) for row, label in novel]) / len(novel),
    }


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_a_slow_loop(seed):
    scores, labels = answers(seed=seed)
    meter = DiscoveryMeter(KNOWN, NOVEL)
    # In parts, and of two meters, as several processes measure.
    later = DiscoveryMeter(KNOWN, NOVEL)
    meter.update(scores[:20], labels[:20])
    later.update(scores[20:], labels[20:])
    meter.merge(later)
    found = meter.compute()
    for name, value in slow(scores, labels).items():
        assert found[name] == pytest.approx(value), name
    assert set(found) == set(Discovery.metrics)


def test_perfect_clusters_in_another_order_are_right():
    labels = torch.arange(10) % 5
    scores = torch.eye(5)[torch.tensor([0, 1, 2, 4, 3])[labels]]
    meter = DiscoveryMeter(KNOWN, NOVEL)
    meter.update(scores, labels)
    assert meter.compute() == {name: pytest.approx(1.0) for name in Discovery.metrics}
    assert meter.pictures() == {"clusters": [[2, 0], [0, 2]]}


def test_known_outputs_are_not_matched():
    """Two known classes that are taken for each other are wrong, in whatever order."""
    labels = torch.arange(5)
    meter = DiscoveryMeter(KNOWN, NOVEL)
    meter.update(torch.eye(5)[torch.tensor([1, 0, 2, 3, 4])], labels)
    assert meter.compute()["accuracy"] == pytest.approx(3 / 5)
    assert meter.compute()["known_accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, -1], {"known_accuracy"}),
        ([3, 4, -1], {"novel_accuracy", "nmi", "ari"}),
        ([-1, -1], set()),
    ],
)
def test_what_has_no_samples_has_no_metric(labels, names):
    meter = DiscoveryMeter(KNOWN, NOVEL)
    meter.update(torch.randn(len(labels), 5), torch.tensor(labels))
    assert set(meter.compute()) == names


def test_an_epoch_shows_nothing_of_hidden_labels():
    scores, labels = answers()
    meter = task_named("discovery").beside(KNOWN, NOVEL, (), is_measured=True).meter(detail="watched")
    meter.update(scores, labels)
    assert set(meter.compute()) == {"known_accuracy"}


def test_networks_of_other_outputs_are_refused():
    task = Discovery(KNOWN, NOVEL)
    task.check_answer((2, 5), 2, 5, who="student", data="toy")
    with pytest.raises(UserError, match="3 known classes and 2 novel ones, 5 in all"):
        task.check_answer((2, 4), 2, 5, who="student", data="toy")
    with pytest.raises(UserError, match="which classes of toy are novel"):
        Discovery().check_answer((2, 5), 2, 5, who="student", data="toy")
    with pytest.raises(UserError, match="has no novel classes"):
        task_named("regression").beside(KNOWN, NOVEL, (), is_measured=True)


QUICK = ["--epochs", "2", "--batch-size", "64", "--device", "cpu", "--threads", "1", "--compile", "off"]
QUICK += ["--subset", "200", "--hidden", "16", "--width", "8", "--heads", "2"]


def command(out, *more):
    flags = ["--student", "tiny_cnn,width=4", "--data", "digits", "--task", "discovery", "--novel", "3"]
    return [sys.executable, "-m", "tutelage", "distill", "cr-kd", *flags, *QUICK, "--out", str(out), *more]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Return the folder of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    main(command(folder)[3:])
    return folder


def test_a_run_is_reported_and_its_network_is_loaded_by_name(straight):
    content = json.loads((straight / "comparison.json").read_text())
    (row,) = content["rows"]
    best = row["runs"][0]["best"]
    assert {"test_accuracy", "test_novel_accuracy", "test-training_novel_accuracy", "validation_known_accuracy"} <= set(
        best
    )
    assert "validation_accuracy" not in best
    assert "validation_novel_accuracy" not in best
    # No label tells how good the clusters are, so the last epoch is kept.
    assert best == row["runs"][0]["last"]
    assert [stage["name"] for stage in row["runs"][0]["stages"]] == ["known", "distill"]
    page = render_html(content)
    assert "Which cluster holds which novel class" in page
    found = tutelage.evaluate(str(straight), data="digits", task="discovery", novel=3)
    assert found.accuracy == pytest.approx(best["test_accuracy"])
    assert found.novel_accuracy == pytest.approx(best["test_novel_accuracy"])


def test_a_run_that_is_killed_in_its_second_stage_goes_on_to_the_same_weights(straight, tmp_path):
    """As kill -9 would: the process is gone in the middle of an epoch, after a checkpoint."""
    code = (
        "import os, signal, sys\n"
        "from tutelage.training import driver\n"
        "save = driver._Fit._save\n"
        "def killing(self):\n"
        "    save(self)\n"
        "    if 'distill' in str(self.checkpoint_file) and self.state.steps >= 4 and os.environ.get('KILL'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "driver._Fit._save = killing\n"
        "from tutelage.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    words = command(tmp_path / "run", "--checkpoint-seconds", "0")[3:]
    words_of_python = [sys.executable, "-c", code, *words]
    killed = subprocess.run(words_of_python, env={**os.environ, "KILL": "1"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "run").rglob("distill/checkpoint.pt"))
    main(words)
    resumed, whole = (folder / "student.safetensors" for folder in (tmp_path / "run", straight))
    assert resumed.read_bytes() == whole.read_bytes()


def test_from_python_with_minus_ones():
    torch.manual_seed(0)
    shades = torch.arange(4) / 4
    labels = [number % 4 for number in range(48)]
    images = [torch.full((3, 8, 8), float(shades[label])) + 0.05 * torch.rand(3, 8, 8) for label in labels]
    train = [(image, label if label < 2 else -1) for image, label in zip(images, labels, strict=True)]
    network = tutelage.distill(
        "uno", student=small, data=train, test=list(zip(images, labels, strict=True)), task="discovery", novel=2,
        epochs=1, batch_size=16, heads=1, hidden=8, width=4, progress=False, device="cpu", compile="off", threads=1,
    )  # fmt: skip
    assert network(torch.stack(images[:5])).shape == (5, 4)


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))  # fmt: skip  # noqa: E501


def test_the_task_of_data_knows_what_is_known():
    facts = with_novel(toy_data(), 2).task.describe()
    assert (facts["known"], facts["novel"], facts["hidden"]) == (4, 2, ["class 4", "class 5"])
