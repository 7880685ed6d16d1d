"""The preflight: what it says about teachers, networks, losses, time and memory."""

import copy
import io
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import TensorDataset

from tutelage.cli.main import main
from tutelage.data.augment import Augmentation
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import Notice
from tutelage.experiments.assembly import experiment_of
from tutelage.experiments.choice import parse_choice
from tutelage.experiments.doctor import cost, rehearsal
from tutelage.experiments.doctor.losses import Term, far_apart
from tutelage.experiments.doctor.page import examine
from tutelage.experiments.doctor.teacher import _judged, examine_teacher
from tutelage.experiments.experiment import Experiment
from tutelage.methods.supervised import Supervised
from tutelage.models.blueprint import blueprint
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalization, Normalized
from tutelage.recording import replay
from tutelage.recording.writing import record
from tutelage.training.driver import Driver
from tutelage.training.settings import Training

TRAINING = Training(epochs=3, batch_size=64, precision="32-true")


@pytest.fixture(scope="module")
def data():
    return load_data("digits")


@pytest.fixture(scope="module")
def teacher(data):
    torch.manual_seed(0)
    statistics = Normalization(mean=data.mean, std=data.std)
    network = load_network("tiny_cnn,width=8", num_classes=10, in_channels=1, normalization=statistics)
    Driver(replace(TRAINING, epochs=4)).fit(Supervised(network), data)
    return network.eval()


@pytest.fixture(scope="module")
def examined(data, teacher):
    def look(row, teacher_source=teacher, **settings):
        plan = None if teacher_source is None else blueprint(teacher_source, data, trained=True)
        students = (blueprint("tiny_cnn,width=4", data),)
        experiment = Experiment(data=data, students=students, teachers=() if plan is None else (plan,))
        console = Console(width=200, record=True, file=io.StringIO(), highlight=False)
        console.print(examine(parse_choice(row), experiment, replace(TRAINING, **settings)))
        return console.export_text()

    return look


