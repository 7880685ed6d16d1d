import copy
import math

import pytest
import torch
from torch import nn

from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import NoLayersError, UserError
from tutelage.methods.parts.squeezing import (
    SQUEEZED,
    AttendedTeacher,
    Squeezing,
    TeacherAttention,
    attended_logits,
    squeezable,
    squeeze,
)
from tutelage.models import CATALOGUE
from tutelage.testing.toys import TRAINING, ToyNetwork, toy_batch, toy_data, toy_transformer
from tutelage.training.run import Run

SHEET = [[1.0, 2], [3, 4]]


def slow_squeeze(maps, descriptor, weight, attend, pooling):
    """The equation for one sample, one place and channel at a time; of floats or of scalar tensors."""
    channels, height, width = len(maps), len(maps[0]), len(maps[0][0])
    places = [(y, x) for y in range(height) for x in range(width)]
    lifted = {(c, *at): maps[c][at[0]][at[1]] + descriptor[c] for c in range(channels) for at in places}
    likely = {at: math.e ** sum(weight[c] * lifted[c, *at] for c in range(channels)) for at in places}
    total = sum(likely.values())
    squeezed = []
    for c in range(channels):
        terms = [
            likely[at] / total * (lifted[c, *at] if attend == "equation" else maps[c][at[0]][at[1]]) for at in places
        ]
        squeezed.append(sum(terms) / (len(places) if pooling == "average" else 1))
    return squeezed


def nested(tensor):
    return [nested(part) for part in tensor] if tensor.ndim else tensor


def toy(student=None, *, layers="auto", **options):
    torch.manual_seed(0)
    paired = squeezable(student or ToyNetwork(), FrozenTeacher(ToyNetwork(10)), layers, toy_data().example(2))
    return paired, Squeezing.of_teacher(paired.pairs, **options)


# The attention.


def test_known_answers(double):
    maps, half, one = torch.tensor(SHEET)[None, None], torch.full((1, 1), 0.5), torch.ones(1)
    assert squeeze(maps, half, one, pooling="average").item() == pytest.approx(0.9981631836, abs=5e-11)
    drawn = squeeze(maps, half, one, attend="drawing", pooling="average")
    assert drawn.item() == pytest.approx(0.8731631836, abs=5e-11)
    assert squeeze(maps, half, one).item() == pytest.approx(4 * 0.9981631836, abs=2e-10)
    # Without a preference all places weigh a quarter, and the sum is their mean.
    assert squeeze(maps, half, torch.zeros(1), pooling="average").item() == 0.75
    assert squeeze(maps, half, torch.zeros(1)).item() == 3
    assert squeeze(torch.eye(4).view(1, 4, 2, 2), torch.zeros(1, 4), torch.zeros(4)).eq(0.25).all()


def test_the_attention_of_the_sheet(double):
    # Beside the map, one channel for each place, without a part in the energy, says how much the place weighs.
    maps = torch.cat([torch.tensor(SHEET)[None, None], torch.eye(4).view(1, 4, 2, 2)], 1)
    descriptor = torch.tensor([[0.5, 0, 0, 0, 0]])
    found = squeeze(maps, descriptor, torch.tensor([1.0, 0, 0, 0, 0]))[0, 1:]
    assert found.tolist() == pytest.approx([0.0320586, 0.0871443, 0.2368828, 0.6439143], abs=5e-8)


@pytest.mark.parametrize("pooling", ["average", "sum"])
@pytest.mark.parametrize("attend", ["equation", "drawing"])
def test_value_and_gradient_are_the_slow_loops(double, attend, pooling):
    maps, descriptor, weight = torch.randn(2, 3, 2, 4), torch.randn(2, 3), torch.randn(3)
    leaves = [leaf.requires_grad_() for leaf in (maps, descriptor, weight)]
    target = torch.randn(2, 3)
    found = squeeze(*leaves, attend=attend, pooling=pooling)
    slow = torch.stack(
        [
            torch.stack(slow_squeeze(nested(m), nested(d), nested(weight), attend, pooling))
            for m, d in zip(maps, descriptor)
        ]
    )
    assert torch.allclose(found, slow, rtol=1e-12, atol=1e-14)
    fast, expected = (torch.autograd.grad((s * target).sum(), leaves, allow_unused=True) for s in (found, slow))
    for one, other in zip(fast, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_the_descriptor_is_cancelled_in_the_softmax(double):
    maps, weight = torch.randn(2, 3, 4, 5), torch.randn(3)
    one, other = torch.randn(2, 3), torch.randn(2, 3)
    drawn = [squeeze(maps, descriptor, weight, attend="drawing") for descriptor in (one, other)]
    assert torch.allclose(*drawn, rtol=1e-12, atol=1e-14)
    gap = squeeze(maps, one, weight) - squeeze(maps, other, weight)
    assert torch.allclose(gap, one - other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 1.0, 6e4])
