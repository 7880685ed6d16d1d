import copy
import math

import pytest
import torch
from torch import nn

from tutelage.core.teachers import (
    BlackBoxTeacher,
    EnsembleTeacher,
    FrozenTeacher,
    NoisyTeacher,
    ShuffledTeacher,
    Teacher,
    UniformTeacher,
    VirtualTeacher,
)
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.losses import kd_loss
from tutelage.models import CATALOGUE


class Says(Teacher):
    """Says the same whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, batch):
        return Output(logits=self.logits, features={"a": self.logits})


class Own(Teacher):
    """What a user might write, thinking of nothing."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch):
        return Output(logits=self.network(batch.inputs))


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


def batch_of(rows=16):
    return Batch(inputs=torch.randn(rows, 4) + 1, targets=torch.randint(0, 3, (rows,)))


TEACHERS = {
    "frozen": lambda: FrozenTeacher(network(), ["0", "1:in"]),
    "ensemble": lambda: EnsembleTeacher([FrozenTeacher(network()), FrozenTeacher(network())]),
    "noisy": lambda: NoisyTeacher(FrozenTeacher(network()), std=0.1),
    "shuffled": lambda: ShuffledTeacher(FrozenTeacher(network())),
    "black box": lambda: BlackBoxTeacher(network()),
    "own": lambda: Own(network()),
}


@pytest.fixture(params=list(TEACHERS))
def teacher(request):
    return TEACHERS[request.param]()


# Always in eval mode, always without gradient.


def test_a_teacher_is_born_in_eval_mode(teacher):
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("how", ["parent", "itself", "each child", "nested"])
def test_a_teacher_stays_in_eval_mode(teacher, how):
    parent = nn.ModuleDict({"student": network(), "wrapper": nn.ModuleList([teacher])})
    if how == "parent":
        parent.train()
    elif how == "itself":
        teacher.train()
    elif how == "each child":
        for child in parent.children():
            child.train()
    else:
        parent["wrapper"].train(True)
    assert not any(module.training for module in teacher.modules())
    assert parent["student"].training


def test_training_a_student_leaves_the_teacher_as_it_was(teacher):
    parent = nn.ModuleDict({"student": network(), "teacher": teacher})
    before = copy.deepcopy(teacher.state_dict())
    for epoch in range(2):
        parent.train()
        for _ in range(3):
            batch = batch_of()
            kd_loss(parent["student"](batch.inputs), teacher(batch).logits).backward()
        parent.eval()
        teacher(batch_of())
        assert parent["student"][1].num_batches_tracked == 3 * (epoch + 1)
    assert before.keys() == teacher.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_answers_carry_no_gradient(teacher):
    batch = batch_of()
    output = teacher(Batch(inputs=batch.inputs.requires_grad_(True), targets=batch.targets))
    assert not output.logits.requires_grad
    assert not any(feature.requires_grad for feature in output.features.values())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_teacher_must_answer():
    with pytest.raises(TypeError, match=r"Teacher must define forward\(batch\)"):
        Teacher()(batch_of())


# A network.


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


# Several.


def test_ensemble_is_the_log_of_the_mean_probability():
    logits = torch.randn(3, 5, 4, dtype=torch.float64) * 3
    output = EnsembleTeacher([Says(member) for member in logits])(batch_of(5))
    for b in range(5):
        rows = [[math.exp(z) for z in logits[m, b].tolist()] for m in range(3)]
        mean = [sum(row[k] / sum(row) for row in rows) / 3 for k in range(4)]
        assert output.logits[b].exp().tolist() == pytest.approx(mean, rel=1e-12)
    assert torch.equal(output.members, logits)


