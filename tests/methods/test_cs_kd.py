import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from tutelage.core.method import Progress, Update
from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch
from tutelage.data.own import OwnSamples
from tutelage.data.plan import Plan
from tutelage.data.samplers import PairBatches
from tutelage.data.task import task_named
from tutelage.errors import UserError
from tutelage.experiments.choice import parse_choice
from tutelage.methods.cs_kd import CSKD, halves
from tutelage.methods.supervised import Supervised
from tutelage.testing.toys import BATCH, CLASSES, TRAINING, ToyNetwork, toy_batch, toy_data
from tutelage.testing.trials import gradients_of
from tutelage.training.driver import Driver

CLASSIFICATION = task_named("classification")

ANCHORS = [[2.0, 0.0], [0.0, 1.0]]
PARTNERS = [[1.0, 0.0], [0.0, 3.0]]


def norms(method):
    return [layer for layer in method.modules() if isinstance(layer, nn.BatchNorm2d)]


def toy(**options):
    torch.manual_seed(0)
    return CSKD(ToyNetwork(), **options).train()


# The equation.


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_against_loops_and_closed_gradient(temperature, double, slow, measure, echo):
    logits, labels = torch.randn(6, 4) * 3, torch.randint(0, 4, (3,)).repeat(2)
    found = measure(CSKD(echo, temperature=temperature, weight=3.0), logits, labels)
    anchors, partners = logits[:3], logits[3:]
    hard = slow.label_loss(anchors.tolist(), labels[:3].tolist())
    soft = temperature**2 * slow.soft_loss(anchors.tolist(), partners.tolist(), temperature)
    assert found.losses == pytest.approx({"ce": hard, "class_wise": soft}, rel=1e-10)
    assert found.total == pytest.approx(hard + 3 * soft, rel=1e-10)
    gap = (F.softmax(anchors / temperature, 1) - F.softmax(partners / temperature, 1)) * temperature
    closed = (F.softmax(anchors, 1) - F.one_hot(labels[:3], 4) + 3 * gap) / 3
    assert torch.allclose(found.gradient[:3], closed, atol=1e-14)
    assert not found.gradient[3:].any()


@pytest.mark.parametrize(("temperature", "soft"), [(4.0, 0.2900096195), (1.0, 0.1262151672)])
def test_known_answers(temperature, soft, double, measure, echo):
    found = measure(CSKD(echo, temperature=temperature), torch.tensor(ANCHORS + PARTNERS), torch.tensor([0, 1, 0, 1]))
    assert found.losses == pytest.approx({"ce": 0.2200948493, "class_wise": soft}, rel=1e-9)
    if temperature == 4:
        assert found.total == pytest.approx(0.5101044687, rel=1e-9)


def test_a_sample_that_is_its_own_partner_teaches_nothing(double, echo):
    logits = torch.randn(3, 4).repeat(2, 1).requires_grad_()
    loss = CSKD(echo).losses(Batch(inputs=logits, targets=torch.tensor([0, 1, 2, 0, 1, 2])))["class_wise"]
    assert loss.item() == pytest.approx(0.0, abs=1e-15)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-15


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("row", [[1e4, -1e4, 0.0], [7.0, 7.0, 7.0], [0.0, 0.0, 0.0]])
def test_losses_and_gradients_stay_finite(row, dtype, measure, echo):
    found = measure(CSKD(echo), torch.tensor([row, row[::-1]], dtype=dtype), torch.tensor([1, 1]))
    assert math.isfinite(found.total)
    assert found.gradient.isfinite().all()


def test_only_the_anchors_labels_count(measure, echo):
    logits = torch.randn(4, 3)
    one, other = (measure(CSKD(echo), logits, torch.tensor([0, 1, *rest])) for rest in ((0, 1), (2, 2)))
    assert one.total == other.total


# The pass that answers the partners.


