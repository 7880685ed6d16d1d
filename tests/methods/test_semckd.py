import math
from itertools import product

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.anatomy import Tap
from tutelage.features.maps import MapLayout
from tutelage.methods.semckd import SemanticCalibration, SemCKD, calibrated_loss, regressor, similarity_mlp
from tutelage.models import CATALOGUE
from tutelage.testing.toys import toy_transformer

DISTANCES = torch.tensor([[[1.0, 4.0], [9.0, 16.0]]], dtype=torch.float64)
STUDENT_SHAPES = [(2, 4, 2), (1, 2, 3)]
TEACHER_SHAPES = [(1, 2, 6), (2, 4, 6)]


# The paper's equations, one number at a time: of floats, or of scalar tensors, through which gradients flow.


def slow_pool(plane, height, width):
    """The mean of equal blocks."""
    down, across = len(plane) // height, len(plane[0]) // width
    return [
        [
            sum(plane[y * down + i][x * across + j] for i in range(down) for j in range(across)) / (down * across)
            for x in range(width)
        ]
        for y in range(height)
    ]


def slow_conv(maps, weight):
    """A convolution whose border is zeros: `maps[b][c][y][x]`, `weight[out][in][y][x]`."""
    height, width, reach = len(maps[0][0]), len(maps[0][0][0]), len(weight[0][0]) // 2

    def at(sample, kernel, y, x):
        total = 0.0
        for plane, part in zip(sample, kernel, strict=True):
            for i, j in product(range(-reach, reach + 1), repeat=2):
                if 0 <= y + i < height and 0 <= x + j < width:
                    total = total + plane[y + i][x + j] * part[i + reach][j + reach]
        return total

    return [[[[at(b, k, y, x) for x in range(width)] for y in range(height)] for k in weight] for b in maps]


def slow_norm_relu(maps, scale, shift):
    """Batch norm in train mode, then ReLU."""
    out = [[[list(row) for row in plane] for plane in sample] for sample in maps]
    for channel in range(len(scale)):
        values = [v for sample in maps for row in sample[channel] for v in row]
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / len(values) + 1e-5) ** 0.5
        for sample in out:
            for row in sample[channel]:
                for x, value in enumerate(row):
                    normal = (value - mean) / deviation * scale[channel] + shift[channel]
                    row[x] = normal if normal > 0 else 0.0 * normal
    return out


def slow_embedding(maps, mlp, batch_size):
    """A row of the Gram matrix, filled with zeros, through the MLP, at length one."""
    flat = [[v for plane in sample for row in plane for v in row] for sample in maps]
    found = []
    for one in flat:
        row = [sum(a * b for a, b in zip(one, other, strict=True)) for other in flat]
        row = row + [0.0] * (batch_size - len(row))
        hidden = [sum(w * v for w, v in zip(weights, row, strict=True)) + bias for weights, bias in zip(mlp[0], mlp[1])]
        hidden = [v if v > 0 else 0.0 * v for v in hidden]
        out = [sum(w * v for w, v in zip(weights, hidden, strict=True)) + bias for weights, bias in zip(mlp[2], mlp[3])]
        length = sum(v * v for v in out) ** 0.5
        found.append([v / length for v in out])
    return found


def slow_distance(ours, theirs, parts):
    """The mean squared distance of each sample, after the regressor."""
    height, width = min(len(ours[0][0]), len(theirs[0][0])), min(len(ours[0][0][0]), len(theirs[0][0][0]))
    ours, theirs = ([[slow_pool(plane, height, width) for plane in sample] for sample in m] for m in (ours, theirs))
    hidden = slow_norm_relu(slow_conv(ours, parts[0]), parts[1], parts[2])
    hidden = slow_norm_relu(slow_conv(hidden, parts[3]), parts[4], parts[5])
    answer = slow_conv(hidden, parts[6])
    squares = [
        [(a - b) ** 2 for one, other in zip(x, y) for r, s in zip(one, other) for a, b in zip(r, s)]
        for x, y in zip(answer, theirs, strict=True)
    ]
    return [sum(each) / len(each) for each in squares]


def slow_loss(students, teachers, queries, keys, regressors, *, batch_size, reduction):
    q = [slow_embedding(maps, mlp, batch_size) for maps, mlp in zip(students, queries, strict=True)]
    k = [slow_embedding(maps, mlp, batch_size) for maps, mlp in zip(teachers, keys, strict=True)]
    d = [[slow_distance(s, t, regressors[i][j]) for j, t in enumerate(teachers)] for i, s in enumerate(students)]
    samples, total = len(students[0]), 0.0
    for b, i in product(range(samples), range(len(students))):
        energies = [sum(x * y for x, y in zip(q[i][b], key[b], strict=True)) for key in k]
        weights = [math.e**energy for energy in energies]
        for j, weight in enumerate(weights):
            total = total + weight / sum(weights) * d[i][j][b]
    return total / samples / (len(students) if reduction == "code" else 1)


def nested(tensor):
    """A tensor as lists of lists of scalar tensors, with their gradients."""
    return [nested(part) for part in tensor] if tensor.ndim else tensor


