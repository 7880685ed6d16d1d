"""A network as a teacher: what it answers, and its layers."""

import torch
from torch import nn

from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.models import CATALOGUE


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


def batch_of(rows=16):
    return Batch(inputs=torch.randn(rows, 4) + 1, targets=torch.randint(0, 3, (rows,)))


def test_frozen_teacher_answers_what_its_network_does_in_eval_mode():
    net, batch = network(), batch_of()
    net(batch.inputs)
    teacher = FrozenTeacher(net, ["0", "1:in"], example=batch.inputs[:2])
    output = teacher(batch)
    assert teacher.network is net
    assert torch.equal(output.logits, net.eval()(batch.inputs))
    assert torch.equal(output.features["0"], net[0](batch.inputs))
    assert torch.equal(output.features["1:in"], output.features["0"])
    assert dict(teacher.shapes) == {"0": (2, 8), "1:in": (2, 8)}


def test_gradients_may_flow_through_a_frozen_network_to_its_inputs():
    teacher, inputs = FrozenTeacher(network()), torch.randn(2, 4, requires_grad=True)
    teacher.network(inputs).sum().backward()
    assert inputs.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_reading_other_layers_shares_the_network():
    teacher, batch = FrozenTeacher(network(), ["0"]), batch_of()
    other = teacher.reading(["3:in"], example=batch.inputs)
    assert other.network is teacher.network
    assert list(other(batch).features) == ["3:in"]
    assert list(teacher(batch).features) == ["0"]
    assert not other.network.training


def test_networks_of_the_catalogue_teach():
    teacher = FrozenTeacher(CATALOGUE["tiny_cnn"](5), ["layer2", "embedding"], example=torch.zeros(2, 3, 16, 16))
    output = teacher(Batch(inputs=torch.randn(4, 3, 16, 16)))
    assert output.logits.shape == (4, 5)
    assert output.features["embedding"].shape == (4, 48)
