"""Settings of a training run, and the learning rates and optimizers that follow from them."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from tutelage.core.method import OptimizerSpec
from tutelage.errors import UserError
from tutelage.training.settings import Training


def factors(training, steps_per_epoch=10, epochs=10):
    total = steps_per_epoch * epochs
    return [training.lr_factor(step, steps_per_epoch=steps_per_epoch, total_steps=total) for step in range(total)]


def test_warm_up_rises_batch_by_batch_to_the_peak():
    found = factors(Training(warmup_epochs=2, schedule="constant"))
    assert found[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert set(found[20:]) == {1.0}


def test_cosine_falls_from_the_peak_towards_zero():
    found = factors(Training(warmup_epochs=0))
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5)
    assert found[-1] == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)
    assert all(before > after for before, after in pairwise(found))


def test_steps_fall_at_the_milestones():
    found = factors(Training(warmup_epochs=0, schedule="steps", milestones=(0.3, 0.6), gamma=0.1))
    assert [found[step] for step in (0, 29, 30, 59, 60, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_warm_up_longer_than_the_run_is_left_out():
    assert factors(Training(warmup_epochs=50, schedule="constant")) == [1.0] * 100


def test_scales_of_a_spec_reach_the_optimizer():
    spec = OptimizerSpec(params=[nn.Parameter(torch.ones(2))], lr_scale=0.5, weight_decay_scale=2.0)
    for kind, lr in (("sgd", 0.1), ("adamw", 0.01)):
        group = Training(optimizer=kind, lr=lr, weight_decay=0.3).build_optimizer(spec).param_groups[0]
        assert group["initial_lr"] == group["lr"] == pytest.approx(lr / 2)
        assert group["weight_decay"] == pytest.approx(0.6)


def test_an_optimizer_of_the_methods_own():
    spec = OptimizerSpec(params=[nn.Parameter(torch.ones(2))], build=lambda params: torch.optim.RMSprop(params, lr=0.4))
    optimizer = Training().build_optimizer(spec)
    assert isinstance(optimizer, torch.optim.RMSprop)
    assert optimizer.param_groups[0]["initial_lr"] == 0.4


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0},
        {"epochs": -1},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"momentum": -0.1},
        {"weight_decay": -1e-4},
        {"warmup_epochs": -1},
        {"workers": -1},
        {"milestones": (0.6, 0.3)},
        {"milestones": (30, 60)},
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        Training(**setting)


def test_what_is_not_to_be_fused_is_not_whoever_made_it():
    weight = nn.Parameter(torch.ones(2))
    for build in (None, lambda params: torch.optim.Adam(params, lr=0.1, fused=True)):
        spec = OptimizerSpec(params=[weight], build=build)
        assert Training().build_optimizer(spec).param_groups[0]["fused"]
        assert Training(fused="off").build_optimizer(spec, fused=True).param_groups[0]["fused"]
        for optimizer in (Training().build_optimizer(spec, fused=False), Training(fused="off").build_optimizer(spec)):
            assert not optimizer.param_groups[0]["fused"]
            assert not getattr(optimizer, "_step_supports_amp_scaling", False)
            weight.grad = torch.ones(2)
            optimizer.step()


def test_identity_leaves_out_what_changes_no_result():
    plain = Training().identity()
    assert Training(checkpoint_seconds=1.0, log_every=3, workers=0).identity() == plain
    assert Training(threads=1, fused="off").identity() == plain
    assert Training(lr=0.2).identity() != plain
    assert Training(keep="last").identity() != plain


@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("schedule", ["cosine", "steps", "constant"])
def test_learning_rates_are_those_of_earlier_versions_to_the_last_bit(schedule, warmup):
    training = Training(warmup_epochs=warmup, schedule=schedule, milestones=(0.3, 0.6), gamma=0.2)
    for step, found in enumerate(factors(training)):
        expected = {
            "cosine": (1 + math.cos(math.pi * (step / 100))) / 2,
            "steps": 0.2 ** sum(step / 100 >= milestone for milestone in (0.3, 0.6)),
            "constant": 1.0,
        }[schedule]
        assert found == ((step + 1) / 20 if step < 10 * warmup else expected)
