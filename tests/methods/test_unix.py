import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.core.teachers import BlackBoxTeacher, EnsembleTeacher, FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments.choice import parse_choice
from tutelage.methods.kd import KD
from tutelage.methods.unix import (
    UNIX,
    compute_ratio,
    kept_samples,
    mix,
    mixed_cross_entropy,
    mixing_shares,
    uncertainty,
)
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import TRAINING, ToyNetwork, toy_batch, toy_data
from tutelage.training.driver import Driver

STRATEGIES = ["entropy", "confidence", "margin", "random"]


class Listener(nn.Module):
    """Answers as its network does, and remembers what it was asked and whether a gradient was wanted."""

    def __init__(self, network):
        super().__init__()
        self.network, self.asked = network, []

    def forward(self, inputs):
        self.asked.append((inputs.detach().clone(), torch.is_grad_enabled()))
        return self.network(inputs)


def norms(method):
    return [layer for layer in method.student.modules() if isinstance(layer, nn.BatchNorm2d)]


def toy(**options):
    torch.manual_seed(0)
    return UNIX(ToyNetwork(), FrozenTeacher(ToyNetwork(10)), **options).train()


def linear(*sizes):
    return nn.Linear(*sizes, dtype=torch.float64)


# The price.


@pytest.mark.parametrize(
    ("rho", "percent"),
    [
        (38.17, 77.49),
        (174.0, 75.57),
        (13.56, 81.43),
        (27.16, 78.43),
        (23.49, 78.92),
        (8.22, 84.79),
        (3.25, 94.06),
        (3.93, 91.88),
        (3.06, 94.76),
        (6.12, 87.32),
        (2.97, 95.10),
        (4.14, 91.29),
    ],
)
def test_the_published_price_follows_from_the_formula(rho, percent):
    # Both are rounded to hundredths.
    assert abs(round(100 * compute_ratio(0.75, 64, rho) - percent, 2)) <= 0.02


def test_the_price_counts_whole_samples():
    assert compute_ratio(1.0, 64, 2.0) == 1.25
    assert compute_ratio(0.75, 10, 8.0) == pytest.approx(8 / 10 + 1 / 10)
    assert compute_ratio(0.01, 10, 8.0) == pytest.approx(1 / 10 + 1 / 10)


# The shares.


def test_shares_are_the_published_ones():
    shares = mixing_shares(64, 10.0, 0.5, 1.0)
    known = {0: 0.0072327638, 31: 0.4804786780, 32: 0.5195213220, 47: 0.9184802441, 63: 0.9927672362}
    assert {rank: shares[rank].item() for rank in known} == pytest.approx(known, rel=1e-6)
    assert shares[31] + shares[32] == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(mixing_shares(64, 10.0, 0.5, 0.75), shares[:48])


@pytest.mark.parametrize(("samples", "pivot", "kept", "turns", "length"), [(64, 0.5, 1, 32, 64), (13, 0.3, 0.7, 4, 9)])
def test_an_infinite_steepness_mixes_all_or_nothing(samples, pivot, kept, turns, length):
    shares = mixing_shares(samples, math.inf, pivot, kept)
    assert shares.tolist() == [0.0] * turns + [1.0] * (length - turns)


@pytest.mark.parametrize("samples", [1, 2, 5, 12, 127])
@pytest.mark.parametrize("pivot", [0.0, 0.37, 1.0])
def test_shares_against_the_formula_for_any_batch(samples, pivot):
    b, shares = round(pivot * samples), mixing_shares(samples, 7.0, pivot, 0.6)
    assert len(shares) == kept_samples(0.6, samples) == max(1, round(0.6 * samples))
    m = (2 * b - 1) / (2 * samples)
    expected = [1 / (1 + math.exp(-7 * (i / samples - m))) for i in range(len(shares))]
    assert shares.tolist() == pytest.approx(expected, rel=1e-5)


def test_no_steepness_mixes_all_alike():
    assert mixing_shares(8, 0.0, 0.5, 1.0).tolist() == [0.5] * 8


# Uncertainty.


@pytest.mark.parametrize("strategy", ["entropy", "confidence", "margin"])
def test_uncertainty_against_loops(strategy, slow):
    logits = torch.randn(9, 4, dtype=torch.float64) * 3

    def score(row):
        p = sorted(slow.softmax(row), reverse=True)
        return {"entropy": slow.entropy(p), "confidence": -math.log(p[0]), "margin": p[1] - p[0]}[strategy]

    assert uncertainty(logits, strategy).tolist() == pytest.approx([score(row) for row in logits.tolist()], rel=1e-9)