def test_maps_of_half_precision_are_squeezed_in_float32(dtype, value):
    maps = torch.full((2, 3, 4, 5), value, dtype=dtype)
    with torch.autocast("cpu", dtype):
        found = squeeze(maps, torch.ones(2, 3, dtype=dtype), torch.full((3,), 100.0))
    assert found.dtype == torch.float32
    assert torch.allclose(found, maps[:, :, 0, 0].float() + 1, rtol=1e-5)


# The estimators.


def test_shapes_and_the_order_of_the_stages():
    paired, theirs = toy()
    ours = theirs.of_student(paired.pairs).double()
    theirs = theirs.double()
    batch = toy_batch()
    inputs = batch.inputs.double()
    student, teacher = paired.student.double()(inputs), paired.teacher.double()(Batch(inputs=inputs))
    assert ours.length == theirs.length == 10 + 20
    for side, output, network in ((ours, student, paired.student.model), (theirs, teacher, paired.teacher.network)):
        found = side(output)
        first = network.layer1(inputs)
        second = network.layer2(first)
        common = side.transform(second.mean((2, 3)))
        expected = []
        for maps, lift, estimator in zip((first, second), side.lifts, side.estimators, strict=True):
            expected.append(squeeze(lift(maps), estimator.descriptor(common), estimator.energy.weight[0]))
        assert torch.allclose(found, torch.cat(expected, 1), rtol=1e-12, atol=1e-14)
    assert [type(lift) for lift in ours.lifts] == [nn.Conv2d] * 2
    assert [type(lift) for lift in theirs.lifts] == [nn.Identity] * 2


def test_cifar_networks_have_three_stages():
    images = torch.randn(2, 3, 32, 32)
    paired = squeezable(CATALOGUE["resnet8"](10), FrozenTeacher(CATALOGUE["resnet8x4"](10)), "auto", images)
    theirs = Squeezing.of_teacher(paired.pairs)
    assert [str(found.teacher) for found in paired.pairs[:-1]] == [
        "layer1 (64x32x32)",
        "layer2 (128x16x16)",
        "layer3 (256x8x8)",
    ]
    assert theirs.length == 448
    assert theirs.of_student(paired.pairs)(paired.student(images)).shape == (2, 448)


def test_larger_maps_are_pooled_to_the_smaller_on_both_sides():
    halving = nn.Sequential(nn.AvgPool2d(2), ToyNetwork())
    paired, theirs = toy(halving, layers="1.layer1:layer1+1.layer2:layer2")
    ours = theirs.of_student(paired.pairs)
    batch = toy_batch()
    sizes = []
    for side in (ours, theirs):
        output = paired.student(batch.inputs) if side is ours else paired.teacher(batch)
        sizes.append([tuple(side._map(number, output).shape[1:]) for number in range(2)])
    assert sizes[0] == sizes[1] == [(10, 3, 4), (20, 2, 2)]


def test_in_the_drawing_what_makes_the_descriptor_is_not_trained():
    paired, theirs = toy(attend="drawing")
    for side in (theirs, theirs.of_student(paired.pairs)):
        frozen = {name for name, parameter in side.named_parameters() if not parameter.requires_grad}
        expected = {"transform", "estimators.0.descriptor", "estimators.1.descriptor"}
        assert frozen == {f"{name}.{kind}" for name in expected for kind in ("weight", "bias")}


@pytest.mark.parametrize("pair", [("vit", "cnn"), ("cnn", "vit"), ("vit", "vit")])
def test_transformers_on_either_side(pair):
    networks = [toy_transformer() if name == "vit" else CATALOGUE["tiny_cnn"](5) for name in pair]
    images = torch.randn(4, 3, 32, 32)
    paired = squeezable(networks[0], FrozenTeacher(networks[1]), "auto", images)
    theirs = Squeezing.of_teacher(paired.pairs)
    ours = theirs.of_student(paired.pairs)(paired.student(images))
    assert ours.shape == theirs(paired.teacher(Batch(inputs=images))).shape
    assert ours.isfinite().all()


