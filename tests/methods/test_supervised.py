import math

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.methods.supervised import Supervised, supervised_teacher


def test_loss_against_loops_and_closed_gradient(double, slow, measure, echo):
    logits, labels = torch.randn(5, 4), torch.randint(0, 4, (5,))
    found = measure(Supervised(echo, loss_scale=0.3), logits, labels)
    assert found.losses == pytest.approx({"ce": slow.label_loss(logits.tolist(), labels.tolist())}, rel=1e-12)
    assert found.total == pytest.approx(0.3 * found.losses["ce"], rel=1e-12)
    closed = 0.3 * (logits.softmax(1) - nn.functional.one_hot(labels, 4)) / 5
    assert torch.allclose(found.gradient, closed, atol=1e-15)


def test_scale_acts_in_one_place():
    by_loss = Supervised(nn.Linear(2, 2), loss_scale=0.25)
    by_optimizer = Supervised(nn.Linear(2, 2), loss_scale=0.25, scale_by="optimizer")
    assert (by_loss.weights["ce"], by_optimizer.weights["ce"]) == (0.25, 1.0)
    specs = [method.optimizers()["student"] for method in (by_loss, by_optimizer)]
    assert [(spec.lr_scale, spec.weight_decay_scale) for spec in specs] == [(1.0, 1.0), (0.25, 4.0)]


def test_trains_whatever_is_trainable():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    assert list(Supervised(network).optimizers()["student"].params) == list(network[1].parameters())


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_scale_must_be_positive(scale):
    with pytest.raises(UserError, match=r"loss_scale=.*above zero"):
        Supervised(nn.Linear(2, 2), loss_scale=scale)


def test_supervised_teacher_trains_the_teachers_architecture(run, make, without_test):
    network = supervised_teacher(run, make, without_test)
    (fit,) = run.fits
    assert make.parts == ["teacher"]
    assert network is make.networks[0]
    assert isinstance(fit.method, Supervised)
    assert catalogue.get("supervised-teacher").trains == "teacher"
