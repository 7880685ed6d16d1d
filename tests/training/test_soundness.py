"""Whether this machine computes in half precision what it computes in float32."""

import pytest
import torch
from torch import nn

from tutelage.methods.supervised import Supervised
from tutelage.models.loading import load_network
from tutelage.training import decisions as hardware
from tutelage.training import soundness
from tutelage.training.decisions import decide
from tutelage.training.settings import Training
from tutelage.training.soundness import unsound_convolutions


@pytest.fixture
def broken(monkeypatch):
    """A machine that computes strided convolutions of eight channels wrongly in half precision."""
    right = nn.functional.conv2d

    def conv2d(inputs, weight, bias, stride, *others):
        answer = right(inputs, weight, bias, stride, *others)
        is_wrong = inputs.dtype != torch.float32 and weight.shape[1] == 8 and tuple(stride) == (2, 2)
        return answer.flip(1) if is_wrong else answer

    monkeypatch.setattr(soundness.nn.functional, "conv2d", conv2d)


def network():
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, 2), nn.Conv2d(8, 16, 3, padding="same"), nn.Conv2d(8, 8, 3, 2)]
    return nn.Sequential(*layers)


def test_wrong_convolutions_are_named_all_of_them(broken):
    assert unsound_convolutions(network()) == ["1", "3"]


def test_a_shape_is_tried_once(broken, monkeypatch):
    tried = []
    verdict = soundness._is_sound
    monkeypatch.setattr(soundness, "_is_sound", lambda layer, dtype: (tried.append(layer), verdict(layer, dtype))[1])
    unsound_convolutions(network())
    assert len(tried) == 2


def test_float32_is_sound_and_nothing_changes():
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    assert unsound_convolutions(net, torch.float32) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_wrong_gradient_is_found_too(monkeypatch):
    right = nn.functional.conv2d

    def conv2d(inputs, weight, *others):
        answer = right(inputs, weight, *others)
        # As much as the answer itself, and nothing of it flows back.
        return answer if inputs.dtype == torch.float32 else answer.detach() + 0 * answer + 1e-3 * weight.sum()

    monkeypatch.setattr(soundness.nn.functional, "conv2d", conv2d)
    assert unsound_convolutions(nn.Conv2d(3, 4, 3)) == [""]


@pytest.mark.parametrize(("wish", "precision"), [("auto", "32-true"), ("bf16-mixed", "bf16-mixed")])
def test_a_run_does_without_unless_asked_for_and_says_why(wish, precision, monkeypatch):
    monkeypatch.setattr(hardware, "unsound_convolutions", lambda method: ["student.model.stem", "student.model.layer1"])
    monkeypatch.setattr(hardware, "has_native_bf16", lambda device: True)
    monkeypatch.setattr(hardware, "SMALL_FLOPS", 0)
    method = Supervised(load_network("tiny_cnn", num_classes=4))
    training = Training(precision=wish, device="cpu")
    decision = decide(training, method, torch.zeros(2, 3, 16, 16), samples=1)
    assert decision.precision == precision
    assert "student.model.stem and 1 more wrongly" in str(decision)