@pytest.mark.parametrize("strategy", ["entropy", "confidence", "margin"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_who_is_sure_is_last_and_nothing_is_infinite(strategy, dtype):
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [1e4, 9e3, 1e4], [2.0, 0.0, 0.0]], dtype=dtype)
    scores = uncertainty(logits, strategy)
    assert scores.isfinite().all()
    assert scores.dtype == torch.float32
    assert scores.argmin() == 0
    assert scores[1] >= scores[2] > scores[3] > scores[0]
    if strategy == "entropy":
        assert scores.tolist()[:3] == pytest.approx([0.0, math.log(3), math.log(2)], rel=1e-6)


# The mixture.


def mixtures(samples, **options):
    """What the teacher is asked about one-hot inputs: each row shows who was mixed, and by how much."""
    student, teacher = Listener(nn.Linear(samples, 3)), Listener(nn.Linear(samples, 3))
    UNIX(student, FrozenTeacher(teacher), **options).train().losses(Batch(inputs=torch.eye(samples)))
    ((asked, _),) = teacher.asked
    return asked, student


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_samples_are_mixed_in_the_order_of_uncertainty_with_one_lambda(strategy):
    torch.manual_seed(5)
    mixed, student = mixtures(16, strategy=strategy, kept=0.75, pivot=0.5, steepness=2.0)
    assert mixed.shape == (12, 16)
    assert mixed.sum(1).tolist() == pytest.approx([1.0] * 12)
    assert ((mixed > 0).sum(1) <= 2).all()
    share = mixing_shares(16, 2.0, 0.5, 0.75)
    torch.manual_seed(5)
    student.network(torch.eye(16))
    nn.Linear(16, 3), nn.Linear(16, 3)
    factor = torch.rand(())
    order = torch.randperm(16) if strategy == "random" else None
    if order is None:
        logits = student.network(torch.eye(16))
        order = torch.tensor(sorted(range(16), key=lambda row: -uncertainty(logits, strategy)[row]))
    partners = torch.randperm(16)
    expected = torch.zeros(12, 16)
    for rank in range(12):
        expected[rank, order[rank]] += 1 - factor * share[rank]
        expected[rank, partners[rank]] += factor * share[rank]
    assert torch.allclose(mixed, expected, atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_student_answers_all_samples_once_and_the_kept_ones_once(strategy):
    torch.manual_seed(5)
    mixed, student = mixtures(10, strategy=strategy, kept=0.7)
    asked = student.asked
    if strategy != "random":
        (scored, wanted), *asked = asked
        assert torch.equal(scored, torch.eye(10))
        assert not wanted
    ((answered, wanted),) = asked
    assert torch.equal(answered, mixed)
    assert wanted
    assert len(answered) == 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_keep_their_dtype_and_layout(dtype):
    images = torch.rand(6, 3, 4, 5, dtype=dtype).contiguous(memory_format=torch.channels_last)
    first, second, share = torch.tensor([5, 0, 3]), torch.tensor([1, 0, 2]), torch.tensor([0.0, 0.3, 1.0])
    mixed = mix(images, first, second, share)
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed[0], images[5])
    assert torch.allclose(mixed[1], images[0])
    assert torch.equal(mixed[2], images[2])


def test_the_teachers_own_inputs_are_mixed_alike():
    student, teacher = Listener(nn.Linear(4, 3)), Listener(nn.Linear(4, 3))
    inputs, others = torch.randn(8, 4), torch.randn(8, 4)
    method = UNIX(student, FrozenTeacher(teacher))
    torch.manual_seed(3)
    method.losses(Batch(inputs=inputs, teacher_inputs=others))
    student_inputs = student.asked[-1][0]
    ((seen, _),) = teacher.asked
    torch.manual_seed(3)
    factor = torch.rand(())
    second = torch.randperm(8)[:6]
    first = uncertainty(student.network(inputs), "entropy").argsort(descending=True)[:6]
    share = factor * mixing_shares(8, 10.0, 0.5, 0.75)
    for mixed, source in ((student_inputs, inputs), (seen, others)):
        assert torch.allclose(mixed, mix(source, first, second, share))


