"""The losses of images against slow loops, known answers, and differences instead of gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from tutelage.features.batch_norms import Moments, moments_of
from tutelage.synthesis.losses import (
    agreement,
    divergence,
    feature_distance,
    likely_class,
    roughness,
    statistics_loss,
    total_variation,
)


def moments(mean, std):
    return Moments(torch.tensor([float(mean)]).double(), torch.tensor([float(std) ** 2]).double())


STANDARD = moments(0, 1)


@pytest.mark.parametrize(
    ("mean", "std", "code", "paper"),
    [
        (0, 1, 0, 0),
        (1, 1, 0.5, 0.5),
        (1, 2, 1.306853, 0.443147),
        (0, 0.5, 0.318147, 0.806853),
        (0.3, 0.8, 0.088144, 0.128419),
    ],
)
def test_the_divergence_has_its_known_values_in_both_directions(mean, std, code, paper):
    found = moments(mean, std)
    assert divergence(found, STANDARD, "code").item() == pytest.approx(code, abs=5e-7)
    assert divergence(found, STANDARD, "paper").item() == pytest.approx(paper, abs=5e-7)
    # Each is the other with the roles exchanged.
    assert divergence(STANDARD, found, "paper").item() == pytest.approx(code, abs=5e-7)


def test_the_divergence_is_torchs_and_folding_does_not_change_it():
    torch.manual_seed(0)
    one, other = (Moments(torch.randn(5).double(), torch.rand(5).double() + 0.1) for _ in range(2))
    normal = [torch.distributions.Normal(it.mean, it.variance.sqrt()) for it in (one, other)]
    torch.testing.assert_close(divergence(one, other), torch.distributions.kl_divergence(*normal))
    torch.testing.assert_close(divergence(one, other, "paper"), torch.distributions.kl_divergence(*normal[::-1]))
    # A batch norm whose statistics are folded into the convolution before it remembers 0 and 1.
    folded = Moments((one.mean - other.mean) / other.variance.sqrt(), one.variance / other.variance)
    zeros = torch.zeros(5).double()
    torch.testing.assert_close(divergence(folded, Moments(zeros, zeros + 1)), divergence(one, other))


@pytest.mark.parametrize("direction", ["code", "paper"])
def test_dead_channels_are_finite_and_zero_where_they_stay_dead(direction):
    dead = Moments(torch.tensor([0.5]), torch.tensor([0.0]), floor=1e-5)
    assert divergence(dead, dead, direction).item() == 0
    images = torch.full((4, 1), 0.5, requires_grad=True)
    loss = divergence(moments_of(images), dead, direction).sum()
    (gradient,) = torch.autograd.grad(loss, images)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    alive = moments_of(torch.tensor([[0.4], [0.6]]))
    assert divergence(alive, dead, direction).isfinite().all()


@pytest.mark.parametrize("direction", ["code", "paper"])
def test_the_gradient_of_the_statistics_is_that_of_differences(direction):
    torch.manual_seed(0)
    kept = [Moments(torch.randn(3).double(), torch.rand(3).double() + 0.5, floor=1e-3) for _ in range(2)]

    def loss(images):
        layers = [images, images.square() + images]
        return statistics_loss([(moments_of(it), there) for it, there in zip(layers, kept)], direction)

    images = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, images)


def test_layers_and_channels_are_averaged():
    wide = Moments(torch.zeros(2).double(), torch.ones(2).double())
    layers = [(moments(1, 2), STANDARD), (Moments(torch.tensor([0.0, 1.0]).double(), wide.variance), wide)]
    assert statistics_loss(layers).item() == pytest.approx((1.306853 + 0.25) / 2, abs=5e-7)


def test_the_feature_distance_of_two_values():
    found = moments_of(torch.tensor([[0.0], [2.0]]))
    assert feature_distance([(found, moments(0, 1))]).item() == pytest.approx(1.0)
    assert feature_distance([(found, moments(0, 1))] * 2, first_weight=10).item() == pytest.approx(11.0)


def test_the_class_term_is_one_at_zero_logits_and_falls():
    targets = torch.tensor([2, 0])
    assert likely_class(torch.zeros(2, 3), targets).item() == 1
    logits = torch.tensor([[9.0, 9.0, 100.0], [300.0, 9.0, 9.0]])
    assert likely_class(logits, targets).item() == pytest.approx(math.exp(-4e-4 * 200))


def test_roughness_is_that_of_a_slow_blur():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    line = [math.exp(-(offset**2) / 2) for offset in range(-2, 3)]
    total = 0.0
    for n, c, y, x in [(n, c, y, x) for n in range(2) for c in range(3) for y in range(6) for x in range(7)]:
        blurred = 0.0
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                if 0 <= y + dy < 6 and 0 <= x + dx < 7:
                    blurred += line[dy + 2] * line[dx + 2] / sum(line) ** 2 * images[n, c, y + dy, x + dx].item()
        total += (images[n, c, y, x].item() - blurred) ** 2
    assert roughness(images).item() == pytest.approx(total / images.numel(), rel=1e-10)
    images.requires_grad_(True)
    assert torch.autograd.gradcheck(roughness, images)


def test_total_variation_is_four_lengths_of_the_whole_batch():
    images = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    right, down = math.hypot(1, 4), math.hypot(3, 6)
    assert total_variation(images).item() == pytest.approx(right + down + 7 + 2)
    # Twice the images are not twice the length.
    assert total_variation(images.repeat(2, 1, 1, 1)).item() == pytest.approx(math.sqrt(2) * (right + down + 9))


def test_agreement_is_one_for_equal_answers_and_nearly_zero_for_opposite_ones():
    logits = torch.tensor([[0.0, 3.0], [6.0, 0.0]])
    assert agreement(logits, logits).item() == pytest.approx(1.0)
    assert agreement(100 * logits, -100 * logits).item() == pytest.approx(0.0, abs=1e-6)
    p, q = (F.softmax(it.double() / 3, 1) for it in (logits, logits.flip(0)))
    middle = (p + q) / 2
    slow = ((p * (p / middle).log()).sum(1) + (q * (q / middle).log()).sum(1)).mean() / (2 * math.log(2))
    assert agreement(logits, logits.flip(0)).item() == pytest.approx(1 - slow.item(), rel=1e-5)
