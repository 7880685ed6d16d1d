import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import BlackBoxTeacher, FrozenTeacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.experiments.catalogue import get
from tutelage.experiments.choice import parse_choice
from tutelage.methods.ferkd import FerKD, adapted_labels, self_partners
from tutelage.methods.fkd import FKD
from tutelage.methods.parts.crops import draw_shares
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import BATCH, CLASSES, TRAINING, ToyNetwork, methods_of, toy_batch, toy_data, toy_experiment
from tutelage.testing.trials import gradients_of
from tutelage.training.driver import Driver

ALL = {"discard_below": 0.0, "soft_from": 0.0, "discard_above": 1.0}
SPLIT = {"discard_below": 0.1, "soft_from": 0.3, "discard_above": 0.8}


def toy(**options):
    torch.manual_seed(0)
    return FerKD(ToyNetwork(), FrozenTeacher(ToyNetwork(10)), BATCH, **options).train()


def answers_of(label_probabilities, labels, classes=4):
    """Logits of a teacher that gives the labels these probabilities, and the rest unevenly to the others."""
    rows = []
    for p, label in zip(label_probabilities, labels, strict=True):
        others = iter((1 - p) * share for share in (0.6, 0.3, 0.1))
        rows.append([p if k == label else next(others) for k in range(classes)])
    return torch.tensor(rows, dtype=torch.float64).log()


def slow_targets(slow, answers, labels, thresholds, smoothing, confidence, temperature):
    """What each crop is taught, None for none, one number at a time."""
    low, middle, high = thresholds
    found = []
    for row, label in zip(answers, labels, strict=True):
        soft = slow.softmax(row, temperature)
        sure = soft[label] if confidence == "label" else max(soft)
        if sure < low or sure > high:
            found.append(None)
        elif sure < middle:
            found.append([1 - smoothing if k == label else smoothing / (len(soft) - 1) for k in range(len(soft))])
        else:
            found.append(soft)
    return found


# The adapted labels.


@pytest.mark.parametrize(
    ("sure", "kept", "hard"),
    [
        (0.0, False, True),
        (0.2499, False, True),
        (0.25, True, True),
        (0.4999, True, True),
        (0.5, True, False),
        (0.75, True, False),
        (0.7501, False, False),
        (1.0, False, False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_threshold_belongs_to_the_case_above_it_but_for_the_last(sure, kept, hard, dtype):
    soft = torch.tensor([[(1 - sure) * 0.7, sure, (1 - sure) * 0.3]], dtype=dtype)
    targets, keeps = adapted_labels(soft, torch.tensor([1]), (0.25, 0.5, 0.75), smoothing=0.1)
    assert keeps.tolist() == [kept]
    expected = torch.tensor([[0.05, 0.9, 0.05]], dtype=dtype) if hard else soft
    assert torch.allclose(targets, expected)


@pytest.mark.parametrize("value", [0.05, 0.2, 0.3, 0.7])
def test_thresholds_are_met_exactly_in_float32(value):
    soft = torch.tensor([[value, 1 - value]])
    for thresholds, kept, hard in [
        ((value, 1, 1), True, True),
        ((0, value, 1), True, False),
        ((0, 0, value), True, False),
    ]:
        targets, keeps = adapted_labels(soft, torch.tensor([0]), thresholds, smoothing=0.0)
        assert keeps.item() == kept
        assert torch.equal(targets, torch.tensor([[1.0, 0.0]])) == hard


def test_the_confidence_may_be_the_largest_probability():
    soft, labels = torch.tensor([[0.1, 0.6, 0.3], [0.9, 0.05, 0.05]]), torch.tensor([0, 1])
    thresholds = (0.2, 0.7, 1.0)
    assert adapted_labels(soft, labels, thresholds, smoothing=0.0, confidence="label")[1].tolist() == [False, False]
    targets, kept = adapted_labels(soft, labels, thresholds, smoothing=0.0, confidence="max")
    assert kept.tolist() == [True, True]
    assert torch.equal(targets, torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.05, 0.05]]))


def test_the_kept_share_is_the_measured_one():
    soft, labels = (3 * torch.randn(2000, 5)).softmax(1), torch.randint(5, (2000,))
    sure = [row[label] for row, label in zip(soft.tolist(), labels.tolist(), strict=True)]
    _, kept = adapted_labels(soft, labels, (0.1, 0.3, 0.8), smoothing=0.1)
    assert kept.sum().item() == sum(0.1 <= c <= 0.8 for c in sure)
    assert 0.2 < kept.float().mean() < 0.8


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.75])
def test_adapted_labels_sum_to_one(smoothing):
    soft, labels = torch.randn(50, 6, dtype=torch.float64).softmax(1), torch.randint(6, (50,))
    targets, _ = adapted_labels(soft, labels, (0.0, 0.5, 1.0), smoothing=smoothing)
    assert torch.allclose(targets.sum(1), torch.ones(50, dtype=torch.float64))
    one, kept = adapted_labels(torch.ones(2, 1), torch.zeros(2).long(), (0.0, 0.0, 1.0), smoothing=smoothing)
    assert torch.equal(one, torch.ones(2, 1))
    assert kept.all()