def test_ensemble_of_one_is_its_log_probability():
    logits = torch.randn(5, 4)
    found = EnsembleTeacher([Says(logits)])(batch_of(5)).logits
    assert torch.allclose(found, logits.log_softmax(1), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_ensemble_of_confident_teachers_stays_finite(dtype):
    first, second = torch.tensor([[1e4, 0.0, -1e4]], dtype=dtype), torch.tensor([[0.0, 1e4, -1e4]], dtype=dtype)
    output = EnsembleTeacher([Says(first), Says(second)])(batch_of(1))
    assert output.logits.dtype == torch.float32
    assert output.logits.isfinite().all()
    assert output.logits[0, :2].tolist() == pytest.approx([-math.log(2)] * 2, rel=1e-5)
    assert output.logits[0, 2] < -1e4


def test_an_ensemble_needs_members_that_agree_on_the_classes():
    with pytest.raises(UserError, match="at least one teacher"):
        EnsembleTeacher([])
    with pytest.raises(UserError, match=r"agree on the classes.*\(5, 3\), \(5, 4\)"):
        EnsembleTeacher([Says(torch.zeros(5, 3)), Says(torch.zeros(5, 4))])(batch_of(5))


# Disturbed.


def test_noise_is_relative_and_fresh():
    logits = torch.tensor([[10.0, -1.0, 0.0]]).repeat(20_000, 1)
    teacher = NoisyTeacher(Says(logits), std=0.2)
    first, second = teacher(batch_of(1)), teacher(batch_of(1))
    assert first.logits.mean(0).tolist() == pytest.approx([10.0, -1.0, 0.0], rel=0.01)
    assert first.logits.std(0).tolist() == pytest.approx([2.0, 0.2, 0.0], rel=0.03)
    assert not torch.equal(first.logits, second.logits)
    assert torch.equal(first.features["a"], logits)


def test_no_noise_changes_nothing():
    logits = torch.randn(4, 3)
    assert torch.equal(NoisyTeacher(Says(logits), std=0.0)(batch_of(4)).logits, logits)


@pytest.mark.parametrize("rows", [2, 3, 16])
def test_shuffling_gives_every_sample_the_answer_of_another(rows):
    logits = torch.arange(rows * 3.0).view(rows, 3)
    teacher, orders = ShuffledTeacher(Says(logits)), set()
    for _ in range(50):
        output = teacher(batch_of(rows))
        order = (output.logits[:, 0] / 3).long()
        assert torch.equal(output.logits, logits[order])
        assert sorted(order.tolist()) == list(range(rows))
        assert not (order == torch.arange(rows)).any()
        assert output.features == {}
        orders.add(tuple(order.tolist()))
    assert len(orders) == {2: 1, 3: 2, 16: 50}[rows]


def test_a_sample_alone_keeps_its_answer():
    assert torch.equal(ShuffledTeacher(Says(torch.ones(1, 3)))(batch_of(1)).logits, torch.ones(1, 3))


# Made by hand.


def test_uniform_teacher_knows_nothing():
    assert torch.equal(UniformTeacher(7)(batch_of(5)).logits, torch.zeros(5, 7))


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("confidence", [0.6, 0.99, 1.0])
def test_virtual_teacher_is_right_with_its_confidence(classes, confidence):
    batch = Batch(inputs=torch.zeros(6, 1), targets=torch.randint(0, classes, (6,)))
    probability = VirtualTeacher(classes, confidence=confidence)(batch).logits.softmax(1)
    expected = torch.full((6, classes), (1 - confidence) / (classes - 1))
    expected[torch.arange(6), batch.labels] = confidence
    assert torch.allclose(probability, expected, atol=1e-6)
    raw = VirtualTeacher(classes, confidence=confidence, softening="probability")(batch).logits
    assert torch.allclose(raw, expected, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0, 1000.0])
def test_a_one_hot_virtual_teacher_stays_one_hot_and_finite(temperature):
    batch = Batch(inputs=torch.zeros(1, 1), targets=torch.tensor([2]))
    logits = VirtualTeacher(5, confidence=1.0)(batch).logits
    assert (logits / temperature).softmax(1).tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0]]
    student = torch.randn(1, 5)
    expected = -(student / temperature).log_softmax(1)[0, 2] * temperature**2
    assert kd_loss(student, logits, temperature).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("classes", "confidence", "message"),
    [
        (10, 0.05, "confidence=0.05 .* chance, 1/10"),
        (10, 1.01, "confidence=1.01"),
        (10, math.nan, "confidence=nan"),
        (1, 0.99, "two classes or more, not 1"),
    ],
)
def test_virtual_teacher_refuses(classes, confidence, message):
    with pytest.raises(UserError, match=message):
        VirtualTeacher(classes, confidence=confidence)


def test_virtual_teacher_needs_labels():
    with pytest.raises(UserError, match="needs labels"):
        VirtualTeacher(3)(Batch(inputs=torch.zeros(2, 1)))


# Elsewhere.


def test_black_box_counts_what_it_is_asked():
    box = BlackBoxTeacher(lambda inputs: inputs * 2)
    assert box.queries == 0
    batch = batch_of(5)
    assert torch.equal(box(batch).logits, batch.inputs * 2)
    assert box(batch_of(3)).features == {}
    assert box.queries == 8


def test_networks_of_the_catalogue_teach():
    teacher = FrozenTeacher(CATALOGUE["tiny_cnn"](5), ["layer2", "embedding"], example=torch.zeros(2, 3, 16, 16))
    output = teacher(Batch(inputs=torch.randn(4, 3, 16, 16)))
    assert output.logits.shape == (4, 5)
    assert output.features["embedding"].shape == (4, 48)


def test_a_teacher_may_be_asked_about_other_inputs_than_the_student():
    torch.manual_seed(0)
    teacher = FrozenTeacher(nn.Linear(4, 3))
    clean, noisy = torch.randn(5, 4), torch.randn(5, 4)
    asked = Batch(inputs=noisy, targets=torch.zeros(5, dtype=torch.long), teacher_inputs=clean)
    expected = teacher(Batch(inputs=clean)).logits
    assert torch.equal(teacher(asked).logits, expected)
    assert torch.equal(EnsembleTeacher([teacher, teacher])(asked).members[1], expected)
    assert len(asked.to("cpu").teacher_inputs) == 5
