import math

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.anatomy import EMBEDDING
from tutelage.methods.srrl import SRRL, connector, softmax_regression
from tutelage.models import CATALOGUE
from tutelage.testing.toys import toy_transformer

IMAGES = (4, 3, 16, 24)
LABELS = torch.tensor([0, 1, 2, 1])


def linear(rows, bias=None):
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None)
    layer.load_state_dict({"weight": torch.tensor(rows)} | ({} if bias is None else {"bias": torch.tensor(bias)}))
    return layer.requires_grad_(False)


def slow(maps, target, weight, norm, classifier):
    """Both terms, one sample, channel and class at a time, with batch statistics in the connector."""
    samples, places = len(maps), [(y, x) for y in range(len(maps[0][0])) for x in range(len(maps[0][0][0]))]
    width = len(weight)
    hidden = [
        [[sum(w * maps[b][c][y][x] for c, w in enumerate(row)) for y, x in places] for row in weight]
        for b in range(samples)
    ]
    embedding = [[0.0] * width for _ in range(samples)]
    for d in range(width):
        values = [value for b in range(samples) for value in hidden[b][d]]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        for b in range(samples):
            scaled = [(value - mean) / math.sqrt(variance + 1e-5) * norm[0][d] + norm[1][d] for value in hidden[b][d]]
            embedding[b][d] = sum(max(0.0, value) for value in scaled) / len(places)
    feature = sum((embedding[b][d] - target[b][d]) ** 2 for b in range(samples) for d in range(width))
    logits = [
        [[sum(w * v for w, v in zip(row, vector)) for row in classifier] for vector in vectors]
        for vectors in (embedding, target)
    ]
    regression = sum((one - other) ** 2 for a, b in zip(*logits) for one, other in zip(a, b))
    return feature / samples / width, regression / samples / len(classifier)


def parts(student=None, teacher=None, **options):
    torch.manual_seed(0)
    student, teacher = student or CATALOGUE["tiny_cnn"](5), teacher or CATALOGUE["resnet8"](5)
    return SRRL(student, FrozenTeacher(teacher), torch.randn(2, *IMAGES[1:]), **options)


def test_value_and_gradient_are_the_slow_loops():
    torch.manual_seed(1)
    maps = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    target, classifier = (
        torch.rand(2, 4, dtype=torch.float64),
        linear([[1.0, -2, 0.5, 3], [0, 1, 1, -1]], [5.0, 7]).double(),
    )
    layers = connector(3, 4).double()
    with torch.no_grad():
        layers[1].weight.uniform_(0.5, 2)
        layers[1].bias.uniform_(-0.5, 0.5)

    def terms(values):
        norm = (layers[1].weight.tolist(), layers[1].bias.tolist())
        weight = layers[0].weight.flatten(1).tolist()
        return slow(values.tolist(), target.tolist(), weight, norm, classifier.weight.tolist())

    embedding = layers(maps).mean((2, 3))
    found = torch.stack(
        [nn.functional.mse_loss(embedding, target), softmax_regression(embedding, target, classifier.weight)]
    )
    assert found.tolist() == pytest.approx(terms(maps.detach()), rel=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), maps)
    step = 1e-6
    for place in [(0, 0, 0, 0), (1, 2, 1, 2), (0, 1, 1, 0)]:
        shift = torch.zeros_like(maps)
        shift[place] = step
        up, down = (sum(terms(maps.detach() + sign * shift)) for sign in (1, -1))
        assert gradient[place].item() == pytest.approx((up - down) / 2 / step, rel=1e-6, abs=1e-9)


def test_the_gradient_of_the_regression_is_the_closed_form():
    torch.manual_seed(2)
    embedding = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 4, dtype=torch.float64)
    classifier = nn.Linear(4, 5).double().requires_grad_(False)
    (gradient,) = torch.autograd.grad(softmax_regression(embedding, target, classifier.weight), embedding)
    expected = [[0.0] * 4 for _ in range(3)]
    weight = classifier.weight.tolist()
    for b in range(3):
        for row in weight:
            gap = sum(w * (e - t) for w, e, t in zip(row, embedding[b].tolist(), target[b].tolist()))
            for d in range(4):
                expected[b][d] += 2 * gap * row[d] / 3 / 5
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)


def test_known_answers():
    classifier = linear([[1.0, 0], [0, 2]])
    embedding, target = torch.tensor([[1.0, 1]]), torch.tensor([[0.0, 2]])
    assert nn.functional.mse_loss(embedding, target).item() == 1.0
    assert softmax_regression(embedding, target, classifier.weight).item() == 2.5
    blind = linear([[1.0, 1], [2, 2]])
    assert softmax_regression(embedding, target, blind.weight).item() == 0.0


