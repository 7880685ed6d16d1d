"""Networks are trained and asked as copies, whatever they keep."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import TensorDataset

import tutelage
from tutelage.errors import UserError
from tutelage.models.copies import copy_of, freeze, is_lazy, sized
from tutelage.models.loading import load_network


class Net(nn.Module):
    def __init__(self, last=None):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), last or nn.Linear(4, 3)

    def forward(self, inputs):
        return self.last(self.norm(self.conv(inputs)).relu().mean((2, 3)))


class Keeping(Net):
    def forward(self, inputs):
        self.kept = [self.conv(inputs)]
        self.named = {"a": (self.kept[0],)}
        return self.last(self.norm(self.kept[0]).relu().mean((2, 3)))


class Lazy(nn.Module):
    def __init__(self, num_classes=3, in_channels=3):
        super().__init__()
        self.conv, self.last = nn.LazyConv2d(4, 3), nn.LazyLinear(num_classes)

    def forward(self, inputs):
        return self.last(self.conv(inputs).relu().mean((2, 3)))


def pruned():
    net = Net()
    prune.l1_unstructured(net.conv, "weight", 0.5)
    return net


INPUTS = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(60) % 3)
NETWORKS = {
    "activations": Keeping,
    "weight_norm": lambda: Net(nn.utils.weight_norm(nn.Linear(4, 3))),
    "spectral_norm": lambda: Net(nn.utils.spectral_norm(nn.Linear(4, 3))),
    "parametrized": lambda: Net(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
    "pruned": pruned,
    "script": lambda: torch.jit.script(Net()),
    "traced": lambda: torch.jit.trace(Net().eval(), INPUTS),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit"),
    pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm"),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_copy_answers_alike_and_learns_alone(name):
    network = NETWORKS[name]()
    network(INPUTS).sum().backward()
    network.zero_grad()
    before = network.eval()(INPUTS).detach().clone()
    twin = copy_of(network)
    assert torch.equal(twin(INPUTS), before)
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in network.parameters()]
    optimizer = torch.optim.SGD(twin.parameters(), 1.0)
    twin(INPUTS).square().sum().backward()
    optimizer.step()
    assert not torch.equal(twin(INPUTS), before)
    assert torch.equal(network(INPUTS), before)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_was_kept_twice_is_one_in_the_copy():
    network = Keeping()
    network(INPUTS)
    twin = copy_of(network)
    assert twin.kept[0] is twin.named["a"][0]
    assert twin.kept[0] is not network.kept[0]
    assert torch.equal(twin.kept[0], network.kept[0])
    assert not twin.kept[0].requires_grad


def test_frozen_parameters_stay_frozen():
    network = Net()
    network.conv.requires_grad_(False)
    assert not copy_of(network).conv.weight.requires_grad
    script = torch.jit.script(Net())
    assert not any(parameter.requires_grad for parameter in freeze(script).parameters())


def test_what_cannot_be_copied_is_told_with_the_way_out():
    network = Net()
    network.lock = threading.Lock()
    with pytest.raises(UserError, match=r"has to be copied, but cannot be: .*lock.*Pass a factory"):
        copy_of(network)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_one_of_them_teaches(name):
    network = NETWORKS[name]()
    network(INPUTS)
    student = tutelage.distill("kd", student=Net(), teacher=network.eval(), data=DATA, epochs=1, progress=False)
    assert isinstance(student, Net)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "traced"])
def test_every_one_of_them_learns(name):
    network = NETWORKS[name]()
    network(INPUTS)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    student = tutelage.distill("supervised", student=network, data=DATA, epochs=1, progress=False)
    after = student.state_dict()
    assert after.keys() == before.keys()
    assert not torch.equal(after["conv.bias"], before["conv.bias"])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_lazy_layers_get_the_sizes_of_the_data():
    network = Lazy()
    assert is_lazy(network)
    assert not is_lazy(sized(copy_of(network), INPUTS))
    assert is_lazy(network)
    for student in (network, Lazy):
        assert not is_lazy(tutelage.distill("supervised", student=student, data=DATA, epochs=1, progress=False))
    with pytest.raises(UserError, match="has lazy layers that have never seen an input"):
        freeze(network)


LAZY = """
from torch import nn

class Lazy(nn.Module):
    def __init__(self, num_classes=3, in_channels=3):
        super().__init__()
        self.conv, self.last = nn.LazyConv2d(4, 3), nn.LazyLinear(num_classes)

    def forward(self, inputs):
        return self.last(self.conv(inputs).relu().mean((2, 3)))
"""


def test_a_run_of_a_lazy_network_loads_again(tmp_path):
    (tmp_path / "nets.py").write_text(LAZY)
    settings = {"data": DATA, "epochs": 1, "progress": False}
    student = tutelage.distill("supervised", student=f"{tmp_path}/nets.py:Lazy", out=tmp_path / "run", **settings)
    again = load_network(str(tmp_path / "run"), num_classes=3, in_channels=3).eval()
    assert torch.equal(again(INPUTS), student(INPUTS))