def taps(shapes):
    return [Tap(f"layer{n}", MapLayout("map"), shape[0], shape[1:]) for n, shape in enumerate(shapes)]


def parameters(module):
    return [nested(parameter) for parameter in module.parameters()]


@pytest.fixture
def maps(double):
    return tuple([torch.randn(5, *shape) for shape in shapes] for shapes in (STUDENT_SHAPES, TEACHER_SHAPES))


@pytest.mark.parametrize("reduction", ["code", "paper"])
def test_value_and_gradient_are_the_papers(maps, reduction):
    # Five samples of eight: the last batch of an epoch.
    calibration = SemanticCalibration(taps(STUDENT_SHAPES), taps(TEACHER_SHAPES), 8, reduction=reduction)
    with torch.no_grad():
        for parameter in calibration.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    student, teacher = maps
    for each in student:
        each.requires_grad_()
    found = calibration(student, teacher)
    expected = slow_loss(
        [nested(each) for each in student],
        [nested(each) for each in teacher],
        [parameters(mlp) for mlp in calibration.queries],
        [parameters(mlp) for mlp in calibration.keys],
        [[parameters(one) for one in row] for row in calibration.regressors],
        batch_size=8,
        reduction=reduction,
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-11)
    leaves = [*student, *calibration.parameters()]
    fast, slow = torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves)
    for one, other in zip(fast, slow, strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max()
    assert all(one.abs().max() > 0 for one in fast)


class Says(nn.Module):
    """Answers every row with the same."""

    def __init__(self, *values):
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, rows):
        return self.values.expand(len(rows), -1)


def attention_between(queries, keys):
    calibration = SemanticCalibration(taps([(1, 1, 1)] * len(queries)), taps([(1, 1, 1)] * len(keys)), 8)
    calibration.queries = nn.ModuleList(Says(*values) for values in queries)
    calibration.keys = nn.ModuleList(Says(*values) for values in keys)
    return calibration.attention([torch.zeros(1, 1, 1, 1)] * len(queries), [torch.zeros(1, 1, 1, 1)] * len(keys))


def test_known_answers(double):
    attention = attention_between([(2.0, 0.0), (0.0, 3.0)], [(5.0, 0.0), (0.0, 7.0)])
    high, low = 0.73105857863, 0.26894142137
    torch.testing.assert_close(attention, torch.tensor([[[high, low], [low, high]]]), rtol=1e-10, atol=0)
    assert calibrated_loss(attention, DISTANCES).item() == pytest.approx(7.96211715726, rel=1e-11)
    assert calibrated_loss(attention, DISTANCES, reduction="paper").item() == pytest.approx(2 * 7.96211715726)
    assert calibrated_loss(torch.full((1, 2, 2), 0.5), DISTANCES).item() == pytest.approx(7.5)


def test_a_single_layer_of_the_teacher_has_all_the_attention(double):
    attention = attention_between([(1.0, 2.0), (3.0, -1.0)], [(0.5, 0.5)])
    assert attention.tolist() == [[[1.0], [1.0]]]
    assert calibrated_loss(attention, DISTANCES[:, :, :1]).item() == DISTANCES[:, :, :1].mean().item()


@pytest.mark.parametrize(("layers", "low", "high"), [(3, 0.0634, 0.787), (4, 0.0432, 0.711)])
def test_attention_is_never_one_hot(layers, low, high):
    best = attention_between([(1.0, 0.0)], [(1.0, 0.0), *[(-1.0, 0.0)] * (layers - 1)])
    worst = attention_between([(1.0, 0.0)], [(-1.0, 0.0), *[(1.0, 0.0)] * (layers - 1)])
    assert best[0, 0, 0].item() == pytest.approx(high, abs=5e-4)
    assert worst[0, 0, 0].item() == pytest.approx(low, abs=5e-5)


def test_each_sample_has_its_own_attention_which_sums_to_one(maps):
    calibration = SemanticCalibration(taps(STUDENT_SHAPES), taps(TEACHER_SHAPES), 8)
    attention = calibration.attention(*maps)
    assert attention.shape == (5, 2, 2)
    torch.testing.assert_close(attention.sum(2), torch.ones(5, 2))
    assert attention.std(0).min() > 0


def test_a_smaller_batch_is_one_whose_other_samples_resemble_nobody(maps):
    calibration = SemanticCalibration(taps(STUDENT_SHAPES), taps(TEACHER_SHAPES), 8)
    filled = [[torch.cat([each, torch.zeros(3, *each.shape[1:])]) for each in side] for side in maps]
    torch.testing.assert_close(calibration.attention(*maps), calibration.attention(*filled)[:5])


def test_a_larger_batch_is_refused(maps):
    calibration = SemanticCalibration(taps(STUDENT_SHAPES), taps(TEACHER_SHAPES), 8)
    twice = [[torch.cat([each, each]) for each in side] for side in maps]
    with pytest.raises(UserError, match=r"built for batches of 8 and got 10 samples.*batch_size=10"):
        calibration(*twice)


