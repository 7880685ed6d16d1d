import math

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.methods.parts.discriminator import Discriminator, Judgement, fooling_loss, norms, telling_losses


def log_sigmoid(value):
    return -math.log1p(math.exp(-value))


def test_the_layers_are_those_of_the_sheet():
    found = [type(layer).__name__ for layer in Discriminator(10, (128, 256)).layers]
    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    assert found == ["BatchNorm1d", *hidden, *hidden, "Linear"]
    widths = [tuple(weight.shape) for weight in Discriminator(10).weights()]
    assert widths == [(128, 10), (256, 128), (128, 256), (11, 128)]


def test_a_judgement_is_the_slow_loops(double):
    found = Discriminator(3, (4,)).double()
    with torch.no_grad():
        for norm in (found.layers[0], found.layers[2]):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    logits = torch.randn(5, 3)

    def normalised(rows, norm):
        columns = []
        for values, scale, shift in zip(zip(*rows), norm.weight.tolist(), norm.bias.tolist()):
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
            columns.append([(value - mean) / math.sqrt(variance + 0.01) * scale + shift for value in values])
        return list(zip(*columns))

    def linear(rows, layer):
        biases = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
        lines = list(zip(layer.weight.tolist(), biases))
        return [[sum(w * v for w, v in zip(line, row)) + bias for line, bias in lines] for row in rows]

    rows = normalised(logits.tolist(), found.layers[0])
    rows = normalised(linear(rows, found.layers[1]), found.layers[2])
    rows = linear([[max(0.0, value) for value in row] for row in rows], found.layers[4])
    judged = found(logits)
    assert judged.real.tolist() == pytest.approx([row[0] for row in rows], rel=1e-10)
    assert judged.classes.flatten().tolist() == pytest.approx([v for row in rows for v in row[1:]], rel=1e-10)


def test_losses_are_the_slow_loops_and_their_gradients_the_closed_forms(double, slow):
    teacher, student = (Judgement(torch.randn(4).requires_grad_(), torch.randn(4, 3).requires_grad_()) for _ in "ts")
    labels = torch.tensor([0, 2, 1, 2])
    found = telling_losses(teacher, student, labels)
    expected = {
        "real": slow.mean(-log_sigmoid(value) for value in teacher.real.tolist()),
        "fake": slow.mean(-log_sigmoid(-value) for value in student.real.tolist()),
        "classes": sum(slow.label_loss(judged.classes.tolist(), labels.tolist()) for judged in (teacher, student)),
        "leniency": slow.mean(-log_sigmoid(value) for value in student.real.tolist()),
    }
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-12)
    odds, likely = student.real.sigmoid(), teacher.real.sigmoid()
    closed = {"real": (likely - 1, None), "fake": (None, odds), "leniency": (None, odds - 1)}
    for name, gradients in closed.items():
        reached = torch.autograd.grad(found[name], [teacher.real, student.real], allow_unused=True)
        for one, other in zip(reached, gradients, strict=True):
            assert one is other is None or torch.allclose(one, other / 4, rtol=1e-12)
    for adversarial, gradient in (("non-saturating", odds - 1), ("minimax", -odds)):
        loss = fooling_loss(student.real, adversarial=adversarial)
        value = {"non-saturating": expected["leniency"], "minimax": -expected["fake"]}[adversarial]
        assert loss.item() == pytest.approx(value, rel=1e-12)
        assert torch.allclose(*torch.autograd.grad(loss, student.real), gradient / 4, rtol=1e-12)


def test_a_discriminator_that_knows_nothing():
    blank = Judgement(torch.zeros(3), torch.zeros(3, 7))
    found = telling_losses(blank, blank, torch.tensor([0, 1, 2]))
    once = pytest.approx(math.log(2))
    assert (found["real"], found["fake"], found["leniency"]) == (once, once, once)
    assert found["classes"].item() == pytest.approx(2 * math.log(7))
    assert fooling_loss(blank.real).item() == once
    assert fooling_loss(blank.real, adversarial="minimax").item() == pytest.approx(-math.log(2))


def test_leniency_keeps_the_discriminator_from_certainty(double):
    odds = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([odds], lr=1.0)
    judged = Judgement(odds, torch.zeros(1, 2))
    for _ in range(500):
        found = telling_losses(judged, judged, torch.tensor([0]))
        optimizer.zero_grad()
        (found["fake"] + 0.1 * found["leniency"]).backward()
        optimizer.step()
    assert odds.sigmoid().item() == pytest.approx(0.1 / 1.1)


@pytest.mark.parametrize("odds", [-1e4, 1e4])
def test_certainty_is_finite(odds):
    sure = Judgement(torch.full((2,), odds, requires_grad=True), torch.tensor([[odds, -odds]] * 2))
    losses = [*telling_losses(sure, sure, torch.tensor([0, 1])).values()]
    losses += [fooling_loss(sure.real, adversarial=name) for name in ("non-saturating", "minimax")]
    assert all(loss.isfinite() for loss in losses)
    (gradient,) = torch.autograd.grad(sum(losses), sure.real, retain_graph=True)
    assert gradient.isfinite().all()
    # Where it is sure of a fake, only the one term still teaches.
    slopes = [torch.autograd.grad(loss, sure.real)[0].abs().max().item() for loss in losses[-2:]]
    assert (slopes == [0.5, 0]) if odds < 0 else (slopes == [0, 0.5])


def test_norms():
    weights = [torch.tensor([[1.0, -2]]), torch.tensor([[3.0], [0]])]
    assert norms(weights).item() == 6 + 14
    found = Discriminator(4, (3,))
    for layer in found.layers:
        for parameter in layer.parameters():
            nn.init.constant_(parameter, 2.0)
    # 4 x 3 and 3 x 5 weights of linear layers; biases and batch norms are free.
    assert norms(found.weights()).item() == (12 + 15) * (2 + 4)


@pytest.mark.parametrize("value", [0.0, 1e4])
def test_equal_and_confident_logits_are_judged_in_float32(value):
    logits = torch.full((4, 6), value, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        judged = Discriminator(6)(logits)
    assert judged.real.dtype == judged.classes.dtype == torch.float32
    losses = telling_losses(judged, judged, torch.tensor([0, 1, 2, 3]))
    (gradient,) = torch.autograd.grad(sum(losses.values()), logits)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e4


def test_one_sample_cannot_be_normalised():
    with pytest.raises(UserError, match="two samples or more in a batch"):
        Discriminator(6)(torch.randn(1, 6))
    assert Discriminator(6).eval()(torch.randn(1, 6)).real.shape == (1,)
