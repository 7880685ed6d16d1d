"""ReviewKD against loops in float64, value and gradient, its known answers, and maps of any shape."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.pairing import Compared, LayerPair
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.anatomy import Tap
from tutelage.features.maps import MapLayout
from tutelage.methods.reviewkd import Fusion, Review, ReviewKD, hierarchical_context_loss, join
from tutelage.models import CATALOGUE
from tutelage.testing.toys import toy_transformer

# The paper's equations, one number at a time: of scalar tensors, through which gradients flow.


def nested(tensor):
    return [nested(part) for part in tensor] if tensor.ndim else tensor


def slow_pool(plane, height, width):
    """The mean of the places that a larger place touches."""

    def touched(index, size, count):
        return range(index * size // count, -(-(index + 1) * size // count))

    return [
        [
            sum(plane[i][j] for i in rows for j in columns) / (len(rows) * len(columns))
            for columns in (touched(x, len(plane[0]), width) for x in range(width))
        ]
        for rows in (touched(y, len(plane), height) for y in range(height))
    ]


def slow_error(ours, theirs):
    """The mean squared error of `maps[b][c][y][x]`."""
    squares = [
        (a - b) ** 2
        for one, other in zip(ours, theirs, strict=True)
        for plane, target in zip(one, other, strict=True)
        for row, line in zip(plane, target, strict=True)
        for a, b in zip(row, line, strict=True)
    ]
    return sum(squares) / len(squares)


def slow_context(ours, theirs):
    height, width = len(ours[0][0]), len(ours[0][0][0])
    total, weight, weights = slow_error(ours, theirs), 1.0, 1.0
    for side in (4, 2, 1):
        if side >= max(height, width):
            continue
        size, weight = (min(side, height), min(side, width)), weight / 2
        coarse = ([[slow_pool(plane, *size) for plane in planes] for planes in maps] for maps in (ours, theirs))
        total, weights = total + weight * slow_error(*coarse), weights + weight
    return total / weights


def slow_conv(maps, weight, bias=None):
    """A convolution whose border is zeros: `maps[b][c][y][x]`, `weight[out][in][y][x]`."""
    height, width, reach = len(maps[0][0]), len(maps[0][0][0]), len(weight[0][0]) // 2

    def at(sample, kernel, y, x):
        total = 0.0
        for plane, part in zip(sample, kernel, strict=True):
            for i, j in product(range(-reach, reach + 1), repeat=2):
                if 0 <= y + i < height and 0 <= x + j < width:
                    total = total + plane[y + i][x + j] * part[i + reach][j + reach]
        return total

    shifts = [0.0] * len(weight) if bias is None else bias
    return [
        [[[at(b, k, y, x) + c for x in range(width)] for y in range(height)] for k, c in zip(weight, shifts)]
        for b in maps
    ]


def slow_norm(maps, scale, shift):
    """Batch norm in train mode."""
    found = [[None] * len(scale) for _ in maps]
    for channel in range(len(scale)):
        values = [v for sample in maps for row in sample[channel] for v in row]
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / len(values) + 1e-5) ** 0.5
        for number, sample in enumerate(maps):
            found[number][channel] = [
                [(v - mean) / deviation * scale[channel] + shift[channel] for v in row] for row in sample[channel]
            ]
    return found


def slow_nearest(maps, height, width):
    def shrunk(values, count):
        return [values[index * len(values) // count] for index in range(count)]

    return [[[shrunk(row, width) for row in shrunk(plane, height)] for plane in planes] for planes in maps]


def slow_join(maps, deeper, weight, bias):
    gates = slow_conv([[*one, *other] for one, other in zip(maps, deeper, strict=True)], weight, bias)
    return [
        [
            [
                [a / (1 + (-g).exp()) + b / (1 + (-h).exp()) for a, b, g, h in zip(*rows, strict=True)]
                for rows in zip(plane, other, own, handed, strict=True)
            ]
            for plane, other in zip(x, r, strict=True)
        ]
        for x, r, (own, handed) in zip(maps, deeper, gates, strict=True)
    ]


def slow_review(review, students, teachers):
    """From the deepest level to the first."""
    deeper, total = None, 0.0
    for fusion, ours, theirs in reversed(list(zip(review.fusions, students, teachers, strict=True))):
        parts = {name: nested(parameter) for name, parameter in fusion.named_parameters()}
        joined = slow_conv(ours, parts["squeeze.weight"])
        joined = slow_norm(joined, parts["squeeze_norm.weight"], parts["squeeze_norm.bias"])
        if deeper is not None:
            handed = slow_nearest(deeper, len(ours[0][0]), len(ours[0][0][0]))
            joined = slow_join(joined, handed, parts["gate.weight"], parts["gate.bias"])
        deeper = slow_nearest(joined, len(theirs[0][0]), len(theirs[0][0][0]))
        predicted = slow_conv(deeper, parts["predict.weight"])
        predicted = slow_norm(predicted, parts["predict_norm.weight"], parts["predict_norm.bias"])
        total = total + slow_context(predicted, theirs)
    return total


def drawn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def levels(student, teacher, *, mid_channels=512):
    """A review of maps of these shapes."""
    taps = [
        [Tap(f"layer{n}", MapLayout("map"), shape[0], shape[1:]) for n, shape in enumerate(shapes)]
        for shapes in (student, teacher)
    ]
    return Review([LayerPair(*pair) for pair in zip(*taps, strict=True)], mid_channels=mid_channels)


# The hierarchical context loss.


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (7, 7), (8, 3), (1, 9), (4, 6)])
def test_context_and_its_gradient_are_the_papers(size):
    student, teacher = drawn(2, 3, *size).requires_grad_(), drawn(2, 3, *size)
    found, expected = hierarchical_context_loss(student, teacher), slow_context(nested(student), nested(teacher))
    assert found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    gradients = (torch.autograd.grad(loss, student)[0] for loss in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("height", "width", "known"),
    [
        (1, 1, 0.0),
        (2, 2, 0.0308333333),
        (4, 4, 0.7325),
        (5, 5, 1.8386666667),
        (7, 7, 7.46),
        (8, 8, 12.9558333333),
        (8, 7, 9.8831666667),
    ],
)
def test_known_contexts(height, width, known):
    teacher = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width) / 10
    assert hierarchical_context_loss(torch.zeros_like(teacher), teacher).item() == pytest.approx(known, abs=5e-11)


def test_coarser_maps_of_a_checkerboard_vanish():
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    found = hierarchical_context_loss(torch.zeros(1, 1, 8, 8), board[None, None])
    assert found.item() == pytest.approx(1 / 1.875)


def test_one_place_has_no_coarser_map():
    student, teacher = drawn(3, 4, 1, 1), drawn(3, 4, 1, 1)
    expected = nn.functional.mse_loss(student, teacher)
    torch.testing.assert_close(hierarchical_context_loss(student, teacher), expected)


@pytest.mark.parametrize("lengths", [(9, 9), (9, 1), (6, 2), (3, 4), (5, 8)])
def test_padded_sequences_are_the_mean_of_those_cut_to_their_length(lengths):
    student, teacher = drawn(2, 3, 1, 9), drawn(2, 3, 1, 9)
    mask = (torch.arange(9) < torch.tensor(lengths)[:, None])[:, None, None]
    student = student.masked_fill(~mask, 1e3).requires_grad_()
    cut = [[one[n : n + 1, :, :, :length] for one in (student, teacher)] for n, length in enumerate(lengths)]
    expected = torch.stack([hierarchical_context_loss(*pair) for pair in cut]).mean()
    found = hierarchical_context_loss(student, teacher, mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (found, expected)))


def test_tokens_may_stand_behind_their_padding():
    student, teacher = drawn(1, 3, 1, 7), drawn(1, 3, 1, 7)
    mask = torch.tensor([False, True, False, True, True, True, True])[None, None, None]
    expected = hierarchical_context_loss(student[:, :, :, mask[0, 0, 0]], teacher[:, :, :, mask[0, 0, 0]])
    torch.testing.assert_close(hierarchical_context_loss(student, teacher, mask), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    # In float16 these squares are infinite.
    student, teacher = torch.full((2, 3, 5, 4), 300.0, dtype=dtype), torch.zeros(2, 3, 5, 4, dtype=dtype)
    with torch.autocast("cpu", dtype):
        found = hierarchical_context_loss(student, teacher)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(9e4, rel=1e-6)


# The fusion.


def test_known_fusion():
    """Both gates read their own map alone."""
    gate = nn.Conv2d(2, 2, 1, dtype=torch.float64)
    with torch.no_grad():
        gate.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        gate.bias.zero_()
    maps = torch.tensor([[[[1.0, 2], [3, 4]]]], dtype=torch.float64)
    found = join(maps, torch.full_like(maps, 2.0), gate).flatten().tolist()
    assert found == pytest.approx([2.4926527346, 3.5231883119, 4.6193165364, 5.6896493161], abs=5e-11)


@pytest.mark.parametrize("mid_channels", [512, 2])
def test_review_and_its_gradients_are_the_papers(mid_channels, double):
    """Three levels of unlike sizes, the last of one place; a student coarser, finer and as fine as the teacher."""
    student, teacher = [(2, 3, 4), (3, 2, 2), (3, 1, 1)], [(3, 6, 5), (2, 1, 2), (4, 1, 1)]
    review = levels(student, teacher, mid_channels=mid_channels)
    assert {fusion.squeeze.out_channels for fusion in review.fusions} == {min(3, mid_channels)}
    with torch.no_grad():
        for parameter in review.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ours = [torch.randn(4, *shape).requires_grad_() for shape in student]
    theirs = [torch.randn(4, *shape) for shape in teacher]
    found = review([Compared(*pair, None) for pair in zip(ours, theirs, strict=True)])
    expected = slow_review(review, [nested(one) for one in ours], [nested(one) for one in theirs])
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    learned = [*ours, *review.parameters()]
    for one, other in zip(*(torch.autograd.grad(loss, learned) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("student", "mid_channels", "teacher", "known"),
    [
        ([64, 128, 256, 256], 512, [64, 128, 256, 256], 1808774),
        ([16, 32, 64, 64], 512, [16, 32, 64, 64], 114278),
        ([32, 64, 128, 128], 512, [32, 64, 128, 128], 453830),
        ([240, 480, 960, 960], 512, [32, 64, 128, 128], 2984646),
        ([116, 232, 464, 1024], 512, [64, 128, 256, 256], 4195718),
        ([128, 256, 512, 512, 512], 512, [128, 256, 512, 512, 512], 9847560),
        ([64, 128, 256, 512, 512], 512, [64, 128, 256, 512, 512], 7552904),
        ([128, 256, 512, 1024, 1024], 256, [256, 512, 1024, 2048, 2048], 14338056),
        ([128, 256, 512, 1024, 1024], 512, [256, 512, 1024, 2048, 2048], 28664328),
    ],
)
def test_known_numbers_of_extra_parameters(student, mid_channels, teacher, known):
    with torch.device("meta"):
        review = levels(*([(c, 1, 1) for c in widths] for widths in (student, teacher)), mid_channels=mid_channels)
    assert sum(parameter.numel() for parameter in review.parameters()) == known


@pytest.mark.parametrize("joins", [False, True])
def test_a_batch_with_one_value_a_channel_trains(joins):
    """Of a pooled level and one sample a batch norm has nothing to take statistics from."""
    fusion, deeper = Fusion(3, 4, 5, joins=joins).train(), torch.randn(1, 4, 1, 1)
    predicted, _ = fusion(torch.randn(1, 3, 1, 1), deeper if joins else None, (1, 1))
    predicted.sum().backward()
    assert predicted.isfinite().all()
    assert fusion.squeeze_norm.num_batches_tracked == 0
    fusion(torch.randn(1, 3, 1, 2), deeper if joins else None, (1, 2))
    assert fusion.squeeze_norm.num_batches_tracked == 1


# The method.


def build(student, teacher, size=(32, 32), **options):
    return ReviewKD(student, FrozenTeacher(teacher), torch.randn(2, 3, *size), **options)


def batch_of(samples=4, size=(32, 32), targets=True):
    labels = torch.arange(samples) % 5 if targets else None
    return Batch(inputs=torch.randn(samples, 3, *size), targets=labels)


@pytest.mark.parametrize(
    ("student", "teacher", "known"),
    [
        ("resnet8x4", "resnet32x4", 1808774),
        ("resnet20", "resnet56", 114278),
        ("wrn_16_2", "wrn_40_2", 453830),
    ],
)
def test_published_pairs_have_the_published_levels(student, teacher, known):
    method = build(CATALOGUE[student](5), CATALOGUE[teacher](5))
    names = [(one.student.layer, one.teacher.layer) for one in method.pairs]
    assert names == [*((f"layer{n}", f"layer{n}") for n in (1, 2, 3)), ("embedding", "embedding")]
    assert sum(parameter.numel() for parameter in method.review.parameters()) == known


def test_the_method_reviews_the_stages_and_the_pooled_features():
    method, batch = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["resnet8"](5)), batch_of()
    losses = method.train().losses(batch)
    student, teacher = method.student(batch.inputs), method.teacher(batch)
    *stages, deepest = method.pairs
    compared = [one.compared(student, teacher) for one in stages]
    points = [features[:, :, None, None] for features in (student.features["embedding"], teacher.features["embedding"])]
    assert deepest.student.layer == "embedding"
    assert losses.keys() == {"ce", "review"}
    assert losses["review"].shape == ()
    expected = method.review([*compared, Compared(*points, None)])
    assert losses["review"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert method.losses(batch_of(targets=False)).keys() == {"review"}


def test_mixed_labels_change_the_cross_entropy_alone():
    method, batch = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5)).eval(), batch_of()
    mixed = Batch(inputs=batch.inputs, targets=torch.full((4, 5), 0.2))
    one, other = method.losses(batch), method.losses(mixed)
    assert one["ce"] != other["ce"]
    assert torch.equal(one["review"], other["review"])


def test_the_weight_rises_as_published():
    method = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5))
    epochs = [Progress(step=10 * epoch, total_steps=2400, epoch=epoch) for epoch in (0, 9, 19, 100)]
    assert [method.weight("review", one) for one in epochs] == pytest.approx([0.25, 2.5, 5.0, 5.0])
    short = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), beta=1.0)
    assert short.weight("review", Progress(step=4, total_steps=24)) == 1.0
    without = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), ramp_epochs=1)
    assert without.weight("review", Progress()) == 5.0


def test_one_sample_trains():
    method = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5)).train()
    losses = method.losses(batch_of(samples=1))
    losses["review"].backward()
    assert losses["review"].isfinite()


def test_named_pairs_are_reviewed_from_the_last():
    method = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["vgg8"](5), layers="layer1:layer2+layer3:layer4")
    assert [one.student.layer for one in method.pairs] == ["layer1", "layer3", "embedding"]
    assert [fusion.gate is None for fusion in method.review.fusions] == [False, False, True]


@pytest.mark.parametrize(
    ("student", "teacher", "size"),
    [
        (CATALOGUE["tiny_cnn"], CATALOGUE["vgg8"], (33, 50)),
        (CATALOGUE["vgg8"], CATALOGUE["tiny_cnn"], (50, 33)),
        (CATALOGUE["tiny_cnn"], lambda _: toy_transformer(), (32, 32)),
        (lambda _: toy_transformer(), CATALOGUE["tiny_cnn"], (32, 32)),
    ],
    ids=["33x50", "50x33", "tokens to a CNN", "a CNN to tokens"],
)
def test_any_two_networks(student, teacher, size):
    method = build(student(5), teacher(5), size)
    losses = method.losses(batch_of(size=size))
    losses["review"].backward()
    gradients = [p.grad for p in method.student.parameters() if p.grad is not None]
    assert losses["review"].item() > 0
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0


@pytest.mark.parametrize("beta", [-1.0, math.nan])
def test_a_weight_below_zero_is_refused(beta):
    with pytest.raises(UserError, match=f"beta={beta}"):
        build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), beta=beta)


@pytest.mark.parametrize("name", ["mid_channels", "ramp_epochs"])
def test_what_is_below_one_is_refused(name):
    with pytest.raises(UserError, match=f"{name}=0 must be 1 or more"):
        build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), **{name: 0})
