"""Data-free distillation against a slow loop, and what it does to layers that differ or stand still."""

import pytest
import torch
from torch import nn

from tutelage.core.teachers import BlackBoxTeacher, FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.data_free import DataFree, auxiliary_loss, mix
from tutelage.system.console import Silent
from tutelage.testing.toys import ToyNetwork, toy_batch


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text, *, once=False):
        self.notes.append(str(text))


def toy(width=6, teacher_width=6, **options):
    torch.manual_seed(0)
    batch = toy_batch()
    teacher = FrozenTeacher(ToyNetwork(teacher_width))
    return DataFree(ToyNetwork(width), teacher, batch.inputs, **options).train(), batch


def smooth_l1(ours, theirs):
    """One number after the other."""
    terms = []
    for one, other in zip(ours.flatten().tolist(), theirs.flatten().tolist(), strict=True):
        d = abs(one - other)
        terms.append(0.5 * d * d if d < 1 else d - 0.5)
    return sum(terms) / len(terms)


def test_the_auxiliary_term_is_that_of_a_slow_loop():
    torch.manual_seed(0)
    shapes = [(2, 3, 4, 4), (2, 5, 2, 2), (2, 4, 1, 1)]
    maps = [(3 * torch.randn(shape).double(), torch.randn(shape).double()) for shape in shapes]
    # 2 (k + 1) / (n^2 + n) for n = 3: they add up to 1.
    expected = sum(weight * smooth_l1(*pair) for weight, pair in zip((1 / 6, 1 / 3, 1 / 2), maps, strict=True))
    assert auxiliary_loss(maps).item() == pytest.approx(expected, rel=1e-12)
    ours = maps[1][0].clone().requires_grad_(True)
    theirs = maps[1][1].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: auxiliary_loss([maps[0], (x, theirs)]), ours)
    assert torch.autograd.grad(auxiliary_loss([(ours, theirs)]), theirs, allow_unused=True) == (None,)


def test_every_image_is_mixed_with_its_own_share():
    images = torch.tensor([[0.0], [1.0], [4.0]])
    mixed = mix(images, torch.tensor([1, 2, 0]), torch.tensor([1.0, 0.25, 0.5]))
    assert mixed.flatten().tolist() == [0.0, 3.25, 2.0]


def test_the_losses_are_those_of_the_mixtures(monkeypatch):
    method, batch = toy(mixup=0.5, temperature=2.0, layers="auto")
    asked = []
    inner = method.teacher.forward
    monkeypatch.setattr(method.teacher, "forward", lambda batch: (asked.append(batch), inner(batch))[1])
    found = method.eval().losses(batch)
    assert found.keys() == {"kd", "auxiliary"}
    assert asked[0].targets is None
    assert not torch.equal(asked[0].inputs, batch.inputs)
    student, teacher = method.student(asked[0].inputs), inner(asked[0])
    p, q = ((it.logits.double() / 2).log_softmax(1) for it in (student, teacher))
    expected = 4 * (q.exp() * (q - p)).sum(1).mean()
    assert found["kd"].item() == pytest.approx(expected.item(), rel=1e-4)
    terms = [smooth_l1(*pair.maps(student, teacher)) for pair in method.pairs]
    weights = [2 * (k + 1) / (len(terms) ** 2 + len(terms)) for k in range(len(terms))]
    assert len(terms) > 1
    assert found["auxiliary"].item() == pytest.approx(sum(w * t for w, t in zip(weights, terms)), rel=1e-4)


def test_a_student_that_starts_as_its_teacher_has_nothing_to_learn():
    torch.manual_seed(0)
    network, batch = ToyNetwork(), toy_batch()
    student = ToyNetwork()
    student.load_state_dict(network.state_dict())
    method = DataFree(student, FrozenTeacher(network), batch.inputs, statistics="frozen").train()
    found = method.losses(batch)
    assert found["kd"].item() == pytest.approx(0, abs=1e-6)
    assert found["auxiliary"].item() == pytest.approx(0, abs=1e-9)


def test_frozen_statistics_stand_still_and_others_move():
    for statistics, moves in (("frozen", False), ("batch", True)):
        method, batch = toy(statistics=statistics)
        norms = [layer for layer in method.student.modules() if isinstance(layer, nn.BatchNorm2d)]
        before = [layer.running_mean.clone() for layer in norms]
        method.train().losses(batch)
        assert all(torch.equal(old, layer.running_mean) is not moves for old, layer in zip(before, norms))
        assert all(layer.training is moves for layer in norms)
        assert not method.eval().student.training


def test_layers_that_differ_are_left_out_or_refused():
    notes = Notes()
    method, batch = toy(width=6, teacher_width=10, reporter=notes)
    assert method.losses(batch).keys() == {"kd"}
    assert notes.notes == ["data-free compares no layers: no stage of the student has the shape of the teacher's."]
    layer = str(toy()[0].pairs[0].student.layer)
    with pytest.raises(UserError, match="differ in shape.*auxiliary=0"):
        toy(width=6, teacher_width=10, layers=layer)


def test_a_box_that_only_answers_can_teach():
    batch, notes = toy_batch(), Notes()
    inner = ToyNetwork()
    box = BlackBoxTeacher(inner.forward, identity="box")
    method = DataFree(ToyNetwork(), box, batch.inputs, reporter=notes)
    assert method.losses(batch).keys() == {"kd"}
    assert notes.notes == ["data-free compares no layers: the teacher gives only logits."]


def test_without_mixing_the_batch_is_what_it_was():
    method, batch = toy(mixup=0, auxiliary=0)
    assert method._mixed(batch) is batch
    assert method.losses(batch).keys() == {"kd"}


@pytest.mark.parametrize("options", [{"temperature": 0}, {"mixup": -1}, {"auxiliary": -0.1}])
def test_numbers_out_of_range_are_refused(options):
    [(name, value)] = options.items()
    with pytest.raises(UserError, match=f"{name}={value} must be"):
        toy(**options)


def test_other_inputs_are_refused():
    method, _ = toy()
    with pytest.raises(UserError, match="choose a method such as kd"):
        method.losses(Batch(inputs=torch.ones(4, 3, dtype=torch.long)))