def permuted(network, order):
    network = copy.deepcopy(network)
    classifier = next(m for m in network.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        classifier.weight.copy_(classifier.weight[order])
        classifier.bias.copy_(classifier.bias[order])
    return network


def test_good_teacher_raises_no_warning(examined):
    text = examined("kd")
    assert "No problem was found" in text
    assert "warning" not in text
    assert "a guess is right on 10.0%" in text


def test_slow_steps_are_rehearsed_on_few_samples_and_counted_up(examined, monkeypatch):
    whole = examined("kd")
    assert "counted up" not in whole
    monkeypatch.setattr(cost, "BEARABLE", 0.0)
    few = examined("kd")
    assert "the losses are those of 4 samples, and the rest is counted up" in few
    assert f"of {TRAINING.batch_size} samples" not in few
    batches, activations = (
        [re.search(pattern, text)[1] for text in (whole, few)]
        for pattern in (r"epochs of (\d+) batches", r"activations ([\d.]+) MB")
    )
    assert batches[0] == batches[1]
    assert float(activations[1]) == pytest.approx(float(activations[0]), rel=0.2)


def test_what_a_loss_will_take_is_told_before_it_is_taken(monkeypatch):
    monkeypatch.setattr(rehearsal, "_MUCH", 1000)
    images = torch.rand(24, 3, 12, 16)
    data = as_data(TensorDataset(images, torch.randint(3, (24, 12, 16))), task="segmentation", test=None)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    plan = blueprint(network, data, trained=True)
    experiment = Experiment(data=data, students=(plan,), teachers=(plan,))
    console = Console(width=200, record=True, file=io.StringIO(), highlight=False)
    choice = parse_choice("structured:variant=paper,patch=1,holistic_weight=0")
    with pytest.warns(Notice, match=r"distill: the loss pairs takes 0\.0 GB at once with 8 samples in a batch"):
        console.print(examine(choice, experiment, replace(TRAINING, batch_size=8, epochs=1)))
    # Three tables of 192 x 192 pairs for each of 8 samples, of four bytes.
    assert "pairs 3.5 MB" in console.export_text()


@pytest.mark.parametrize(("seed", "keep"), [(0, "full"), (1, "hard")])
def test_recorded_answers_are_judged_without_the_network(seed, keep, data, teacher, tmp_path, monkeypatch):
    torch.manual_seed(seed)
    # The second one guesses.
    network = teacher if seed == 0 else nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    recording = record(network, data=data, out=tmp_path, views=1, keep=keep, progress=False, device="cpu")

    def look():
        console = Console(width=200, record=True, file=io.StringIO(), highlight=False)
        experiment = experiment_of("tiny_cnn,width=4", recording, replace(data, augmentation=Augmentation()))
        console.print(examine(parse_choice("kd"), experiment, TRAINING))
        return console.export_text()

    text = look()
    assert "Training images are augmented by crop:1, as recorded, instead of none." in text
    assert "right on 512 recorded training views; a guess is right on 10.0%" in text
    assert f"({keep}, 1 view)" in text
    assert ("No problem was found" in text) == (seed == 0)
    assert ("THE TEACHER GUESSES" in text) == (seed == 1)
    assert ("Check the teacher itself" in text) == (seed == 1)
    monkeypatch.setattr(replay, "_CHEAP_BYTES", 1)
    assert "a view is too large to read" in look()


def test_networks_losses_time_and_memory_are_shown(examined):
    text = examined("kd:alpha=0.25")
    for expected in (
        "student",
        "teacher",
        "frozen",
        "trained",
        "multiply-adds",
        "ms a batch",
        "activations",
        "Estimate",
    ):
        assert expected in text
    kd = next(line.split() for line in text.splitlines() if line.strip().startswith("kd "))
    assert float(kd[3]) == pytest.approx(float(kd[1]) * float(kd[2]), rel=2e-3)
    assert kd[2] == "0.25"


def test_wrong_statistics_are_named_with_the_better_ones(teacher, data, examined):
    wrong = Normalized(teacher.model, (4.0,), (0.05,))
    report = examine_teacher(wrong, data)
    assert report.better == "data"
    assert report.alternatives["data"] > 0.8
    assert report.accuracy < 0.5
    text = examined("kd", wrong)
    assert "Its input statistics are wrong" in text
    assert "normalize=data" in text


class Shade(nn.Module):
    """Knows the class by the brightest channel."""

    def forward(self, images):
        return images.mean((2, 3)) * 10


def test_of_few_samples_a_perfect_teacher_is_not_called_a_guess():
    labels = torch.arange(45) % 3
    images = torch.rand(45, 3, 8, 8) / 4
    images[torch.arange(45), labels] += 0.5
    few = as_data(TensorDataset(images, labels))
    experiment = Experiment(
        data=few, students=(blueprint("tiny_cnn,width=4", few),), teachers=(blueprint(Shade(), few, trained=True),)
    )
    console = Console(width=1000, record=True, file=io.StringIO(), highlight=False)
    console.print(examine(parse_choice("kd"), experiment, TRAINING))
    text = console.export_text()
    assert "100.0% right on 4 validation samples; a guess is right on 33.3%: too few to tell" in text
    assert "4 validation samples are too few to tell a teacher from a guess: hold out more" in text
    assert "THE TEACHER GUESSES" not in text


@pytest.mark.parametrize(
    ("samples", "right", "classes", "verdict"),
    [
        (5, 5, 3, "too few"),
        (14, 13, 2, "too few"),
        (14, 14, 2, "fine"),
        (9, 9, 3, "fine"),
        (60, 22, 3, "guess"),
        (512, 256, 2, "guess"),
        (512, 5, 100, "guess"),
        (512, 20, 100, "fine"),
        (4, 0, 10, "too few"),
        (40, 4, 10, "guess"),
    ],
)
def test_whether_a_teacher_guesses_is_said_where_it_can_be_told(data, samples, right, classes, verdict):
    targets = torch.arange(samples) % classes
    answers = torch.where(torch.arange(samples) < right, targets, (targets + 1) % classes)
    report = _judged(answers, targets, "validation", replace(data, num_classes=classes))
    assert (report.at_chance, report.too_few) == (verdict == "guess", verdict == "too few")


def test_right_statistics_are_left_alone(teacher, data):
    assert examine_teacher(teacher, data).better is None


def test_another_order_of_classes_is_recognised_with_its_pairs(teacher, data, examined):
    order = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]
    report = examine_teacher(permuted(teacher, order), data)
    assert report.accuracy < 0.1
    assert report.at_chance
    assert report.reordered > 0.8
    assert list(report.order) == order
    text = examined("kd", permuted(teacher, order))
    assert "THE TEACHER GUESSES" in text
    assert "It says '1' for '0', '0' for '1'" in text


def test_recorded_answers_in_another_order_of_classes_are_recorded_again(teacher, data, tmp_path):
    network = permuted(teacher, [1, 0, 3, 2, 5, 4, 7, 6, 9, 8])
    recording = record(network, data=data, out=tmp_path, views=1, progress=False, device="cpu")
    console = Console(width=1000, record=True, file=io.StringIO(), highlight=False)
    console.print(examine(parse_choice("kd"), experiment_of("tiny_cnn,width=4", recording, data), TRAINING))
    text = console.export_text()
    assert "It says '1' for '0', '0' for '1'" in text
    assert "in the order of the data's classes, and record again." in text
    assert "Reorder" not in text


def test_two_swapped_classes_of_ten_are_no_guess_but_recognised(teacher, data, examined):
    swapped = permuted(teacher, [1, 0, *range(2, 10)])
    report = examine_teacher(swapped, data)
    assert not report.at_chance
    assert list(report.order) == [1, 0, *range(2, 10)]
    assert "could do better. Its classes are in another order" in examined("kd", swapped)


def test_untrained_head_is_told_from_the_other_causes(data, examined):
    torch.manual_seed(3)
    untrained = load_network("tiny_cnn", num_classes=10, in_channels=1)
    report = examine_teacher(untrained, data)
    assert report.at_chance
    assert report.better is None
    assert report.reordered is None
    text = examined("kd", untrained)
    assert "THE TEACHER GUESSES" in text
    assert "classifier is new" in text