def test_kept_statistics_are_those_of_the_plain_network_after_a_step():
    method, batch = toy(), toy_batch()
    torch.manual_seed(0)
    plain = ToyNetwork().train()
    method.losses(batch)
    plain(batch.inputs[: BATCH // 2])
    for mine, theirs in zip(norms(method), norms(plain), strict=True):
        assert mine.num_batches_tracked == 1
        assert mine.track_running_stats
        assert torch.equal(mine.running_mean, theirs.running_mean)
        assert torch.equal(mine.running_var, theirs.running_var)


def test_updated_statistics_are_those_of_two_steps():
    method, batch = toy(partner_statistics="updated"), toy_batch()
    torch.manual_seed(0)
    plain = ToyNetwork().train()
    method.losses(batch)
    for part in batch.inputs.chunk(2):
        plain(part)
    for mine, theirs in zip(norms(method), norms(plain), strict=True):
        assert mine.num_batches_tracked == 2
        assert torch.equal(mine.running_mean, theirs.running_mean)


def test_statistics_move_once_a_step_through_a_training_and_the_mode_stays():
    for statistics, times in (("kept", 1), ("updated", 2)):
        method = toy(partner_statistics=statistics, batch_size=BATCH)
        Driver(replace(TRAINING, epochs=3)).fit(method, toy_data())
        steps = 3 * 4
        assert [layer.num_batches_tracked.item() for layer in norms(method)] == [times * steps] * 2
        assert all(module.training for module in method.modules())


@pytest.mark.parametrize("statistics", ["kept", "updated"])
def test_batch_norm_normalises_anchors_and_partners_each_by_their_own_batch(statistics):
    method, batch = toy(partner_statistics=statistics).double(), toy_batch()
    images = batch.inputs.double()
    found = method.losses(replace(batch, inputs=images))["class_wise"].item()
    torch.manual_seed(0)
    plain = ToyNetwork().double().train()

    def slow(anchors, partners):
        p, q = F.softmax(partners / 4, 1), F.softmax(anchors / 4, 1)
        return 16 * (p * (p / q).log()).sum(1).mean().item()

    assert found == pytest.approx(slow(*(plain(half) for half in images.chunk(2))), rel=1e-9)
    # Neither all in one batch, nor the partners by the running statistics.
    assert found != pytest.approx(slow(*plain(images).chunk(2)), rel=1e-2)
    assert found != pytest.approx(slow(plain(images[:6]), plain.eval()(images[6:])), rel=1e-2)


@pytest.mark.parametrize(("statistics", "times"), [("kept", 1), ("updated", 2)])
def test_a_compiled_student_keeps_its_statistics_too(statistics, times):
    torch._dynamo.reset()
    plain, method, batch = toy(partner_statistics=statistics), toy(partner_statistics=statistics), toy_batch()
    method.student.compile(backend="eager")
    for step in (1, 2):
        expected, found = plain.losses(batch), method.losses(batch)
        assert torch.allclose(found["class_wise"], expected["class_wise"])
        for mine, theirs in zip(norms(method), norms(plain), strict=True):
            assert mine.num_batches_tracked == step * times
            assert torch.allclose(mine.running_mean, theirs.running_mean)
    gradients = torch.autograd.grad(method.total(Update(found), Progress()), list(method.parameters()))
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_gradients_are_those_of_the_anchors_pass_alone(dtype):
    method, batch = toy(), toy_batch()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        (update,) = method.step(batch, Progress())
    names = dict(method.named_parameters())
    gradients = torch.autograd.grad(method.total(update, Progress()), list(names.values()))
    torch.manual_seed(0)
    plain = Supervised(ToyNetwork()).train()
    answers = plain.student(batch.inputs[:6]).logits
    others = plain.student(batch.inputs[6:]).logits.detach()
    loss = F.cross_entropy(answers, batch.targets[:6]) + 16 * F.kl_div(
        F.log_softmax(answers / 4, 1), F.softmax(others / 4, 1), reduction="batchmean"
    )
    expected = torch.autograd.grad(loss, list(plain.parameters()))
    for name, mine, theirs in zip(names, gradients, expected, strict=True):
        # Biases before a batch norm have no gradient but rounding.
        rounding, share = (1e-6, 1e-5) if dtype is None else (1e-3, 0.1)
        assert (mine - theirs).norm() <= share * theirs.norm() + rounding, name
        assert theirs.norm() > 10 * rounding or name.endswith("0.bias"), name


def test_the_partners_are_answered_last_without_a_graph(echo):
    asked = []
    echo.register_forward_pre_hook(lambda _, inputs: asked.append((inputs[0].tolist(), torch.is_grad_enabled())))
    CSKD(echo).losses(Batch(inputs=torch.tensor(ANCHORS + PARTNERS), targets=torch.tensor([0, 1, 0, 1])))
    assert asked == [(ANCHORS, True), (PARTNERS, False)]


def test_a_step_waits_for_nothing(waits):
    method, batch = toy(), toy_batch()
    assert waits(lambda: list(method.step(batch, Progress()))) == []
    assert waits(lambda: float(batch.inputs.sum())) == ["_local_scalar_dense"]


# The pairs.


def test_training_sees_pairs_of_one_class(monkeypatch):
    method, seen = toy(batch_size=10), []
    honest = method.losses

    def watch(batch):
        seen.append((batch.labels.clone(), batch.indices.clone()))
        return honest(batch)

    monkeypatch.setattr(method, "losses", watch)
    Driver(replace(TRAINING, epochs=1, batch_size=10)).fit(method, toy_data())
    assert [len(labels) for labels, _ in seen] == [20, 20, 20, 20, 16]
    for labels, _ in seen:
        first, second = labels.chunk(2)
        assert torch.equal(first, second)
    anchors = torch.cat([indices.chunk(2)[0] for _, indices in seen])
    assert sorted(anchors.tolist()) == list(range(48))


@pytest.mark.parametrize("kind", ["resident", "tensors", "subset", "list"])
def test_labels_come_from_any_kind_of_dataset(kind):
    images, targets = torch.randn(9, 3, 4, 4), torch.tensor([5, 5, 5, 5, 5, 7, 7, 7, 7])
    plain = TensorDataset(images, targets)
    dataset = {
        "resident": toy_data().train,
        "tensors": OwnSamples(plain, CLASSIFICATION),
        "subset": OwnSamples(Subset(plain, [8, 0, 7, 1, 6]), CLASSIFICATION),
        "list": OwnSamples([(image, int(label)) for image, label in plain], CLASSIFICATION),
    }[kind]
    transfer = CSKD(nn.Identity(), batch_size=5).transfer_set(dataset)
    assert transfer.dataset is dataset
    assert transfer.sections == 2
    labels = torch.tensor([int(dataset[index][1]) for index in range(len(dataset))])
    for batch in transfer.batches.epoch(0, torch.Generator().manual_seed(0)):
        anchors, partners = batch.chunk(2)
        assert torch.equal(labels[anchors], labels[partners])


def test_a_loader_has_no_pairs():
    loader = DataLoader(TensorDataset(torch.randn(4, 3), torch.tensor([0, 1, 0, 1])), batch_size=2)
    with pytest.raises(UserError, match="pass the dataset instead of a DataLoader"):
        CSKD(nn.Identity()).transfer_set(loader)


def test_several_processes_leave_out_a_smaller_last_batch(monkeypatch):
    assert len(toy(batch_size=10).transfer_set(toy_data().train).batches) == 5
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    assert len(toy(batch_size=10).transfer_set(toy_data().train).batches) == 4


@pytest.mark.parametrize("anchors", [6, 7])
def test_the_mean_of_two_processes_gradients_is_that_of_one(anchors):
    data = toy_data().train
    labels = data.targets[: 3 * anchors]

    def gradients(rank, world_size):
        plan = Plan(
            sampler=PairBatches(labels, batch_size=anchors),
            seed=4,
            augmentation=Augmentation(),
            size=data.size,
            rank=rank,
            world_size=world_size,
            sections=2,
        )
        indices = next(plan.epoch(0)).indices
        if world_size == 1 and anchors % 2:
            # What the processes cannot share is left out.
            indices = torch.cat([half[:-1] for half in indices.chunk(2)])
        batch = Batch(inputs=data.read_batch(indices)[0].float() / 255, targets=data.targets[indices])
        assert torch.equal(*batch.targets.chunk(2))
        torch.manual_seed(0)
        return gradients_of(CSKD(ToyNetwork(batch_norm=False)), batch)

    whole, *parts = gradients(0, 1), gradients(0, 2), gradients(1, 2)
    for name, gradient in whole.items():
        assert torch.allclose((parts[0][name] + parts[1][name]) / 2, gradient, rtol=1e-4, atol=1e-7), name
        assert not torch.allclose(parts[0][name], gradient, rtol=1e-2)


def test_an_odd_batch_is_refused():
    images = torch.randn(5, 3, 12, 16)
    with pytest.raises(UserError, match="batch of 5 samples, and needs an even number"):
        toy().losses(Batch(inputs=images, targets=torch.zeros(5, dtype=torch.long)))


def test_texts_and_views_are_halved_sample_by_sample():
    tokens, mask = torch.arange(12).view(4, 3), torch.ones(4, 3)
    first, second = halves({"tokens": tokens, "mask": mask})
    assert torch.equal(first["tokens"], tokens[:2])
    assert torch.equal(second["tokens"], tokens[2:])
    assert second["mask"].shape == (2, 3)
    first, second = halves([tokens, mask])
    assert torch.equal(first[0], tokens[:2])
    assert second[1].shape == (2, 3)
    with pytest.raises(UserError, match="3 samples"):
        halves([tokens[:3], mask[:3]])


# The rest.


def test_it_trains_and_ships_the_student_alone():
    student = ToyNetwork()
    method = CSKD(student)
    assert list(method.optimizers()["student"].params) == list(student.parameters())
    assert method.export() is student
    assert method(torch.randn(2, 3, 12, 16))["student"].shape == (2, CLASSES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0 must be above zero"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"weight": -1.0}, "weight=-1.0 must be zero or more"),
        ({"weight": math.nan}, "weight=nan"),
    ],
)
def test_what_cannot_be_is_refused(options, message, echo):
    with pytest.raises(UserError, match=message):
        CSKD(echo, **options)


def test_options_are_read_from_text(echo):
    method = CSKD(echo, **parse_choice("cs-kd:temperature=1,weight=3,partner_statistics=updated").hyper_parameters)
    assert (method.temperature, method.weights["class_wise"], method.partner_statistics) == (1.0, 3.0, "updated")
