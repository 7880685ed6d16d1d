import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import BlackBoxTeacher, EnsembleTeacher, FrozenTeacher
from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch, Output
from tutelage.data.plan import RecordedViews
from tutelage.errors import UserError
from tutelage.experiments.catalogue import get
from tutelage.experiments.choice import parse_choice
from tutelage.methods.fkd import FKD
from tutelage.methods.kd import KD
from tutelage.methods.parts.crops import draw_shares
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import (
    BATCH,
    CHANNELS,
    CLASSES,
    TRAINING,
    ToyNetwork,
    methods_of,
    toy_batch,
    toy_data,
    toy_experiment,
)
from tutelage.training.driver import Driver


class Recorded(RecordedViews):
    """Recorded views whose logits say which view of which image they answer."""

    views = 0
    augmentation, fingerprint = Augmentation.parse("crop:1,flip"), "recorded"

    def __init__(self, views):
        self.views = views

    def read(self, indices, views):
        parameters = torch.zeros(len(indices), self.augmentation.width)
        logits = F.one_hot((indices + views) % CLASSES, CLASSES).float()
        return parameters, Output(logits=logits, features={"view": torch.stack([indices, views], 1)})


def toy(**options):
    torch.manual_seed(0)
    return FKD(ToyNetwork(), FrozenTeacher(ToyNetwork(10)), BATCH, **options).train()


# The equation.


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_loss_against_loops_and_closed_gradient(temperature, double, slow, measure, echo, parrot):
    logits, answers = torch.randn(6, 4) * 3, torch.randn(6, 4) * 3
    found = measure(FKD(echo, parrot(answers), temperature=temperature), logits, None)
    soft = [slow.softmax(row, temperature) for row in answers.tolist()]
    rows = zip(soft, logits.tolist(), strict=True)
    expected = slow.mean(slow.cross_entropy(q, slow.softmax(z, temperature)) for q, z in rows)
    assert found.losses == pytest.approx({"soft": expected}, rel=1e-12)
    assert found.total == pytest.approx(expected, rel=1e-12)
    closed = (F.softmax(logits / temperature, 1) - torch.tensor(soft)) / temperature / 6
    assert torch.allclose(found.gradient, closed, atol=1e-14)


def test_hard_labels_are_the_cross_entropy_with_the_argmax(double, measure, echo, parrot):
    logits, labels = torch.randn(6, 4) * 3, torch.tensor([0, 3, 2, 2, 1, 0])
    certain = torch.full((6, 4), -1e30).scatter(1, labels[:, None], 0.0)
    found = measure(FKD(echo, parrot(certain)), logits, None)
    assert found.total == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-12)
    gradient = (F.softmax(logits, 1) - F.one_hot(labels, 4)) / 6
    assert torch.allclose(found.gradient, gradient, atol=1e-14)


def test_the_loss_is_least_and_the_entropy_where_the_student_agrees(double, slow, measure, echo, parrot):
    answers = torch.randn(20, 5)
    entropy = slow.mean(slow.entropy(slow.softmax(row)) for row in answers.tolist())
    agreed = measure(FKD(echo, parrot(answers)), answers + 3.0, None)
    assert agreed.total == pytest.approx(entropy, rel=1e-12)
    assert agreed.gradient.abs().max() < 1e-15
    for _ in range(20):
        assert measure(FKD(echo, parrot(answers)), answers + 0.1 * torch.randn(20, 5), None).total > entropy


def test_no_label_is_read(measure, echo, parrot):
    logits, answers = torch.randn(6, 4), torch.randn(6, 4)
    one, other = (measure(FKD(echo, parrot(answers)), logits, labels) for labels in (None, torch.zeros(6).long()))
    assert one.total == other.total


