"""What the switches on `auto` become."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.hardware import decide, device_type
from tutelage.methods.supervised import Supervised
from tutelage.training import Training

TRAINING = Training(device="cpu")
IMAGES = torch.zeros(1, 3, 16, 16)


def method(width=4):
    return Supervised(
        nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    )


def test_the_decision_depends_on_sizes_alone():
    first = decide(TRAINING, method(), IMAGES, samples=1000)
    assert decide(TRAINING, method(), torch.rand(4, 3, 16, 16), samples=1000) == first


@pytest.mark.parametrize("capable", [True, False])
def test_bf16_where_it_is_native_and_networks_are_not_tiny(capable, monkeypatch):
    monkeypatch.setattr("tutelage.hardware.has_native_bf16", lambda device: capable)
    assert decide(TRAINING, method(4), IMAGES, samples=1).precision == "32-true"
    large = decide(TRAINING, method(1024), IMAGES, samples=1)
    assert large.precision == ("bf16-mixed" if capable else "32-true")


def test_compilation_where_it_pays_back():
    assert not decide(TRAINING, method(), IMAGES, samples=10**4).compile
    assert decide(TRAINING, method(), IMAGES, samples=10**12).compile


def test_a_wish_is_granted():
    asked = replace(TRAINING, precision="16-mixed", compile="on", channels_last="off")
    decision = decide(asked, method(), IMAGES, samples=1)
    assert (decision.precision, decision.compile, decision.channels_last) == ("16-mixed", True, False)
    assert "asked for" in str(decision)


def test_only_images_are_stored_channels_last():
    flat = Supervised(nn.Linear(8, 3))
    assert not decide(TRAINING, flat, torch.zeros(1, 8), samples=1).channels_last
    assert decide(TRAINING, method(), IMAGES, samples=1).channels_last


def test_the_method_is_left_in_its_mode():
    one = method().train()
    decide(TRAINING, one, IMAGES, samples=1)
    assert all(module.training for module in one.modules())


def test_devices_that_do_not_exist_are_told():
    assert device_type("cpu") == "cpu"
    with pytest.raises(UserError, match="Did you mean 'cpu'"):
        device_type("gpu")


def test_devices_that_are_absent_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no cuda device here"):
        device_type("cuda")
