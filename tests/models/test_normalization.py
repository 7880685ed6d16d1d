import copy

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models import Normalization, Normalized, bare
from tutelage.models.zoo.tiny import tiny_cnn

IMAGENET = Normalization.named("imagenet")


@pytest.fixture
def network():
    return Normalized(tiny_cnn(10, width=4), IMAGENET.mean, IMAGENET.std).eval()


def test_inputs_are_normalised(network):
    inputs = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    assert torch.equal(network(inputs), network.model((inputs - mean) / std))


def test_weights_are_those_of_the_bare_network(network):
    assert not any(key.endswith(("mean", "std")) and "running" not in key for key in network.state_dict())
    tiny_cnn(10, width=4).load_state_dict(bare(network).state_dict())


def test_bare_unwraps_everything(network):
    model = network.model
    assert bare(model) is model
    assert bare(network) is model
    assert bare(Normalized(nn.DataParallel(model), (0.5,), (0.5,))) is model
    assert bare(torch.compile(network, backend="eager")) is model


def test_copies_compiles_and_keeps_channels_last(network):
    inputs = torch.rand(2, 3, 8, 8)
    expected = network(inputs)
    assert torch.equal(copy.deepcopy(network)(inputs), expected)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(inputs), expected, atol=1e-6)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    assert torch.allclose(last(inputs.to(memory_format=torch.channels_last)), expected, atol=1e-5)
    seen = []
    last.model.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    last(inputs.to(memory_format=torch.channels_last))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_normalises_in_float32_under_autocast(network):
    seen = []
    network.model.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.rand(2, 3, 8, 8))
    assert seen[0].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_follows_the_network_to_other_precisions(network, dtype):
    assert network.to(dtype)(torch.rand(2, 3, 8, 8)).dtype == dtype


def test_one_value_serves_any_channels():
    assert Normalized(tiny_cnn(10, in_channels=1), (0.5,), (0.5,))(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8)])
def test_wrong_channels_are_told(network, shape):
    with pytest.raises(UserError, match="normalises 3 channels"):
        network(torch.rand(shape))


def test_bytes_are_refused(network):
    with pytest.raises(UserError, match="divide by 255"):
        network(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_statistics_are_read_and_written():
    read = Normalization.parse("0.5/0.4/0.3:0.2/0.2/0.1")
    assert read == Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    assert Normalization.parse(str(read)) == read
    assert Normalization.parse("cifar100").mean[0] == 0.50707516


@pytest.mark.parametrize("text", ["0.5:0.2/0.2", "0.5:0", "a:b", "0.5:0.2:0.1", "0.5:nan", "imagnet", ""])
def test_wrong_statistics_are_refused(text):
    with pytest.raises(UserError):
        Normalization.parse(text)
