import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models.zoo.wrn import wrn, wrn_16_1

COUNTS = {"wrn_16_1": 180_916, "wrn_16_2": 703_284, "wrn_40_1": 569_780, "wrn_40_2": 2_255_156}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameters(name, count, parameters):
    assert parameters(name, 100) == count


def test_maps(maps):
    assert maps("wrn_16_1") == ([(16, 32), (16, 32), (32, 16), (64, 8)], 64)
    assert maps("wrn_40_2") == ([(16, 32), (32, 32), (64, 16), (128, 8)], 128)


def test_maps_are_raw_and_the_classifier_sees_them_normalised():
    network = wrn_16_1(10).eval()
    seen = []
    network.layer3.register_forward_hook(lambda m, i, o: seen.append(o))
    network.classifier.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    with torch.no_grad():
        network(torch.rand(2, 3, 32, 32))
    last, embedding = seen
    assert last.min() < 0
    assert torch.allclose(network.tail(last).mean((2, 3)), embedding, atol=1e-6)


def test_a_wrong_depth_is_refused():
    with pytest.raises(UserError, match="6n\\+4"):
        wrn(10, depth=17)


def test_dropout_between_the_convolutions_of_every_block():
    plain, network = wrn(10), wrn(10, dropout=0.4)
    assert plain.state_dict().keys() == network.state_dict().keys()
    assert not [layer for layer in plain.modules() if isinstance(layer, nn.Dropout)]
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.4] * 6
    network.load_state_dict(plain.state_dict())
    with torch.no_grad():
        images = torch.rand(2, 3, 32, 32)
        assert torch.equal(network.eval()(images), plain.eval()(images))
    block, inputs = network.layer1[0], torch.rand(2, 16, 8, 8)
    seen = []
    block.conv2.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    block.dropout.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    block.train()(inputs)
    before, after = seen
    assert before.min() == 0, "behind the ReLU"
    kept = after != 0
    assert torch.allclose(after[kept], (before / 0.6)[kept])
    assert 0.3 < 1 - (after[before > 0] != 0).float().mean() < 0.5


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_share_is_refused(dropout):
    with pytest.raises(UserError, match="from 0 .none. to below 1"):
        wrn(10, dropout=dropout)
