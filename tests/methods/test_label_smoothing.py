import itertools
import math

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.methods.label_smoothing import LabelSmoothing, matched_label_smoothing
from tutelage.methods.tf_kd_reg import TfKDReg

SETTINGS = [
    {"alpha": alpha, "temperature": temperature, "multiplier": multiplier, "confidence": confidence}
    for alpha, temperature, multiplier, confidence in itertools.product(
        (0.1, 0.5, 0.95), (1.0, 20.0, 40.0), (1.0, 50.0), (0.9, 0.99)
    )
]


@pytest.mark.parametrize("variant", ["uniform", "others"])
def test_loss_against_loops_and_closed_gradient(variant, double, slow, measure, echo):
    logits, labels = torch.randn(5, 4) * 3, torch.randint(0, 4, (5,))
    rest = {"uniform": 0.2 / 4, "others": 0.2 / 3}[variant]
    targets = [[0.8 + (rest if variant == "uniform" else 0) if k == y else rest for k in range(4)] for y in labels]
    found = measure(LabelSmoothing(echo, 4, smoothing=0.2, variant=variant, loss_scale=0.5), logits, labels)
    assert found.losses["ce"] == pytest.approx(slow.target_loss(logits.tolist(), targets), rel=1e-12)
    assert found.total == pytest.approx(found.losses["ce"] / 2, rel=1e-12)
    assert torch.allclose(found.gradient, 0.5 * (logits.softmax(1) - torch.tensor(targets)) / 5, atol=1e-15)


def test_no_smoothing_is_plain_training(measure, echo):
    logits, labels = torch.randn(5, 4), torch.randint(0, 4, (5,))
    found = measure(LabelSmoothing(echo, 4, smoothing=0.0), logits, labels)
    assert found.total == nn.functional.cross_entropy(logits, labels).item()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("classes", [10, 100])
def test_the_match_is_the_released_code_up_to_a_constant(setting, classes, double, measure, echo):
    labels = torch.randint(0, classes, (6,))
    code, match = (
        TfKDReg(echo, classes, variant="code", **setting),
        matched_label_smoothing(echo, classes, **setting),
    )
    gaps = []
    for _ in range(2):
        logits = torch.randn(6, classes) * 3
        ours, theirs = measure(match, logits, labels), measure(code, logits, labels)
        assert torch.allclose(ours.gradient, theirs.gradient, rtol=1e-9, atol=1e-14)
        gaps.append(ours.total - theirs.total)
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.95, 1.0])
def test_the_match_of_the_paper_holds_at_temperature_one(alpha, double, measure, echo):
    logits, labels = torch.randn(6, 10) * 3, torch.randint(0, 10, (6,))
    ours = measure(matched_label_smoothing(echo, 10, alpha=alpha, variant="paper"), logits, labels)
    theirs = measure(TfKDReg(echo, 10, alpha=alpha, temperature=1.0), logits, labels)
    hot = measure(TfKDReg(echo, 10, alpha=alpha, temperature=20.0), logits, labels)
    assert torch.allclose(ours.gradient, theirs.gradient, atol=1e-14)
    assert torch.allclose(ours.gradient, hot.gradient, atol=1e-4) == (alpha == 0)


def test_the_match_has_the_scale_of_the_recipe():
    mobilenet = matched_label_smoothing(nn.Linear(2, 100), 100, alpha=0.95, temperature=40.0)
    assert mobilenet.weights["ce"] == pytest.approx(0.0595, rel=1e-12)
    resnet = matched_label_smoothing(nn.Linear(2, 100), 100, alpha=0.1, temperature=20.0, multiplier=100.0)
    assert resnet.weights["ce"] == pytest.approx(1.0, rel=1e-12)
    assert resnet.smoothing / 100 == pytest.approx(0.000999, abs=5e-7)


def test_a_teacher_without_confidence_is_matched_as_well(double, measure, echo):
    setting = {"alpha": 1.0, "confidence": 0.1, "temperature": 1.0, "variant": "paper"}
    logits, labels = torch.randn(6, 10), torch.randint(0, 10, (6,))
    ours = measure(matched_label_smoothing(echo, 10, **setting), logits, labels)
    assert torch.allclose(ours.gradient, measure(TfKDReg(echo, 10, **setting), logits, labels).gradient, atol=1e-15)


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (10, {"smoothing": -0.1}, "smoothing"),
        (10, {"smoothing": 1.1}, "smoothing"),
        (10, {"smoothing": math.nan}, "smoothing"),
        (2, {"smoothing": 0.6, "variant": "others"}, "leave the label no less"),
        (10, {"loss_scale": 0.0}, "loss_scale"),
    ],
)
def test_mistakes_are_told(classes, options, message):
    with pytest.raises(UserError, match=message):
        LabelSmoothing(nn.Linear(2, classes), classes, **options)