def test_sequences_of_any_length():
    class Words(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.words, self.mix, self.head = nn.Embedding(9, width), nn.Linear(width, width), nn.Linear(width, 5)

        def forward(self, ids):
            return self.head(self.mix(self.words(ids)).mean(1))

    example = {"ids": torch.randint(9, (2, 10))}
    paired = squeezable(Words(4), FrozenTeacher(Words(6)), "mix", example)
    theirs = Squeezing.of_teacher(paired.pairs)
    for length in (7, 10, 13):
        inputs = {"ids": torch.randint(9, (4, length))}
        output = paired.teacher(Batch(inputs=inputs))
        assert theirs(output).shape == (4, 6)
        assert theirs._map(0, output).shape == (4, 6, 1, length)


def test_teachers_without_layers_or_classifier_are_refused():
    example = toy_data().example(2)
    with pytest.raises(NoLayersError):
        squeezable(ToyNetwork(), UniformTeacher(6), "auto", example)
    with pytest.raises(UserError, match="In the teacher: .*classifier cannot be found"):
        squeezable(ToyNetwork(), FrozenTeacher(nn.Sequential(ToyNetwork(), nn.Tanh())), "auto", example)
    with pytest.raises(UserError, match="layer9"):
        squeezable(ToyNetwork(), FrozenTeacher(ToyNetwork()), "layer9", example)


# The teacher of the second stage.


def test_an_attended_teacher_is_frozen_and_still():
    paired, theirs = toy()
    teacher = AttendedTeacher(paired.teacher, theirs, pooling="average").train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    answer = teacher(toy_batch())
    assert torch.equal(answer.logits, paired.teacher(toy_batch()).logits)
    assert torch.equal(answer.features[SQUEEZED], theirs(paired.teacher(toy_batch()), pooling="average"))
    assert not answer.features[SQUEEZED].requires_grad


# The first stage.


def test_the_first_stage_is_the_cross_entropy_of_a_linear_classifier(slow):
    paired, theirs = toy()
    method = TeacherAttention(paired.teacher.double(), theirs.double(), 6).double().train()
    batch = toy_batch()
    batch = Batch(inputs=batch.inputs.double(), targets=batch.targets)
    (loss,) = method.losses(batch).values()
    rows = theirs(paired.teacher(batch)).tolist()
    weight, bias = method.classifier.weight.tolist(), method.classifier.bias.tolist()
    logits = [[sum(w * v for w, v in zip(line, row)) + b for line, b in zip(weight, bias)] for row in rows]
    assert loss.item() == pytest.approx(slow.label_loss(logits, batch.targets.tolist()), rel=1e-10)
    loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in theirs.parameters())
    assert all(parameter.grad is None for parameter in paired.teacher.parameters())


def test_what_was_learned_comes_back_from_a_stage_that_is_done(tmp_path):
    def attended():
        paired, theirs = toy()
        before = copy.deepcopy(paired.teacher.network.state_dict())
        network = Run(tmp_path, TRAINING).fit(
            "attention", TeacherAttention(paired.teacher, theirs, 6), toy_data(), keep="last"
        )
        assert all(torch.equal(value, before[key]) for key, value in network.network.state_dict().items())
        return network

    _, untrained = toy()
    first, second = attended(), attended()
    learned = first.squeezing.state_dict()
    assert all(torch.equal(value, learned[key]) for key, value in second.squeezing.state_dict().items())
    assert not any(torch.equal(value, learned[key]) for key, value in untrained.state_dict().items())
    # It answers as a network of its own, without hooks, twice the same, and in a copy.
    inputs = toy_batch().inputs
    answer = second(inputs)
    assert torch.equal(answer, copy.deepcopy(second)(inputs))
    # Trained with the channels innermost in memory, the first one adds up in another order.
    assert torch.allclose(answer, first(inputs), atol=1e-6)
    assert not any(module._forward_hooks for module in second.modules())
    paired, _ = toy()
    expected = attended_logits(paired.teacher(toy_batch()), second.squeezing, second.classifier)
    assert torch.equal(answer, expected)
