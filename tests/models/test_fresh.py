import math

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models import Normalized, fresh
from tutelage.models.zoo.resnet import resnet8
from tutelage.models.zoo.tiny import tiny_cnn


def flat(network):
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


def test_new_parameters_under_a_seed():
    network = Normalized(tiny_cnn(10, width=4), (0.5,), (0.5,))
    network(torch.rand(4, 3, 8, 8))
    before, random_state = flat(network).clone(), torch.get_rng_state()
    one, again, other = fresh(network, 1), fresh(network, 1), fresh(network, 2)
    assert torch.equal(flat(one), flat(again))
    assert not torch.equal(flat(one), flat(other))
    assert torch.equal(flat(network), before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert one.model.stem[1].running_mean.abs().max() == 0


def test_a_network_keeps_its_own_initialisation():
    convolution = fresh(resnet8(10), 0).layer3[0].body[1][0]
    assert math.isclose(convolution.weight.std().item(), math.sqrt(2 / (64 * 9)), rel_tol=0.02)


def test_attention_is_reset():
    assert flat(fresh(nn.TransformerEncoderLayer(8, 2, 16), 0)).isfinite().all()


def test_frozen_parameters_stay_frozen():
    network = tiny_cnn(10, width=4).requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in fresh(network, 0).parameters())


class Token(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(3))


class ResettableToken(Token):
    def init_weights(self, scale=2.0):
        nn.init.constant_(self.token, scale)


def test_what_cannot_be_reset_is_named():
    with pytest.raises(UserError, match=r"1 \(Token\). Pass a factory"):
        fresh(nn.Sequential(nn.Linear(2, 2), Token()), 0)
    assert fresh(nn.Sequential(ResettableToken()), 0)[0].token.tolist() == [2, 2, 2]