def test_untrained_architecture_is_trained_first(examined):
    text = examined("kd", "tiny_cnn")
    assert "is untrained: it will be trained first" in text
    assert "Stage teacher" in text
    assert "2 trainings" in text


def test_method_without_its_teacher_is_refused(examined):
    with pytest.raises(ValueError, match="needs a teacher"):
        examined("kd", None)
    with pytest.raises(ValueError, match="needs a teacher"):
        examined("de-kd", None)


@pytest.mark.parametrize(
    ("row", "stages"),
    [
        ("tf-kd-self", ["self-teacher", "distill"]),
        ("de-kd", ["poor-teacher", "distill"]),
        ("re-kd", ["student", "distill"]),
        ("born-again:generations=3", ["generation-0", "generation-1", "generation-2"]),
        ("tolerant-teacher", ["patriarch", "generation-1"]),
    ],
)
def test_every_stage_of_a_recipe_is_examined(row, stages, examined, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = examined(row, "tiny_cnn,width=8")
    assert [line.split()[1] for line in text.splitlines() if line.startswith("Stage ")] == stages
    assert not list(tmp_path.iterdir()), "the doctor leaves nothing behind"


def test_the_pairing_of_layers_is_shown(examined):
    text = examined("at", "tiny_resnet,width=4")
    (start,) = (n for n, line in enumerate(text.splitlines()) if "layer of the student" in line)
    assert [line.split() for line in text.splitlines()[start + 1 : start + 4]] == [
        ["layer1", "4x8x8", "layer1", "4x8x8"],
        ["layer2", "8x4x4", "layer2", "8x4x4"],
        ["layer3", "16x2x2", "layer3", "16x2x2"],
    ]
    by_name = examined("at:layers=layer2:layer3", "tiny_resnet,width=4")
    assert ["layer2", "8x4x4", "layer3", "16x2x2"] in [line.split() for line in by_name.splitlines()]
    assert "layer of the student" not in examined("kd")


def test_a_narrow_terminal_folds_names_rather_than_cutting_numbers(data):
    students = tuple(blueprint(f"tiny_cnn,width={width}", data) for width in (2, 4))
    console = Console(width=80, record=True, file=io.StringIO(), highlight=False)
    console.print(examine(parse_choice("afd"), Experiment(data=data, students=students), TRAINING))
    assert "\u2026" not in console.export_text()


def test_labels_that_hardly_count_are_named(examined):
    text = " ".join(examined("at", "tiny_resnet,width=4").split())
    assert "the labels hardly count at first; if accuracy stays low, lower the weight of attention, 1e+03." in text
    assert "on purpose" not in text


def term(name, pull, raw_pull, weight=1.0, optimizer="student"):
    return Term(name=name, optimizer=optimizer, value=1.0, weight=weight, pull=pull, raw_pull=raw_pull)


def test_far_apart_looks_at_both_sides_of_the_weights():
    with_weights = list(far_apart([term("ce", 1, 1), term("kd", 0.01, 0.1, 0.1)]))
    assert [(gap.weak.name, gap.weighted, round(gap.ratio)) for gap in with_weights] == [("kd", True, 100)]
    before_weights = list(far_apart([term("ce", 0.1, 1, 0.1), term("kd", 0.009, 0.01, 0.9)]))
    assert [(gap.weak.name, gap.weighted, round(gap.ratio)) for gap in before_weights] == [("kd", False, 100)]
    too_strong = list(far_apart([term("ce", 1, 1), term("kd", 100, 100)]))
    assert [(gap.weak.name, gap.strong.name) for gap in too_strong] == [("ce", "kd")]


def test_far_apart_leaves_ratios_up_to_twenty_zero_weights_and_other_optimizers_alone():
    assert not list(far_apart([term("ce", 1, 1), term("kd", 0.06, 0.06)]))
    assert not list(far_apart([term("ce", 1, 1), term("kd", 0, 0.5, weight=0.0)]))
    assert not list(far_apart([term("ce", 1, 1), term("critic", 1e-6, 1e-6, optimizer="critic")]))


def test_reduction_over_a_hundred_classes_is_seen(shared_data, capsys):
    checkpoints = shared_data / "checkpoints"
    teacher = (
        f"{checkpoints}/cifar_resnets.py:CifarResNet,n=1,num_classes=100,family=small,normalize=cifar100"
        f"@{checkpoints}/cifar100_small_resnet8.safetensors"
    )
    command = ["--student", "tiny_cnn,width=4", "--data", str(shared_data / "cifar100"), "--subset", "1000"]
    assert main(["doctor", "kd", "--reduction", "mean", "--teacher", teacher, *command, "--batch_size", "32"]) == 0
    screen = " ".join(capsys.readouterr().out.split())
    assert "is it divided by the 100 classes on purpose?" in screen
    assert "GUESSES" not in screen
    assert main(["doctor", "kd", "--teacher", teacher.replace("=cifar100@", "=none@"), *command]) == 0
    screen = " ".join(capsys.readouterr().out.split())
    assert "on purpose" not in screen
    assert "Its input statistics are wrong" in screen
