import copy

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.features.ending import AbsentLogits
from tutelage.features.extractor import FeatureExtractor
from tutelage.methods.parts.trunk import Trunk, parameters_below, thaw
from tutelage.models import CATALOGUE
from tutelage.testing.toys import ToyNetwork

EXAMPLE = torch.randn(4, 3, 12, 16)


def names(network, *prefixes):
    return {name for name, _ in network.named_parameters() if name.startswith(prefixes)}


def trainable(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_parameters_below_a_layer():
    network = CATALOGUE["tiny_cnn"](5)
    below = parameters_below(FeatureExtractor(network, ["layer2"]), EXAMPLE)
    assert below == names(network, "stem", "layer1", "layer2")
    assert below < names(network, "")


def test_of_several_layers_the_last_counts():
    network = CATALOGUE["tiny_cnn"](5)
    below = parameters_below(FeatureExtractor(network, ["layer1:in", "layer3:in"]), EXAMPLE)
    assert below == names(network, "stem", "layer1", "layer2")


def test_a_branch_that_is_not_read_is_not_below():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.other = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, inputs):
            return (self.other(inputs) + self.read(inputs)).mean((2, 3))

    network = Forked()
    assert parameters_below(FeatureExtractor(network, ["read"]), EXAMPLE) == names(network, "read")


def test_looking_moves_no_statistics_and_leaves_no_gradient():
    network = ToyNetwork()
    before = copy.deepcopy(network.state_dict())
    Trunk(network, ["layer1"], example=EXAMPLE)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_only_what_lies_below_is_trained_and_only_its_statistics_move():
    network = ToyNetwork()
    trunk = Trunk(network, ["layer1"], example=EXAMPLE)
    assert trainable(network) == names(network, "layer1")
    assert set(trunk.waiting) == names(network, "layer2", "classifier")
    before = copy.deepcopy(network.state_dict())
    trunk.train()(EXAMPLE)
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {f"layer1.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_modes_come_and_go():
    network = ToyNetwork()
    trunk = Trunk(network, ["layer1"], example=EXAMPLE)
    trunk.train()
    assert network.training
    assert network.layer1[1].training
    assert not network.layer2[1].training
    trunk.eval()
    assert not any(module.training for module in network.modules())


def test_a_normalisation_without_parameters_waits_with_its_stage():
    network = ToyNetwork()
    network.layer2[1] = nn.BatchNorm2d(12, affine=False)
    Trunk(network, ["layer1"], example=EXAMPLE).train()
    assert not network.layer2[1].training


def test_a_normalisation_without_parameters_waits_beside_the_stages():
    class Network(ToyNetwork):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(12, affine=False)

        def forward(self, inputs):
            return self.classifier(self.last(self.layer2(self.layer1(self.first(inputs)))).mean((2, 3)))

    network = Network()
    trunk = Trunk(network, ["layer1"], example=EXAMPLE).train()
    assert network.training
    assert network.first.training
    assert not network.last.training
    assert not any(module._forward_pre_hooks for module in network.modules())
    trunk.eval()
    assert not network.first.training
    # What is read is the input of a layer: the layer itself waits.
    Trunk(Network(), ["last:in"], example=EXAMPLE).train()
    twin = Network()
    Trunk(twin, ["last:in"], example=EXAMPLE).train()
    assert not twin.last.training
    assert twin.layer2.training


def test_what_its_user_froze_stays_frozen_and_keeps_its_mode():
    network = ToyNetwork()
    network.layer1[1].requires_grad_(False)
    network.classifier.requires_grad_(False)
    trunk = Trunk(network, ["layer1"], example=EXAMPLE)
    assert network.layer1[1].train().training
    trunk.train()
    assert network.layer1[1].training
    thaw(network, trunk.waiting)
    assert trainable(network) == names(network, "layer1.0", "layer2")


def test_a_copy_is_thawed_alone():
    network = ToyNetwork()
    trunk = Trunk(network, ["layer1"], example=EXAMPLE)
    twin = copy.deepcopy(trunk.release())
    assert thaw(twin, trunk.waiting) is twin
    assert trainable(twin) == names(network, "")
    assert trainable(network) == names(network, "layer1")


def test_nothing_below_is_refused():
    with pytest.raises(UserError, match=r"below the layers \['layer1:in'\]"):
        Trunk(ToyNetwork(), ["layer1:in"], example=EXAMPLE)


def test_in_train_mode_nothing_runs_above_and_in_eval_mode_everything():
    network = ToyNetwork()
    trunk, calls = Trunk(network, ["layer1"], example=EXAMPLE), []
    network.layer2.register_forward_hook(lambda *_: calls.append(1))
    trained = trunk.train()(EXAMPLE)
    assert not calls
    assert isinstance(trained.logits, AbsentLogits)
    assert trained.features["layer1"].requires_grad
    assert trunk.eval()(EXAMPLE).logits.shape == (4, 6)
    assert calls