def test_the_gradient_is_that_of_the_soft_term_of_kd(double, measure, echo, parrot):
    logits, answers, labels = torch.randn(6, 4), torch.randn(6, 4), torch.zeros(6).long()
    fkd = measure(FKD(echo, parrot(answers), temperature=2.0), logits, labels)
    kd = measure(KD(echo, parrot(answers), temperature=2.0, alpha=1.0, t_squared=False), logits, labels)
    assert torch.allclose(fkd.gradient, kd.gradient, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("row", [[1e4, -1e4, 0.0], [7.0, 7.0, 7.0], [0.0, 0.0, 0.0]])
def test_losses_and_gradients_stay_finite(row, dtype, measure, echo, parrot):
    answers = torch.tensor([row[::-1], row], dtype=dtype)
    found = measure(FKD(echo, parrot(answers)), torch.tensor([row, row[::-1]], dtype=dtype), None)
    assert math.isfinite(found.total)
    assert found.gradient.isfinite().all()


# The crops.


def seen_in(method, data, epochs, monkeypatch):
    """Trains, and returns for each epoch the batches."""
    batches = []
    honest = method.losses

    def watch(batch):
        batches.append(batch)
        return honest(batch)

    monkeypatch.setattr(method, "losses", watch)
    Driver(replace(TRAINING, epochs=epochs)).fit(method, data)
    return [batches[4 * number : 4 * number + 4] for number in range(epochs)]


def test_an_epoch_costs_what_any_other_methods_does_and_ends_with_one_crop(monkeypatch):
    method = toy(epochs=10, crops=3)
    epochs = seen_in(method, toy_data(), 10, monkeypatch)
    counts = []
    for batches in epochs:
        assert [len(batch) for batch in batches] == [BATCH] * 4
        counts.append([torch.cat([batch.indices for batch in batches]).eq(sample).sum().item() for sample in range(48)])
    for number in range(7):
        assert sorted(counts[number]) == [0] * 32 + [3] * 16
    assert counts[7:] == [[1] * 48] * 3
    for start in range(5):
        window = counts[start : start + 3]
        assert [sum(column) for column in zip(*window, strict=True)] == [3] * 48


def test_without_that_end_or_a_number_of_epochs_there_are_always_several(monkeypatch):
    for options in ({"epochs": 4, "single_crop_end": False}, {}):
        epochs = seen_in(toy(crops=3, **options), toy_data(), 4, monkeypatch)
        assert all(len(batch.indices.unique()) == 4 for batches in epochs for batch in batches)


@pytest.mark.parametrize(("views", "crops"), [(3, 3), (5, 3), (8, 4)])
def test_a_recorded_view_does_not_repeat_before_all_were_taken(views, crops, monkeypatch):
    method = FKD(ToyNetwork(), RecordedTeacher(), BATCH, crops=crops)
    data = replace(toy_data(), recording=Recorded(views))
    taken = {sample: [] for sample in range(48)}
    for batches in seen_in(method, data, 4 * crops, monkeypatch):
        for batch in batches:
            found = batch.teacher.features["view"]
            assert torch.equal(found[:, 0], batch.indices)
            for sample, view in found.tolist():
                taken[sample].append(view)
    for order in taken.values():
        assert len(order) == 4 * crops
        for start in range(0, len(order) - views + 1, views):
            assert sorted(order[start : start + views]) == list(range(views))


def test_crops_of_an_image_are_different_where_the_teacher_is_there(monkeypatch):
    (batches,) = seen_in(toy(crops=3), toy_data(), 1, monkeypatch)
    for batch in batches:
        assert torch.equal(*batch.indices.view(3, 4)[:2])
        first, second, third = batch.inputs.reshape(3, -1)
        assert all(not torch.equal(one, other) for one, other in ((first, second), (second, third), (first, third)))


def test_more_crops_than_recorded_views_are_refused():
    data = replace(toy_data(), recording=Recorded(3))
    with pytest.raises(UserError, match="4 views of each image at once, but only 3 of each are recorded"):
        Driver(TRAINING).fit(FKD(ToyNetwork(), RecordedTeacher(), BATCH, crops=4), data)


def test_crops_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(UserError, match="batch of 12 cannot hold 5 crops of each image"):
        Driver(TRAINING).fit(toy(crops=5), toy_data())


def test_the_builder_says_how_long_the_run_is():
    (method,) = methods_of(get("fkd"), toy_experiment()).values()
    assert (method.batch_size, method.single_from) == (BATCH, 1)


# The mixtures.


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_images_and_soft_labels_are_mixed_alike_and_the_teacher_sees_none(options, double):
    student = nn.Sequential(nn.Flatten(), nn.Linear(24, 4))
    asked = []
    box = BlackBoxTeacher(lambda inputs: asked.append(inputs) or inputs.flatten(1)[:, :4])
    batch = Batch(inputs=torch.rand(6, 2, 3, 4))
    torch.manual_seed(7)
    found = FKD(student, box, **options).losses(batch)["soft"]
    assert torch.equal(asked[0], batch.inputs)
    torch.manual_seed(7)
    shares = draw_shares(batch.inputs, **({"mixup": 0.0, "cutmix": 0.0} | options))
    partners = torch.randperm(6)
    share, total = shares.mean().item(), 0.0
    for b, partner in enumerate(partners.tolist()):
        image = (1 - shares) * batch.inputs[b] + shares * batch.inputs[partner]
        soft = [batch.inputs[one].flatten()[:4].softmax(0) for one in (b, partner)]
        total -= (((1 - share) * soft[0] + share * soft[1]) * student(image[None])[0].log_softmax(0)).sum().item()
    assert found.item() == pytest.approx(total / 6, rel=1e-6)


def test_recorded_answers_are_taken_for_the_images_as_they_came():
    batch = replace(toy_batch(), teacher=Output(logits=torch.randn(BATCH, CLASSES)))
    loss = FKD(ToyNetwork(), RecordedTeacher(), cutmix=1.0).losses(batch)["soft"]
    assert loss.isfinite()


def test_a_lambda_of_one_is_no_mixture(monkeypatch):
    plain = toy().losses(toy_batch())["soft"]
    monkeypatch.setattr("tutelage.methods.parts.crops._beta", lambda parameter, device: torch.tensor(1.0))
    assert torch.equal(toy(mixup=1.0, cutmix=1.0).losses(toy_batch())["soft"], plain)


def test_a_mixture_draws_from_torchs_generator():
    losses = []
    for seed in (1, 1, 2):
        method = toy(mixup=0.8)
        torch.manual_seed(seed)
        losses.append(method.losses(toy_batch())["soft"].item())
    assert losses[0] == losses[1] != losses[2]


def test_what_is_no_image_is_not_mixed(echo):
    with pytest.raises(UserError, match="Mixup and CutMix need images"):
        FKD(echo, BlackBoxTeacher(echo), mixup=1.0).losses(Batch(inputs=torch.zeros(2, 3)))


# The rest.


@pytest.mark.parametrize("options", [{}, {"mixup": 0.8, "cutmix": 1.0}])
def test_a_step_waits_for_nothing(options, waits):
    method, batch = toy(**options), toy_batch()
    assert waits(lambda: list(method.step(batch, Progress()))) == []


def test_it_trains_by_a_teacher_of_any_kind_and_ships_the_student_alone():
    student = ToyNetwork()
    for teacher in (FrozenTeacher(ToyNetwork(10)), EnsembleTeacher([FrozenTeacher(ToyNetwork(w)) for w in (8, 10)])):
        method = FKD(student, teacher, BATCH, 2)
        Driver(TRAINING).fit(method, toy_data())
        assert list(method.optimizers()["student"].params) == list(student.parameters())
        assert method.export() is student
        assert method(torch.randn(2, CHANNELS, 12, 16))["student"].shape == (2, CLASSES)


def test_it_trains_on_mixtures():
    method = toy(epochs=2, mixup=0.8, cutmix=1.0)
    assert Driver(TRAINING).fit(method, toy_data()).samples == 2 * 48


def test_options_are_read_from_text(echo):
    choice = parse_choice("fkd:crops=8,temperature=2,mixup=0.8,cutmix=1,single_crop_end=false")
    method = FKD(echo, BlackBoxTeacher(echo), epochs=10, **choice.hyper_parameters)
    assert (method.crops, method.temperature, method.mixup, method.cutmix) == (8, 2.0, 0.8, 1.0)
    assert method.single_from is None


def test_what_cannot_be_is_refused(echo):
    with pytest.raises(UserError, match="crops=0"):
        FKD(echo, BlackBoxTeacher(echo), crops=0)