# The loss.


def slow_losses(slow, student, teacher, images, labels, chance, options):
    """Both terms, one number at a time, from the weights of two linear networks."""

    def answer(network, image):
        rows = zip(network.weight.tolist(), network.bias.tolist(), strict=True)
        return [bias + math.fsum(w * x for w, x in zip(row, image, strict=True)) for row, bias in rows]

    n = len(images)
    scores = [slow.entropy(slow.softmax(answer(student, image))) for image in images]
    order = sorted(range(n), key=lambda b: -scores[b])
    factor, partners = chance
    soft, hard, k, b = [], [], round(options["kept"] * n), round(options["pivot"] * n)
    for i in range(k):
        one, other = order[i], partners[i]
        c = 1 / (1 + math.exp(-options["steepness"] * (i / n - (2 * b - 1) / (2 * n))))
        s = factor * c
        mixed = [(1 - s) * x + s * y for x, y in zip(images[one], images[other], strict=True)]
        ours, theirs = answer(student, mixed), answer(teacher, mixed)
        t = options["temperature"]
        soft.append(t**2 * slow.kl(slow.softmax(theirs, t), slow.softmax(ours, t)))
        p = slow.softmax(ours)
        hard.append(-(1 - s) * math.log(p[labels[one]]) - s * math.log(p[labels[other]]))
    return {"kd": slow.mean(soft), "ce": slow.mean(hard)}


def test_losses_and_gradient_against_loops(slow):
    torch.manual_seed(1)
    student, teacher = linear(5, 4), linear(5, 4)
    images, labels = torch.randn(9, 5, dtype=torch.float64), torch.randint(0, 4, (9,))
    options = {"steepness": 6.0, "pivot": 0.4, "kept": 0.8, "temperature": 3.0}
    method = UNIX(student, FrozenTeacher(teacher), ce_weight=0.5, **options)

    def chance():
        torch.manual_seed(2)
        return torch.rand(()).item(), torch.randperm(9).tolist()

    def expected():
        return slow_losses(slow, student, teacher, images.tolist(), labels.tolist(), chance(), options)

    torch.manual_seed(2)
    losses = method.losses(Batch(inputs=images, targets=labels))
    found = {name: loss.item() for name, loss in losses.items()}
    # The shares are float32.
    assert found == pytest.approx(expected(), rel=1e-6)
    total = method.total(Update(losses), Progress())
    assert total.item() == pytest.approx(found["kd"] + 0.5 * found["ce"], rel=1e-12)
    gradient, step = torch.autograd.grad(total, student.weight)[0], 1e-5
    for place in [(0, 0), (3, 4), (1, 2)]:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                student.weight[place] += sign * step
                terms = expected()
                student.weight[place] -= sign * step
            values.append(terms["kd"] + 0.5 * terms["ce"])
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / 2 / step, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_mixing_and_with_all_kept_it_is_plain_kd(strategy):
    torch.manual_seed(1)
    student, teacher = linear(5, 4), FrozenTeacher(linear(5, 4))
    batch = Batch(inputs=torch.randn(9, 5, dtype=torch.float64), targets=torch.randint(0, 4, (9,)))
    plain = KD(student, teacher, temperature=4.0).losses(batch)
    method = UNIX(student, teacher, strategy=strategy, pivot=1.0, kept=1.0, steepness=1e9, ce_weight=1.0)
    found = method.losses(batch)
    assert found["kd"].item() == pytest.approx(plain["kd"].item(), rel=1e-12)
    assert found["ce"].item() == pytest.approx(plain["ce"].item(), rel=1e-12)
    mixing = UNIX(student, teacher, strategy=strategy, kept=1.0).losses(batch)
    assert mixing["kd"].item() != pytest.approx(plain["kd"].item(), rel=1e-3)


def test_a_lambda_of_zero_is_plain_kd(monkeypatch):
    student, teacher = linear(5, 4), FrozenTeacher(linear(5, 4))
    batch = Batch(inputs=torch.randn(9, 5, dtype=torch.float64), targets=torch.randint(0, 4, (9,)))
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.zeros(*shape))
    found = UNIX(student, teacher, kept=1.0).losses(batch)["kd"]
    assert found.item() == pytest.approx(KD(student, teacher).losses(batch)["kd"].item(), rel=1e-12)


