"""Feature distillation against a loop over the equation, its known answers, and teachers without a classifier."""

import math

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import NoLayersError, UserError
from tutelage.methods.features import Features, feature_distances, normalized
from tutelage.models import CATALOGUE
from tutelage.testing.toys import ToyNetwork, toy_transformer

EXAMPLE = torch.rand(2, 3, 12, 16)

# The equation, one number at a time: of scalar tensors, through which gradients flow.


def scalars(tensor):
    return [scalars(part) for part in tensor] if tensor.ndim else tensor


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


def slow_norm(vector):
    mean = sum(vector) / len(vector)
    variance = sum((value - mean) ** 2 for value in vector) / len(vector)
    return [(value - mean) / (variance + 1e-5).sqrt() for value in vector]


def slow_linear(vector, layer):
    weight, bias = scalars(layer.weight), scalars(layer.bias)
    return [
        sum(w * value for w, value in zip(row, vector, strict=True)) + b for row, b in zip(weight, bias, strict=True)
    ]


def slow_distance(ours, theirs, distance, delta):
    if distance == "cosine":
        dot = sum(a * b for a, b in zip(ours, theirs, strict=True))
        return 1 - dot / (sum(a * a for a in ours) * sum(b * b for b in theirs)).sqrt()
    total = 0.0
    for a, b in zip(ours, theirs, strict=True):
        gap = abs(a - b)
        if distance == "mse":
            total = total + gap**2
        else:
            total = total + (gap**2 / (2 * delta) if gap <= delta else gap - delta / 2)
    return total / len(ours)


def slow(student, teacher, adapter, distance, delta):
    """The pooled and the places' term of one pair, for maps `[batch, channel, height, width]`."""
    height, width = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    pooled, places = [], []
    for ours, theirs in zip(scalars(student), scalars(teacher), strict=True):
        ours, theirs = ([slow_pool(plane, height, width) for plane in planes] for planes in (ours, theirs))
        means = [[sum(map(sum, plane)) / (height * width) for plane in planes] for planes in (ours, theirs)]
        mine = slow_linear(slow_norm(means[0]), adapter.pooled)
        pooled.append(slow_distance(mine, slow_norm(means[1]), distance, delta))
        for y in range(height):
            for x in range(width):
                mine = slow_linear(slow_norm([plane[y][x] for plane in ours]), adapter.places)
                wanted = slow_norm([plane[y][x] for plane in theirs])
                places.append(slow_distance(mine, wanted, distance, delta))
    return sum(pooled) / len(pooled), sum(places) / len(places)


class Maps(nn.Module):
    """A layer that gives the maps it was made with, and a classifier behind."""

    def __init__(self, maps):
        super().__init__()
        self.layer = Given(maps)
        self.classifier = nn.Linear(maps.shape[1], 5)

    def forward(self, inputs):
        return self.classifier(self.layer(inputs).mean((2, 3)).to(self.classifier.weight.dtype))


class Given(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.maps = nn.Parameter(maps)

    def forward(self, inputs):
        return self.maps * 1


def built(student, teacher, **options):
    torch.manual_seed(0)
    method = Features(Maps(student), FrozenTeacher(Maps(teacher)), torch.zeros(2, 3), layers="layer", **options)
    return method.double()


@pytest.mark.parametrize("distance", ["smooth-l1", "mse", "cosine"])
@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 3, 2, 3), (2, 4, 2, 3)), ((2, 3, 3, 5), (2, 2, 2, 4)), ((2, 2, 1, 3), (2, 5, 4, 2))]
)
def test_value_and_every_gradient_are_the_equations(distance, student, teacher):
    generator = torch.Generator().manual_seed(1)
    student, teacher = (
        3 * torch.randn(shape, dtype=torch.float64, generator=generator) for shape in (student, teacher)
    )
    # Small, so that differences lie on both sides of it.
    method = built(student, teacher, distance=distance, delta=0.7)
    losses = method.losses(Batch(inputs=torch.zeros(2, 3), targets=torch.tensor([1, 3])))
    maps, adapter = method.student.model.layer.maps, method.adapters[0]
    expected = dict(zip(("pooled", "places"), slow(maps, teacher, adapter, distance, 0.7), strict=True))
    sources = [maps, *adapter.parameters()]
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-9)
        found, wanted = (
            torch.autograd.grad(loss, sources, allow_unused=True, retain_graph=True) for loss in (losses[name], value)
        )
        for one, other in zip(found, wanted, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("distance", "delta", "expected"),
    [
        ("mse", 2.0, 5.0),
        ("smooth-l1", 2.0, (0.25 + 2.0) / 2),
        ("smooth-l1", 1.0, (0.5 + 2.5) / 2),
        ("cosine", 2.0, 1.0),
    ],
)
def test_known_answers(distance, delta, expected):
    """Differences of 1 and 3: their squares, the two halves of the smooth distance, and a right angle."""
    ours, theirs = double([[1.0, 0.0]]), double([[0.0, 3.0]])
    assert feature_distances(ours, theirs, distance, delta=delta).tolist() == pytest.approx([expected], rel=1e-12)
    assert feature_distances(theirs, theirs, distance, delta=delta).tolist() == pytest.approx([0.0], abs=1e-12)


