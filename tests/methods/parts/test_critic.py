"""The critic, its game and its penalty."""

import pytest
import torch
from torch import nn

from tutelage.methods.parts.critic import Critic, SelfAttention, critic_loss, gradient_penalty, judged


def test_self_attention_is_the_identity_at_first_and_a_slow_loop_after():
    torch.manual_seed(0)
    layer, maps = SelfAttention(8).double(), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    assert torch.equal(layer(maps), maps)
    layer.gamma.data.fill_(0.7)
    found = layer(maps)
    query, key, value = (part(maps).flatten(2) for part in (layer.query, layer.key, layer.value))
    for n in range(2):
        for i in range(12):
            scores = torch.stack([query[n, :, i] @ key[n, :, j] for j in range(12)]).softmax(0)
            mixed = sum(scores[j] * value[n, :, j] for j in range(12))
            torch.testing.assert_close(found.flatten(2)[n, :, i], maps.flatten(2)[n, :, i] + 0.7 * mixed)
    assert layer.query.out_channels == 1


@pytest.mark.parametrize("size", [(65, 65), (23, 30), (3, 4), (16, 40)])
@pytest.mark.parametrize("spectral", [True, False])
def test_it_gives_each_sample_a_score_whatever_the_size(size, spectral):
    critic = Critic(5, size, spectral=spectral)
    assert critic(torch.randn(2, 5, *size)).shape == (2,)
    normed = [name for name, _ in critic.named_buffers() if name.endswith("_u")]
    assert len(normed) == (4 if spectral else 0)


def test_its_layers_on_the_maps_of_the_paper():
    critic = Critic(19, (65, 65))
    kinds = [type(layer).__name__ for layer in critic.layers]
    convolution = ["ParametrizedConv2d", "LeakyReLU"]
    assert kinds == ["BatchNorm2d", *convolution * 3, "SelfAttention", *convolution, "SelfAttention", "Conv2d"]
    last = critic.layers[-1]
    assert last.kernel_size == (4, 4)
    assert last(critic.layers[:-1](torch.randn(2, 19, 65, 65))).shape == (2, 1, 1, 1)


@pytest.mark.parametrize("length", [0.0, 1.0, 2.0])
def test_the_penalty_of_a_linear_critic_is_known_everywhere(length):
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(12, dtype=torch.float64) * length / 12**0.5)

        def forward(self, maps):
            return maps.flatten(1) @ self.weight

    critic = Linear()
    real = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    fake = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    penalty = gradient_penalty(critic, real, fake, torch.rand(3, dtype=torch.float64))
    assert penalty.item() == pytest.approx((length - 1) ** 2, abs=1e-12)
    if length:
        (slope,) = torch.autograd.grad(penalty, critic.weight)
        torch.testing.assert_close(slope, 2 * (length - 1) * critic.weight.detach() / length)


def test_the_points_of_the_penalty_lie_between():
    seen = []

    def critic(points):
        seen.append(points.detach().clone())
        return points.flatten(1).sum(1)

    real, fake = torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    gradient_penalty(critic, real, fake, torch.tensor([0.25, 1.0]))
    assert seen[0].flatten().tolist() == [0.25, 1.0]


def test_the_games():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert critic_loss(real, fake).item() == pytest.approx(-1.5 - 1.25)
    assert critic_loss(real, fake, "hinge").item() == pytest.approx(0.25 + 0.5)


def test_what_is_judged():
    logits, images = torch.randn(2, 4, 3, 5), torch.rand(2, 3, 12, 20)
    assert judged(logits, None) is logits
    beside = judged(logits, images)
    assert beside.shape == (2, 7, 3, 5)
    torch.testing.assert_close(beside[:, 3:], logits.softmax(1))
    torch.testing.assert_close(beside[:, :3], nn.functional.interpolate(images, (3, 5), mode="bilinear"))
