"""RKD against loops in float64, value and gradient, its known answers, and features that lie close or far."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.pairing import Seen
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.methods import rkd
from tutelage.methods.rkd import RKD, angle_loss, cosines, distance_loss, distances, embeddings
from tutelage.models import CATALOGUE
from tutelage.testing.toys import ToyNetwork, toy_transformer

STUDENT = torch.tensor([[0, 0], [3, 4], [0, 4]], dtype=torch.float64)
TEACHER = torch.tensor([[0, 0], [1, 0], [0, 1]], dtype=torch.float64)
FOUR = torch.tensor([[1, 0, 2], [0, 1, 0], [2, 1, 1], [0, 0, 1]], dtype=torch.float64)
OTHER_FOUR = torch.tensor([[1, 2], [0, 0], [3, 1], [1, -1]], dtype=torch.float64)
LOSSES = {"distance": distance_loss, "angle": angle_loss}


# The paper's equations, one number at a time: of scalar tensors, through which gradients flow.


def scalars(tensor):
    return [scalars(part) for part in tensor] if tensor.ndim else tensor


def slow_huber(gap):
    return gap**2 / 2 if abs(gap) <= 1 else abs(gap) - 0.5


def slow_length(vector):
    square = sum(value**2 for value in vector)
    return square.sqrt() if square > 0 else square


def slow_distances(rows):
    found = [[slow_length([a - b for a, b in zip(one, other, strict=True)]) for other in rows] for one in rows]
    positive = [value for row in found for value in row if value > 0]
    return [[value / (sum(positive) / len(positive)) for value in row] for row in found]


def slow_cosine(rows, i, j, k):
    """The inner product of the directions from i to j and to k; none leads from a sample to itself."""
    one, other = ([a - b for a, b in zip(rows[end], rows[i], strict=True)] for end in (j, k))
    lengths = slow_length(one) * slow_length(other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths > 0 else 0.0 * lengths


def slow(name, student, teacher, variant="code"):
    ours, theirs, count = scalars(student), scalars(teacher), len(student)
    number = 2 if name == "distance" else 3
    if name == "distance":
        d, e = slow_distances(ours), slow_distances(theirs)
        terms = {(i, j): slow_huber(d[i][j] - e[i][j]) for i, j in product(range(count), repeat=2)}
    else:
        places = product(range(count), repeat=3)
        terms = {place: slow_huber(slow_cosine(ours, *place) - slow_cosine(theirs, *place)) for place in places}
    if variant == "paper":
        terms = {place: term for place, term in terms.items() if len(set(place)) == number}
    return sum(terms.values()) / len(terms)


def drawn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def gradient(loss, student, teacher, **options):
    student = student.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(student, teacher, **options), student)[0]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize(("samples", "ours", "theirs"), [(3, 2, 5), (5, 4, 3), (6, 1, 2)])
def test_value_and_gradient_are_the_papers(name, variant, samples, ours, theirs):
    student, teacher = drawn(samples, ours).requires_grad_(), 3 * drawn(samples, theirs)
    found = LOSSES[name](student, teacher, variant=variant)
    expected = slow(name, student, teacher, variant)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    gradients = (torch.autograd.grad(loss, student)[0] for loss in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-12)


def test_known_answers():
    assert distances(STUDENT)[0].tolist() == pytest.approx([0.0, 1.25, 1.0], rel=1e-12)
    assert distance_loss(STUDENT, TEACHER).item() == pytest.approx(0.0439213633, abs=5e-11)
    assert angle_loss(STUDENT, TEACHER).item() == pytest.approx(0.0426471060, abs=5e-11)
    assert distance_loss(STUDENT, TEACHER, variant="paper").item() == pytest.approx(0.0658820450, abs=5e-11)
    assert angle_loss(STUDENT, TEACHER, variant="paper").item() == pytest.approx(0.1919119771, abs=5e-11)
    assert distance_loss(FOUR, OTHER_FOUR).item() == pytest.approx(0.0253388059, abs=5e-11)
    assert angle_loss(FOUR, OTHER_FOUR).item() == pytest.approx(0.0585242734, abs=5e-11)


@pytest.mark.parametrize(("weights", "known"), [((25, 50), 3.2303893841), ((1, 2), 0.1292155754)])
def test_known_sums(weights, known):
    found = weights[0] * distance_loss(STUDENT, TEACHER) + weights[1] * angle_loss(STUDENT, TEACHER)
    assert found.item() == pytest.approx(known, abs=1e-9)
    total = 25 * distance_loss(FOUR, OTHER_FOUR) + 50 * angle_loss(FOUR, OTHER_FOUR)
    assert total.item() == pytest.approx(3.5596838166, abs=1e-9)


@pytest.mark.parametrize(("samples", "shares"), [(64, (0.984375, 0.9536133)), (8, (0.875, 0.65625))])
def test_the_code_dilutes_by_what_always_agrees(samples, shares):
    student, teacher = drawn(samples, 3), drawn(samples, 5)
    for share, loss in zip(shares, LOSSES.values(), strict=True):
        ratio = loss(student, teacher) / loss(student, teacher, variant="paper")
        assert ratio.item() == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values())
def test_similar_figures_cost_nothing_and_similarity_changes_nothing(loss):
    turn = torch.tensor([[0.0, -1], [1, 0]], dtype=torch.float64)
    assert loss(3 * OTHER_FOUR @ turn + 7, OTHER_FOUR).item() == pytest.approx(0.0, abs=1e-24)
    student, teacher = drawn(6, 4), drawn(6, 3)
    reference = loss(student, teacher)
    rotation, _ = torch.linalg.qr(drawn(4, 4))
    mirror = torch.diag(torch.tensor([1.0, -1, 1, 1], dtype=torch.float64))
    for changed in (student + 5, -2 * student, student @ rotation, student @ mirror):
        torch.testing.assert_close(loss(changed, teacher), reference)
    torch.testing.assert_close(loss(student, 0.1 * teacher - 3), reference)
    assert loss(student * torch.arange(1.0, 5), teacher).item() != pytest.approx(reference.item(), rel=1e-3)


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("at_once", [1, 2 * 49, 3 * 49])
def test_some_angles_at_a_time_are_the_same(variant, at_once, monkeypatch):
    """Of seven samples: one at a time, two, and three with one left over; and all at once as `torch.func` has them."""
    student, teacher = drawn(7, 4), drawn(7, 3)
    student[5] = student[2]
    whole = angle_loss(student, teacher, variant=variant), gradient(angle_loss, student, teacher, variant=variant)
    monkeypatch.setattr(rkd, "_ANGLES_AT_ONCE", at_once)
    parts = angle_loss(student, teacher, variant=variant), gradient(angle_loss, student, teacher, variant=variant)
    plain = torch.func.grad_and_value(lambda one: angle_loss(one, teacher, variant=variant))(student)
    for found, other, transformed in zip(whole, parts, reversed(plain), strict=True):
        torch.testing.assert_close(other, found, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(transformed, found, rtol=1e-10, atol=1e-14)


def test_a_second_derivative_is_refused():
    student = drawn(4, 3).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(angle_loss(student, drawn(4, 3)), student, create_graph=True)


# Few samples, equal samples, samples far from zero.


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("samples", [1, 2])
def test_two_samples_cost_nothing(name, variant, samples):
    student, teacher = drawn(samples, 4).requires_grad_(), drawn(samples, 3)
    loss = LOSSES[name](student, teacher, variant=variant)
    assert loss.item() == pytest.approx(0.0, abs=1e-30)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-14


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_samples_that_coincide_are_what_the_loop_makes_of_them(name, variant):
    student, teacher = drawn(5, 4), drawn(5, 3)
    student[3] = student[1]
    student.requires_grad_()
    found, expected = LOSSES[name](student, teacher, variant=variant), slow(name, student, teacher, variant)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    gradients = (torch.autograd.grad(loss, student)[0] for loss in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES.values())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("rows", [2, 4])
def test_equal_samples_are_finite(loss, dtype, value, rows):
    student, teacher = torch.randn(4, 6).to(dtype), torch.randn(4, 3).to(dtype)
    student[:rows] = value
    for one, other in ((student, teacher), (teacher, student), (student, student)):
        one = one.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16 if dtype == torch.float32 else dtype):
            found = loss(one, other)
        assert found.isfinite()
        assert torch.autograd.grad(50 * found, one)[0].isfinite().all()


@pytest.mark.parametrize("loss", LOSSES.values())
def test_rounding_errors_are_no_distances(loss):
    """Equal samples that differ in the last digit: their directions mean nothing, and would have huge gradients."""
    alike = (100 + torch.zeros(4, 8)) * (1 + torch.randint(2, (4, 8)) * torch.finfo(torch.float32).eps)
    assert torch.equal(distances(alike), torch.zeros(4, 4))
    assert torch.equal(cosines(distances(alike)), torch.zeros(4, 4, 4))
    assert torch.equal(gradient(loss, alike, torch.randn(4, 3)), torch.zeros(4, 8))


@pytest.mark.parametrize("offset", [0.0, 100.0, 1000.0])
@pytest.mark.parametrize("loss", LOSSES.values())
def test_features_far_from_zero_lose_no_digits(loss, offset):
    """Products of features would: at an offset of 100, distances of 24 are wrong by a hundredth in float32."""
    student, teacher = (offset + torch.randn(16, 256)), torch.randn(16, 64)
    exact = loss(student.double(), teacher.double())
    assert loss(student, teacher).item() == pytest.approx(exact.item(), rel=1e-4)
    found, expected = gradient(loss, student, teacher), gradient(loss, student.double(), teacher.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_products_of_features_would_lose_them():
    features = 100 + torch.randn(16, 256)
    squares, products = features.square().sum(1), features @ features.T
    crude = (squares[:, None] + squares[None] - 2 * products).clamp(min=0).sqrt()
    exact = torch.cdist(features.double(), features.double())
    assert (crude - exact).abs().max() > 1e-3
    ours, mean = distances(features), exact.sum() / (16 * 15)
    assert (ours * mean - exact).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    """In float16 the squares of these features are infinite."""
    student, teacher = (torch.randn(5, 256).mul(20).to(dtype) for _ in range(2))
    with torch.autocast("cpu", dtype):
        found = [loss(student, teacher) for loss in LOSSES.values()]
    expected = [loss(student.float(), teacher.float()) for loss in LOSSES.values()]
    assert [one.dtype for one in found] == [torch.float32] * 2
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("loss", LOSSES.values())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_the_gradient_in_float32(loss, dtype):
    student, teacher = torch.randn(6, 32), torch.randn(6, 16)
    with torch.autocast("cpu", dtype):
        found = gradient(loss, student, teacher)
    assert torch.equal(found, gradient(loss, student, teacher))


def test_no_gradient_reaches_the_teacher():
    student, teacher = drawn(4, 3).requires_grad_(), drawn(4, 5).requires_grad_()
    (distance_loss(student, teacher) + angle_loss(student, teacher)).backward()
    assert student.grad is not None
    assert teacher.grad is None


# The method.


def build(student, teacher, size=(32, 32), batch_size=4, **options):
    return RKD(student, FrozenTeacher(teacher), torch.randn(4, 3, *size), batch_size, **options)


def batch_of(samples=4, size=(32, 32), targets=True):
    labels = torch.arange(samples) % 5 if targets else None
    return Batch(inputs=torch.randn(samples, 3, *size), targets=labels)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_the_method_compares_the_inputs_of_the_classifiers(variant):
    method = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["wrn_16_2"](5), variant=variant).eval()
    batch, read = batch_of(), []
    for network in (method.student.model, method.teacher.network):
        network.classifier.register_forward_pre_hook(lambda _, args: read.append(args[0].double()))
    losses = method.losses(batch)
    assert [(one.student.layer, one.teacher.layer) for one in method.pairs] == [("embedding", "embedding")]
    assert losses.keys() == {"ce", "distance", "angle"}
    for name in LOSSES:
        assert losses[name].item() == pytest.approx(slow(name, *read, variant).item(), rel=1e-4)
    assert [method.weight(name, Progress()) for name in LOSSES] == [25.0, 50.0]
    assert method.losses(batch_of(targets=False)).keys() == {"distance", "angle"}


def test_mixed_labels_change_the_cross_entropy_alone():
    method, batch = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5)).eval(), batch_of()
    mixed = Batch(inputs=batch.inputs, targets=torch.full((4, 5), 0.2))
    one, other = method.losses(batch), method.losses(mixed)
    assert one["ce"] != other["ce"]
    assert all(torch.equal(one[name], other[name]) for name in LOSSES)


def test_without_a_classifier_the_last_stage_is_read():
    backbone = ToyNetwork(10)
    backbone.classifier = nn.Identity()
    example = torch.randn(2, 3, 12, 16)
    teacher, student = FrozenTeacher(backbone), ToyNetwork()
    found = embeddings(student, teacher, Seen.of(student, teacher, example))
    assert (found.student.layer, found.teacher.layer) == ("embedding", "layer2")
    found = embeddings(backbone, FrozenTeacher(student), Seen.of(backbone, FrozenTeacher(student), example))
    assert (found.student.layer, found.teacher.layer) == ("layer2", "embedding")


def test_a_named_layer_is_averaged_over_its_places():
    method = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["vgg8"](5), layers="layer2:layer3").eval()
    batch = batch_of()
    ours, theirs = (
        maps.mean((2, 3)) for maps in method.pairs[0].maps(method.student(batch.inputs), method.teacher(batch))
    )
    assert method.losses(batch)["angle"].item() == pytest.approx(angle_loss(ours, theirs).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher", "size"),
    [
        (CATALOGUE["tiny_cnn"], CATALOGUE["vgg8"], (33, 50)),
        (CATALOGUE["tiny_cnn"], lambda _: toy_transformer(), (32, 32)),
        (lambda _: toy_transformer(), CATALOGUE["tiny_cnn"], (32, 32)),
    ],
    ids=["33x50", "tokens to a CNN", "a CNN to tokens"],
)
def test_any_two_networks(student, teacher, size):
    method = build(student(5), teacher(5), size)
    losses = method.losses(batch_of(size=size))
    (losses["distance"] + losses["angle"]).backward()
    gradients = [p.grad for p in method.student.parameters() if p.grad is not None]
    assert all(one.isfinite().all() for one in gradients)
    assert sum(one.abs().sum() for one in gradients) > 0


def test_parts_of_a_batch_do_not_add_up_and_the_registration_says_so():
    assert set(catalogue.get("rkd").exceptions) == {"parts-of-a-batch-add-up"}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_without_relations_are_refused(batch_size):
    with pytest.raises(UserError, match=f"batch_size={batch_size} is too small to compare.*take 3 or more"):
        build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), batch_size=batch_size)


@pytest.mark.parametrize("name", ["distance_weight", "angle_weight"])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_a_weight_below_zero_is_refused(name, value):
    with pytest.raises(UserError, match=f"{name}={value} must be zero or more"):
        build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), **{name: value})


def test_several_pairs_are_refused():
    with pytest.raises(UserError, match="names 2 pairs, and rkd compares one"):
        build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), layers="layer1+layer2")