def test_the_authors_baseline_mixes_next_to_nothing():
    shares = mixing_shares(64, 1000.0, 1.0, 1.0)
    assert shares.max().item() == pytest.approx(4.0448e-4, rel=1e-3)
    assert shares.sum() < 4.1e-4


def test_equal_networks_have_nothing_to_learn():
    network = ToyNetwork(batch_norm=False)
    method = UNIX(network, FrozenTeacher(ToyNetwork(batch_norm=False)))
    method.teacher.network.load_state_dict(network.state_dict())
    assert method.losses(toy_batch())["kd"].item() == pytest.approx(0.0, abs=1e-6)


def test_labels_are_asked_for_by_the_cross_entropy_alone():
    unlabelled = replace(toy_batch(), targets=None)
    assert set(toy().losses(unlabelled)) == {"kd"}
    assert set(toy(ce_weight=0.1).losses(toy_batch())) == {"kd", "ce"}
    with pytest.raises(UserError, match="needs labels"):
        toy(ce_weight=0.1).losses(unlabelled)


# The scoring.


def test_kept_statistics_move_once_a_step_with_the_mixtures():
    method, student = toy(), Listener(ToyNetwork())
    torch.manual_seed(0)
    plain = ToyNetwork().train()
    method.student.model = student
    student.network.load_state_dict(plain.state_dict())
    method.train().losses(toy_batch())
    plain(student.asked[1][0])
    for mine, theirs in zip(norms(method), (plain.layer1[1], plain.layer2[1]), strict=True):
        assert mine.num_batches_tracked == 1
        assert mine.track_running_stats
        assert torch.equal(mine.running_mean, theirs.running_mean)
        assert torch.equal(mine.running_var, theirs.running_var)


@pytest.mark.parametrize(("options", "times"), [({"scoring_statistics": "updated"}, 2), ({}, 1)])
def test_statistics_through_a_training(options, times):
    method = toy(**options)
    Driver(TRAINING).fit(method, toy_data())
    assert [layer.num_batches_tracked.item() for layer in norms(method)] == [times * 2 * 4] * 2
    assert all(module.training for module in method.student.modules())


def test_nothing_is_scored_at_random():
    method = toy(strategy="random", scoring_statistics="updated")
    method.losses(toy_batch())
    assert [layer.num_batches_tracked.item() for layer in norms(method)] == [1, 1]


@pytest.mark.parametrize("statistics", ["kept", "updated"])
def test_the_student_scores_by_the_statistics_of_the_batch(statistics):
    method, images = toy(scoring_statistics=statistics), toy_batch().inputs
    order = method._order(Batch(inputs=images))
    torch.manual_seed(0)
    plain = ToyNetwork().train()
    assert torch.equal(order, uncertainty(plain(images), "entropy").argsort(descending=True))
    assert not torch.equal(order, uncertainty(plain.eval()(images), "entropy").argsort(descending=True))


@pytest.mark.parametrize(("statistics", "times"), [("kept", 1), ("updated", 2)])
def test_a_compiled_student_scores_and_learns(statistics, times):
    torch._dynamo.reset()
    plain, method, batch = toy(scoring_statistics=statistics), toy(scoring_statistics=statistics), toy_batch()
    method.student.compile(backend="eager")
    for step in (1, 2):
        losses = []
        for each in (plain, method):
            torch.manual_seed(step)
            losses.append(each.losses(batch)["kd"])
        assert torch.allclose(*losses)
        assert [layer.num_batches_tracked.item() for layer in norms(method)] == [step * times] * 2
    gradients = torch.autograd.grad(losses[1], [p for p in method.parameters() if p.requires_grad])
    assert all(gradient.any() for gradient in gradients)