# The loss.


@pytest.mark.parametrize("confidence", ["label", "max"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_loss_against_loops_and_closed_gradient(confidence, temperature, double, slow, measure, echo, parrot):
    logits, answers, labels = torch.randn(40, 4) * 3, torch.randn(40, 4) * 2, torch.randint(4, (40,))
    options = {**SPLIT, "smoothing": 0.2, "confidence": confidence, "temperature": temperature}
    found = measure(FerKD(echo, parrot(answers), **options), logits, labels)
    targets = slow_targets(slow, answers.tolist(), labels.tolist(), (0.1, 0.3, 0.8), 0.2, confidence, temperature)
    kept = [b for b, target in enumerate(targets) if target is not None]
    assert 0 < len(kept) < 40
    students = [slow.softmax(row, temperature) for row in logits.tolist()]
    expected = slow.mean(slow.cross_entropy(targets[b], students[b]) for b in kept)
    assert found.losses == pytest.approx({"soft": expected}, rel=1e-12)
    closed = torch.zeros(40, 4)
    for b in kept:
        closed[b] = (torch.tensor(students[b]) - torch.tensor(targets[b])) / temperature / len(kept)
    assert torch.allclose(found.gradient, closed, atol=1e-14)


def test_with_open_thresholds_it_is_fkd(double, measure, echo, parrot):
    logits, answers, labels = torch.randn(8, 4) * 3, torch.randn(8, 4) * 30, torch.randint(4, (8,))
    answers[0, labels[0]] = -1e30
    ferkd = measure(FerKD(echo, parrot(answers), **ALL), logits, labels)
    fkd = measure(FKD(echo, parrot(answers)), logits, labels)
    assert ferkd.total == pytest.approx(fkd.total, rel=1e-14)
    assert torch.allclose(ferkd.gradient, fkd.gradient, atol=1e-15)


def test_all_but_one_discarded_leaves_that_ones_loss(double, measure, echo, parrot):
    labels = torch.tensor([0, 1, 2, 3])
    answers, logits = answers_of([0.05, 0.5, 0.95, 0.01], labels), torch.randn(4, 4)
    found = measure(FerKD(echo, parrot(answers), **SPLIT), logits, labels)
    single = measure(FKD(echo, parrot(answers[1:2])), logits[1:2], labels[1:2])
    assert found.total == pytest.approx(single.total, rel=1e-14)
    assert torch.allclose(found.gradient[1:2], single.gradient, atol=1e-15)
    assert not found.gradient[[0, 2, 3]].any()


@pytest.mark.parametrize("sure", [0.01, 0.99])
def test_all_discarded_leave_no_loss_and_no_gradient(sure, double, measure, echo, parrot):
    labels = torch.tensor([0, 1, 2, 3])
    found = measure(FerKD(echo, parrot(answers_of([sure] * 4, labels)), **SPLIT), torch.randn(4, 4), labels)
    assert found.total == 0
    assert not found.gradient.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("row", [[1e4, -1e4, 0.0], [7.0, 7.0, 7.0], [0.0, 0.0, 0.0]])
def test_losses_and_gradients_stay_finite(row, dtype, measure, echo, parrot):
    answers, labels = torch.tensor([row[::-1], row], dtype=dtype), torch.tensor([1, 2])
    found = measure(FerKD(echo, parrot(answers)), torch.tensor([row, row[::-1]], dtype=dtype), labels)
    assert math.isfinite(found.total)
    assert found.gradient.isfinite().all()


def test_labels_are_needed(echo, parrot):
    with pytest.raises(UserError, match="needs labels"):
        FerKD(echo, parrot(torch.zeros(4, 3)), **ALL).losses(Batch(inputs=torch.zeros(4, 3)))


def test_discarded_crops_enter_batch_norm_and_nothing_else():
    method, plain = toy(cutmix=0.0), toy(cutmix=0.0)
    batch = toy_batch()
    plain.student(batch.inputs)
    method.losses(batch)
    for mine, theirs in zip(method.student.buffers(), plain.student.buffers(), strict=True):
        assert torch.equal(mine, theirs)


# SelfMix.


def test_partners_are_other_crops_of_the_same_image():
    indices = torch.tensor([7, 3, 5] * 4)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        partners = self_partners(indices, torch.ones(12, dtype=torch.bool), 4)
        assert torch.equal(indices[partners], indices)
        assert (partners != torch.arange(12)).all()
        assert sorted(partners.tolist()) == list(range(12))
        seen.add(int(partners[0]))
    assert seen == {3, 6, 9}


def test_discarded_crops_neither_mix_nor_are_mixed():
    indices, kept = torch.tensor([7, 3, 5] * 2), torch.tensor([True, True, False, False, True, True])
    assert self_partners(indices, kept, 2).tolist() == [0, 4, 2, 3, 1, 5]


@pytest.mark.parametrize("indices", [list(range(12)), list(range(6)), [4, 4, 4, 4, 4], [1, 2], [3]])
def test_other_images_are_no_partners(indices):
    indices = torch.tensor(indices)
    partners = self_partners(indices, torch.ones(len(indices), dtype=torch.bool), 4)
    assert torch.equal(indices[partners], indices)


@pytest.mark.parametrize("options", [{"cutmix": 1.0}, {"cutmix": 0.0, "mixup": 0.8}, {"cutmix": 1.0, "mixup": 0.8}])
def test_mixed_losses_against_loops(options, double, slow):
    labels, indices = torch.tensor([0, 1] * 3), torch.tensor([9, 4] * 3)
    sure = [0.5, 0.2, 0.05, 0.6, 0.4, 0.95]
    student, asked = nn.Sequential(nn.Flatten(), nn.Linear(24, 4)), []
    answers = answers_of(sure, labels)
    box = BlackBoxTeacher(lambda inputs: asked.append(inputs) or answers)
    images = torch.rand(6, 2, 3, 4)
    torch.manual_seed(11)
    method = FerKD(student, box, crops=3, smoothing=0.1, **SPLIT, **options)
    torch.manual_seed(11)
    found = method.losses(Batch(inputs=images, targets=labels, indices=indices))["soft"]
    assert torch.equal(asked[0], images)
    torch.manual_seed(11)
    shares = draw_shares(images, **({"mixup": 0.0} | options))
    further = 2 * int(torch.randint(1, 3, ()))
    share = shares.mean().item()
    targets = slow_targets(slow, answers.tolist(), labels.tolist(), (0.1, 0.3, 0.8), 0.1, "label", 1.0)
    kept, losses, mixed = [b for b in range(6) if targets[b] is not None], [], 0
    assert kept == [0, 1, 3, 4]
    for b in kept:
        other = (b + further) % 6
        other = other if other in kept else b
        mixed += other != b
        image = (1 - shares) * images[b] + shares * images[other]
        target = [(1 - share) * x + share * y for x, y in zip(targets[b], targets[other], strict=True)]
        losses.append(slow.cross_entropy(target, slow.softmax(student(image[None])[0].tolist())))
    assert mixed
    assert found.item() == pytest.approx(slow.mean(losses), rel=1e-6)


def crop_batch():
    batch = toy_batch()
    return replace(batch, indices=torch.arange(3).repeat(4), targets=torch.arange(3).repeat(4))


def test_a_lambda_of_one_and_equal_crops_are_no_mixture(monkeypatch):
    batch = crop_batch()
    twins = replace(batch, inputs=batch.inputs[:3].repeat(4, 1, 1, 1))
    plain = toy(cutmix=0.0)
    assert torch.allclose(toy().losses(twins)["soft"], plain.losses(twins)["soft"], atol=1e-6)
    plain = toy(cutmix=0.0).losses(batch)["soft"]
    assert not torch.allclose(toy().losses(batch)["soft"], plain, atol=1e-4)
    monkeypatch.setattr("tutelage.methods.parts.crops._beta", lambda parameter, device: torch.tensor(1.0))
    assert torch.equal(toy(mixup=1.0).losses(batch)["soft"], plain)


@pytest.mark.parametrize("changed", [{"indices": None}, {"indices": torch.arange(BATCH)}])
def test_without_crops_of_one_image_nothing_is_mixed(changed):
    batch = replace(crop_batch(), **changed)
    assert torch.equal(toy().losses(batch)["soft"], toy(cutmix=0.0).losses(batch)["soft"])


def test_one_crop_is_mixed_with_none(echo):
    logits = torch.randn(6, 3)
    batch = Batch(inputs=logits, targets=torch.zeros(6).long(), indices=torch.zeros(6).long())
    assert FerKD(echo, BlackBoxTeacher(echo), crops=1, **ALL).losses(batch)["soft"].isfinite()


def test_recorded_answers_are_taken_for_the_crops_as_they_came():
    batch = replace(crop_batch(), teacher=Output(logits=torch.randn(BATCH, CLASSES)))
    assert FerKD(ToyNetwork(), RecordedTeacher()).losses(batch)["soft"].isfinite()


# Batches.


def test_training_sees_crops_and_ends_with_one_of_each(monkeypatch):
    method, seen = toy(epochs=4, crops=2), []
    honest = method.losses
    monkeypatch.setattr(method, "losses", lambda batch: seen.append(batch.indices.clone()) or honest(batch))
    Driver(replace(TRAINING, epochs=4)).fit(method, toy_data())
    assert [len(indices.unique()) for indices in seen] == [6] * 8 + [12] * 8
    for indices in seen[:8]:
        assert torch.equal(*indices.chunk(2))


def test_the_builder_says_how_long_the_run_is():
    (method,) = methods_of(get("ferkd"), toy_experiment()).values()
    assert (method.batch_size, method.single_from) == (BATCH, 1)


def test_the_mean_of_two_processes_gradients_is_that_of_one(monkeypatch):
    torch.manual_seed(3)
    answers, labels = 3 * torch.randn(BATCH, CLASSES), torch.arange(3).repeat(4)
    batch = replace(toy_batch(), targets=labels, teacher=Output(logits=answers))

    def gradients(places):
        torch.manual_seed(0)
        method = FerKD(ToyNetwork(batch_norm=False), RecordedTeacher(), cutmix=0.0, **SPLIT)
        part = Batch(inputs=batch.inputs[places], targets=labels[places], teacher=Output(logits=answers[places]))
        return gradients_of(method, part)

    whole, halves = gradients(slice(None)), (slice(0, None, 2), slice(1, None, 2))
    soft = answers.softmax(1)
    kept = [adapted_labels(soft[half], labels[half], (0.1, 0.3, 0.8), smoothing=0.1)[1].sum().item() for half in halves]
    assert 0 < min(kept) < max(kept)
    apart = [gradients(half) for half in halves]
    monkeypatch.setattr("tutelage.system.processes.count", lambda: 2)
    monkeypatch.setattr("tutelage.system.processes.mean", lambda value: value * 0 + sum(kept) / 2)
    parts = [gradients(half) for half in halves]
    for name, gradient in whole.items():
        assert torch.allclose((parts[0][name] + parts[1][name]) / 2, gradient, rtol=1e-4, atol=1e-7), name
    # Each by the number that it keeps itself, they would not.
    assert any(not torch.allclose((apart[0][k] + apart[1][k]) / 2, whole[k], rtol=1e-2, atol=1e-5) for k in whole)


# The rest.


@pytest.mark.parametrize("options", [{}, {"mixup": 0.8}, {"confidence": "max"}])
def test_a_step_waits_for_nothing(options, waits):
    method, batch = toy(**options), crop_batch()
    assert waits(lambda: list(method.step(batch, Progress()))) == []
    assert waits(lambda: batch.inputs[batch.targets > 1]) == ["index"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crops": 0}, "crops=0"),
        ({"discard_below": -0.1}, "discard_below=-0.1, .* must be between 0 and 1, in rising order"),
        ({"discard_below": 0.3}, "discard_below=0.3, soft_from=0.2"),
        ({"soft_from": 0.9, "discard_above": 0.8}, "discard_above=0.8"),
        ({"discard_above": 1.1}, "discard_above=1.1"),
        ({"soft_from": math.nan}, "soft_from=nan"),
        ({"smoothing": 1.0}, "smoothing=1.0 must be at least 0 and below 1"),
        ({"smoothing": -0.1}, "smoothing=-0.1"),
    ],
)
def test_what_cannot_be_is_refused(options, message, echo):
    with pytest.raises(UserError, match=message):
        FerKD(echo, BlackBoxTeacher(echo), **options)


def test_options_are_read_from_text(echo):
    choice = parse_choice("ferkd:discard_below=0.1,soft_from=0.3,discard_above=0.9,confidence=max,cutmix=0,crops=2")
    method = FerKD(echo, BlackBoxTeacher(echo), **choice.hyper_parameters)
    assert method.thresholds == (0.1, 0.3, 0.9)
    assert (method.confidence, method.cutmix, method.crops) == ("max", 0.0, 2)


def test_the_loss_of_fkd_is_that_of_a_batch_of_kept_crops(echo):
    logits, labels = torch.randn(20, 5), torch.randint(5, (20,))
    answers = 2 * torch.randn(20, 5)
    sure = answers.softmax(1)[torch.arange(20), labels]
    keep = (sure >= 0.2) & (sure <= 0.7)
    options = {"discard_below": 0.2, "soft_from": 0.2, "discard_above": 0.7}
    batch = Batch(inputs=logits, targets=labels, teacher=Output(logits=answers))
    found = FerKD(echo, RecordedTeacher(), **options).losses(batch)["soft"]
    expected = F.cross_entropy(logits[keep], answers[keep].softmax(1))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_crop_without_a_label_is_not_kept():
    soft = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    labels, kept = adapted_labels(soft, torch.tensor([-1, 1]), (0.1, 0.2, 1.0), smoothing=0.1)
    assert kept.tolist() == [False, True]
    assert torch.equal(labels, soft)