def test_equal_embeddings_cost_nothing_whatever_the_precision():
    embedding = torch.randn(3, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert softmax_regression(embedding, embedding.clone(), nn.Linear(4, 5).weight).item() == 0.0


def test_connector_is_the_published_size():
    assert sum(parameter.numel() for parameter in connector(256, 256).parameters()) == 66_048
    maps = torch.tensor([-1.0, 3]).view(1, 1, 1, 2)
    # The order matters: the mean of the ReLU is 1.5, the ReLU of the mean 1.0.
    assert maps.relu().mean().item() == 1.5
    assert maps.mean().relu().item() == 1.0


def test_variants_differ_in_the_order_of_mean_and_connector():
    losses = {}
    for variant in ("map", "vector"):
        torch.manual_seed(3)
        method = parts(variant=variant)
        torch.manual_seed(4)
        losses[variant] = method.losses(Batch(inputs=torch.randn(IMAGES), targets=LABELS))
    assert losses["map"]["ce"] == losses["vector"]["ce"]
    assert losses["map"]["feature_matching"] != losses["vector"]["feature_matching"]


def test_gradients_reach_student_and_connector_and_never_the_teacher():
    method = parts()
    losses = method.losses(Batch(inputs=torch.randn(IMAGES), targets=LABELS))
    losses["softmax_regression"].backward()
    assert method.student.model.layer3[0].weight.grad.abs().sum() > 0
    assert method.connector[0].weight.grad.abs().sum() > 0
    assert method.student.model.classifier.weight.grad is None
    assert method.classifier.weight.grad is None
    assert all(parameter.grad is None for parameter in method.teacher.parameters())


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "shufflev2", "mobilenetv2", "vgg8"])
def test_what_the_teachers_classifier_reads_is_never_skipped(name):
    method, images = parts(teacher=CATALOGUE[name](5)), torch.randn(IMAGES)
    embedding = method.teacher(Batch(inputs=images)).features[EMBEDDING]
    torch.testing.assert_close(method.classifier(embedding.flatten(1)), method.teacher.network(images))


@pytest.mark.parametrize("pair", [("vit", "cnn"), ("cnn", "vit"), ("vit", "vit")])
def test_transformers_on_either_side(pair):
    networks = [toy_transformer(image_size=(16, 24)) if name == "vit" else CATALOGUE["tiny_cnn"](5) for name in pair]
    method = parts(*networks)
    losses = method.losses(Batch(inputs=torch.randn(IMAGES), targets=LABELS))
    assert all(torch.isfinite(loss) for loss in losses.values())
    # A transformer's embedding has negative values, which a ReLU could never reach.
    assert any(isinstance(layer, nn.ReLU) for layer in method.connector) == (pair[1] == "cnn")


def test_the_students_layer_can_be_named():
    assert parts(layer="layer2").pairs[0].student.layer == "layer2"
    with pytest.raises(UserError, match="In the student: There is no layer named 'layer9'"):
        parts(layer="layer9")


def test_a_teacher_without_a_classifier_is_refused():
    with pytest.raises(
        UserError, match="uses the teacher's network itself, such as its classifier, and there are several"
    ):
        SRRL(
            CATALOGUE["tiny_cnn"](5),
            EnsembleTeacher([FrozenTeacher(toy_transformer(image_size=(16, 24)))]),
            torch.randn(IMAGES),
        )
    scaled = nn.Sequential(CATALOGUE["tiny_cnn"](5), nn.ReLU6())
    with pytest.raises(UserError, match="classifier cannot be found"):
        parts(teacher=scaled)


@pytest.mark.parametrize("name", ["wrn_16_1", "mobilenetv2", "shufflev2", "resnet8", "vgg8"])
def test_of_the_student_it_reads_the_map_whose_mean_its_classifier_reads(name):
    method = parts(student=CATALOGUE[name](5)).eval()
    answer = method.student(torch.randn(IMAGES))
    (found,) = method.pairs
    embedding = found.student.map(answer).mean((2, 3))
    torch.testing.assert_close(method.student.model.classifier(embedding), answer.logits)


def test_of_a_transformer_it_reads_the_class_token_that_its_classifier_reads():
    method = parts(student=toy_transformer(image_size=(16, 24)))
    assert method.pairs[0].student.layer == EMBEDDING


@pytest.mark.parametrize("variant", ["map", "vector"])
def test_the_method_computes_the_slow_loops_on_what_it_reads(variant):
    method = parts(variant=variant).double().train()
    images = torch.randn(IMAGES, dtype=torch.float64)
    found = method.losses(Batch(inputs=images, targets=LABELS))
    network = method.student.model
    maps = network.layer3(network.layer2(network.layer1(network.stem(images))))
    target = method.teacher(Batch(inputs=images)).features[EMBEDDING].flatten(1)
    maps = maps if variant == "map" else maps.mean((2, 3), keepdim=True)
    convolution, norm = method.connector[:2]
    expected = slow(
        maps.tolist(),
        target.tolist(),
        convolution.weight.flatten(1).tolist(),
        (norm.weight.tolist(), norm.bias.tolist()),
        method.teacher.network.classifier.weight.tolist(),
    )
    terms = [found["feature_matching"].item(), found["softmax_regression"].item()]
    assert terms == pytest.approx(expected, rel=1e-9)
    total = found["ce"].item() + sum(expected)
    assert method.total(Update(found), Progress()).item() == pytest.approx(total, rel=1e-9)