def test_autocast_casts_no_gradient_away():
    # A pass without a gradient comes first, whose cast weights must not be those of the second.
    method = toy(ce_weight=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        (update,) = method.step(toy_batch(), Progress())
    named = {name: p for name, p in method.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(method.total(update, Progress()), list(named.values()))
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_waits_for_nothing(strategy, waits):
    method, batch = toy(strategy=strategy, ce_weight=1.0), toy_batch()
    assert waits(lambda: list(method.step(batch, Progress()))) == []
    assert waits(lambda: batch.inputs[batch.targets > 2]) == ["index"]


# The rest.


def test_every_process_and_seed_draws_from_torchs_generator():
    batch = toy_batch()
    losses = []
    for seed in (1, 1, 2):
        method = toy()
        torch.manual_seed(seed)
        losses.append(method.losses(batch)["kd"].item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: EnsembleTeacher([it])])
def test_recorded_answers_are_never_taken_for_those_to_mixtures(wrap):
    with pytest.raises(UserError, match="not its recording"):
        UNIX(ToyNetwork(), wrap(RecordedTeacher()))


def test_a_black_box_is_asked_about_the_kept_mixtures_alone():
    box = BlackBoxTeacher(ToyNetwork(10).eval())
    method = UNIX(ToyNetwork(), box)
    method.losses(toy_batch())
    assert box.queries == 9


def test_only_the_student_is_trained_and_exported():
    student = ToyNetwork()
    method = UNIX(student, FrozenTeacher(ToyNetwork(10)))
    assert list(method.optimizers()["student"].params) == list(student.parameters())
    assert method.export() is student


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_small_batches(samples):
    batch = toy_batch()
    losses = toy(ce_weight=1.0).losses(Batch(inputs=batch.inputs[:samples], targets=batch.targets[:samples]))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("inputs", [{"ids": torch.zeros(2, 3)}, torch.zeros(2, 3, dtype=torch.long), [torch.zeros(2)]])
def test_what_cannot_be_mixed_is_refused(inputs):
    with pytest.raises(UserError, match="tensors of floats"):
        UNIX(nn.Identity(), BlackBoxTeacher(nn.Identity())).losses(Batch(inputs=inputs, targets=torch.zeros(2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kept": 0.0}, r"kept=0.0 must be a share"),
        ({"kept": 48}, r"kept=48 must be a share of the batch, above 0 and up to 1: 0.75 is 48 samples of 64"),
        ({"kept": math.nan}, "kept=nan"),
        ({"pivot": 32}, "pivot=32 must be a share"),
        ({"pivot": -0.1}, "pivot=-0.1"),
        ({"temperature": 0.0}, "temperature=0.0 must be above zero"),
        ({"steepness": -1.0}, "steepness=-1.0 must be zero or more"),
        ({"steepness": math.nan}, "steepness=nan"),
        ({"ce_weight": -0.5}, "ce_weight=-0.5"),
    ],
)
def test_what_cannot_be_is_refused(options, message, echo):
    with pytest.raises(UserError, match=message):
        UNIX(echo, BlackBoxTeacher(echo), **options)


def test_options_are_read_from_text(echo):
    choice = parse_choice("unix:strategy=random,pivot=1,kept=1,steepness=1000,scoring_statistics=updated")
    method = UNIX(echo, BlackBoxTeacher(echo), **choice.hyper_parameters)
    assert (method.strategy, method.pivot, method.kept, method.steepness) == ("random", 1.0, 1.0, 1000.0)
    assert method.scoring_statistics == "updated"


@pytest.mark.parametrize("strategy", ["entropy", "confidence", "margin"])
def test_the_uncertainty_of_a_map_is_the_mean_over_its_places(strategy):
    logits = torch.randn(3, 5, 2, 4, dtype=torch.float64)
    places = [uncertainty(logits[:, :, y, x], strategy) for y in range(2) for x in range(4)]
    assert torch.allclose(uncertainty(logits, strategy), torch.stack(places).mean(0), rtol=1e-12)


@pytest.mark.parametrize("places", [(), (2, 3)])
def test_mixtures_count_where_both_labels_are_known(places, slow):
    logits, share = torch.randn(4, 5, *places, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    first, second = (torch.randint(0, 5, (4, *places)) for _ in range(2))
    first[0], second[2] = -1, -1
    terms = []
    for b in (1, 3):
        rows = logits[b].reshape(5, -1).T.tolist()
        for row, one, other in zip(rows, first[b].flatten().tolist(), second[b].flatten().tolist(), strict=True):
            p = slow.softmax(row)
            terms.append(-(1 - float(share[b])) * math.log(p[one]) - float(share[b]) * math.log(p[other]))
    found = mixed_cross_entropy(logits, first, second, share)
    assert found.item() == pytest.approx(slow.mean(terms), rel=1e-12)
    assert mixed_cross_entropy(logits, torch.full_like(first, -1), second, share) == 0