def test_nothing_is_left_where_the_regressor_makes_the_teachers_map(maps):
    (_, ours), _ = maps
    calibration = SemanticCalibration(taps([(1, 2, 3)]), taps([(1, 2, 3)]), 8)
    calibration.regressors = nn.ModuleList([nn.ModuleList([nn.Identity()])])
    assert calibration([ours], [ours.clone()]).item() == 0.0


def test_zero_maps_have_finite_losses_and_gradients():
    calibration = SemanticCalibration(taps(STUDENT_SHAPES), taps(TEACHER_SHAPES), 8)
    ours = [torch.zeros(8, *shape, requires_grad=True) for shape in STUDENT_SHAPES]
    for mlp in calibration.queries:
        nn.init.zeros_(mlp[2].weight)
        nn.init.zeros_(mlp[2].bias)
    loss = calibration(ours, [torch.zeros(8, *shape) for shape in TEACHER_SHAPES])
    assert torch.isfinite(loss)
    gradients = torch.autograd.grad(loss, [*ours, *calibration.parameters()])
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_is_computed_in_float32_under_autocast(maps, dtype):
    calibration = SemanticCalibration(taps(STUDENT_SHAPES), taps(TEACHER_SHAPES), 8).float()
    ours, theirs = ([each.mul(1000).to(dtype) for each in side] for side in maps)
    expected = calibration.attention([each.float() for each in ours], [each.float() for each in theirs])
    with torch.autocast("cpu", dtype):
        found = calibration.attention(ours, theirs)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_number_of_parameters_is_the_authors():
    assert count(similarity_mlp(64)) == 2608
    ours, theirs = 3, 5
    assert count(regressor(ours, theirs)) == 2 * ours * theirs + 38 * theirs**2 + 8 * theirs
    student, teacher = CATALOGUE["resnet8x4"](100), CATALOGUE["resnet32x4"](100)
    method = SemCKD(student, FrozenTeacher(teacher), torch.randn(2, 3, 32, 32), 64)
    assert count(method.calibration) == 10_233_632
    assert len(method.pairs) == 9


def tiny():
    return CATALOGUE["tiny_cnn"](5)


def resnet():
    return CATALOGUE["resnet8"](5)


@pytest.mark.parametrize(
    ("make_student", "make_teacher", "size"),
    [
        (tiny, toy_transformer, (32, 32)),
        (toy_transformer, tiny, (32, 32)),
        (tiny, resnet, (33, 50)),
        (resnet, tiny, (33, 50)),
    ],
)
def test_any_two_networks_and_any_size(make_student, make_teacher, size):
    student, images = make_student(), torch.randn(8, 3, *size)
    method = SemCKD(student, FrozenTeacher(make_teacher()), images[:2], 8).train()
    losses = method.losses(Batch(inputs=images, targets=torch.arange(8) % 5))
    assert set(losses) == {"ce", "kd", "semckd"}
    method.total(
        next(method.step(Batch(inputs=images, targets=torch.arange(8) % 5), Progress())), Progress()
    ).backward()
    for parameter in method.calibration.parameters():
        assert torch.isfinite(parameter.grad).all()
    assert not any(module._forward_hooks for module in method.export().modules())


def test_every_stage_meets_every_stage():
    method = SemCKD(tiny(), FrozenTeacher(toy_transformer()), torch.randn(2, 3, 32, 32), 8)
    names = [(pair.student.layer, pair.teacher.layer) for pair in method.pairs]
    ours, theirs = ([tap.layer for tap in side] for side in (method.ours, method.theirs))
    assert names == list(product(ours, theirs))
    assert theirs == ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]


def test_named_layers_meet_each_other():
    student = resnet()
    images = torch.randn(8, 3, 32, 32)
    layers = "layer1:blocks.1+layer3:blocks.3+layer3:blocks.1"
    method = SemCKD(student, FrozenTeacher(toy_transformer()), images[:2], 8, layers=layers)
    assert [(pair.student.layer, pair.teacher.layer) for pair in method.pairs] == [
        ("layer1", "blocks.1"),
        ("layer1", "blocks.3"),
        ("layer3", "blocks.1"),
        ("layer3", "blocks.3"),
    ]
    assert torch.isfinite(method.losses(Batch(inputs=images, targets=torch.arange(8) % 5))["semckd"])
    assert not any(module._forward_hooks for module in method.export().modules())


def test_the_weights_are_the_published_ones():
    method = SemCKD(tiny(), FrozenTeacher(tiny()), torch.randn(2, 3, 16, 16), 8)
    assert {name: method.weight(name, Progress()) for name in ("ce", "kd", "semckd")} == {
        "ce": 1.0,
        "kd": 1.0,
        "semckd": 400.0,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": 0.0}, "temperature=0"), ({"batch_size": 4}, "batch_size=4 is too small")],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        SemCKD(tiny(), FrozenTeacher(tiny()), torch.randn(2, 3, 16, 16), **{"batch_size": 8, **options})


def test_a_teacher_without_layers_is_refused():
    with pytest.raises(UserError):
        SemCKD(tiny(), UniformTeacher(5), torch.randn(2, 3, 16, 16), 8)