def test_the_layer_norm_forgets_scale_and_offset():
    features = double([[1.0, 2.0, 6.0]])
    assert normalized(features).mean().item() == pytest.approx(0.0, abs=1e-12)
    assert normalized(features).square().mean().item() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(normalized(1000 * features + 7), normalized(features), rtol=1e-5, atol=1e-5)
    assert torch.equal(normalized(torch.full((1, 3), 4.0)), torch.zeros(1, 3))


def test_a_student_whose_adapted_features_are_the_teachers_costs_nothing():
    maps = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    method = built(maps, 5 * maps + 1)
    with torch.no_grad():
        for layer in (method.adapters[0].pooled, method.adapters[0].places):
            layer.weight.copy_(torch.eye(3))
            layer.bias.zero_()
    losses = method.losses(Batch(inputs=torch.zeros(2, 3), targets=torch.tensor([1, 3])))
    assert losses["places"].item() == pytest.approx(0.0, abs=1e-9)
    assert losses["pooled"].item() == pytest.approx(0.0, abs=1e-9)


def test_two_vectors_have_one_place_and_one_term():
    method = Features(ToyNetwork(4), FrozenTeacher(ToyNetwork(8)), EXAMPLE, layers="embedding")
    assert set(method.weights) == {"ce", "pooled"}
    assert set(method.losses(Batch(inputs=EXAMPLE, targets=torch.tensor([0, 1])))) == {"ce", "pooled"}
    assert method.adapters[0].places is None


def test_without_a_weight_no_labels_are_needed_and_without_labels_the_features_are_left():
    batch = Batch(inputs=EXAMPLE)
    for options in ({"ce_weight": 0.0}, {}):
        method = Features(ToyNetwork(4), FrozenTeacher(ToyNetwork(8)), EXAMPLE, **options)
        assert set(method.losses(batch)) == {"pooled", "places"}
    labelled = Batch(inputs=EXAMPLE, targets=torch.tensor([0, 1]))
    assert set(Features(ToyNetwork(4), FrozenTeacher(ToyNetwork(8)), EXAMPLE).losses(labelled)) == {
        "ce",
        "pooled",
        "places",
    }


class Backbone(nn.Module):
    """A teacher of maps that has no classifier."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())

    def forward(self, inputs):
        return self.deep(self.stem(inputs)).mean((2, 3))


def test_a_teacher_without_a_classifier_teaches():
    method = Features(ToyNetwork(4), FrozenTeacher(Backbone()), EXAMPLE)
    batch = Batch(inputs=EXAMPLE, targets=torch.tensor([0, 1]))
    optimizer = torch.optim.SGD(method.optimizers()["student"].params, lr=0.05)
    totals = []
    for _ in range(30):
        (update,) = method.step(batch, Progress())
        total = method.total(update, Progress())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0]
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())


def test_tokens_are_places_and_the_class_token_is_none():
    teacher = toy_transformer()
    method = Features(CATALOGUE["tiny_cnn"](5), FrozenTeacher(teacher), torch.randn(2, 3, 32, 32))
    (found,) = method.pairs
    assert found.teacher.layout.kind == "tokens"
    losses = method.losses(Batch(inputs=torch.randn(2, 3, 32, 32), targets=torch.tensor([1, 3])))
    assert all(loss.isfinite() for loss in losses.values())


def test_the_output_of_a_backbone_is_read_by_the_layer_that_gives_it():
    teacher, example = toy_transformer(0), torch.randn(2, 3, 32, 32)
    layers = "layer3:blocks.3+embedding:head"
    method = Features(CATALOGUE["tiny_cnn"](5), FrozenTeacher(teacher), example, layers=layers)
    assert [adapter.has_places for adapter in method.adapters] == [True, False]
    output = method.teacher(Batch(inputs=example))
    assert torch.equal(method.pairs[1].teacher.map(output)[:, :, 0, 0], teacher.eval()(example))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0.0}, "delta=0.0 must be above zero"),
        ({"delta": math.nan}, "delta=nan"),
        ({"ce_weight": -1.0}, "ce_weight=-1.0 must be zero or more"),
        ({"pooled_weight": -1.0}, "pooled_weight=-1.0"),
        ({"pooled_weight": 0.0, "places_weight": 0.0}, "nothing is learned from the teacher"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Features(ToyNetwork(4), FrozenTeacher(ToyNetwork(8)), EXAMPLE, **options)


def test_a_teacher_without_layers_is_refused():
    with pytest.raises(NoLayersError):
        Features(ToyNetwork(4), UniformTeacher(6), EXAMPLE)
