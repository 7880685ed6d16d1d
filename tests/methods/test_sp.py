import pytest
import torch

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.methods.sp import SP, similarity_loss
from tutelage.models import CATALOGUE
from tutelage.testing.toys import toy_transformer

STUDENT = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
KNOWN = 0.0936999750809377


# The paper's equations, one number at a time: of scalar tensors, through which gradients flow.


def scalars(tensor):
    return [scalars(part) for part in tensor] if tensor.ndim else tensor


def slow_similarities(features, power):
    rows = scalars(features.flatten(1))
    found = []
    for one in rows:
        row = [sum(a * b for a, b in zip(one, other, strict=True)) for other in rows]
        length = sum(abs(value) ** power for value in row) ** (1 / power)
        found.append([value / length for value in row])
    return found


def slow(student, teacher, power=2):
    rows = zip(slow_similarities(student, power), slow_similarities(teacher, power), strict=True)
    return sum((a - b) ** 2 for ours, theirs in rows for a, b in zip(ours, theirs, strict=True)) / len(student) ** 2


def features(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def build(student, teacher, size=(32, 32), **options):
    return SP(student, FrozenTeacher(teacher), torch.randn(2, 3, *size), **options)


def batch_of(samples=4, size=(32, 32)):
    return Batch(inputs=torch.randn(samples, 3, *size), targets=torch.arange(samples) % 5)


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 3), (2, 3)), ((4, 2, 2, 3), (4, 3, 1, 5)), ((5, 1, 3, 2), (5, 4))]
)
def test_value_and_gradient_are_the_papers(student, teacher):
    student, teacher = features(*student), features(*teacher).detach()
    found, expected = similarity_loss(student, teacher), slow(student, teacher)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-14)


def test_known_answers():
    eye, ones = torch.eye(2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    assert similarity_loss(eye, ones).item() == pytest.approx(0.2928932188134524, rel=1e-12)
    assert similarity_loss(STUDENT, TEACHER).item() == pytest.approx(KNOWN, rel=1e-12)
    assert similarity_loss(-7 * STUDENT, 0.1 * TEACHER).item() == pytest.approx(KNOWN, rel=1e-12)
    by_sample = STUDENT * torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    assert similarity_loss(by_sample, TEACHER).item() == pytest.approx(0.160203079, rel=1e-8)


def test_rows_are_normalised_by_their_euclidean_norm():
    """torchdistill takes the sum of absolute values, and gets another loss."""
    assert slow(STUDENT, TEACHER, power=2).item() == pytest.approx(KNOWN, rel=1e-9)
    assert slow(STUDENT, TEACHER, power=1).item() < 0.6 * similarity_loss(STUDENT, TEACHER).item()


def test_scale_and_rotation_of_the_features_do_not_matter():
    student, teacher = features(5, 2, 3, 4).detach(), features(5, 3, 2, 2).detach()
    reference = similarity_loss(student, teacher)
    rotation, _ = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64))
    rotated = student.flatten(1) @ rotation
    for changed in (student * 1e-4, student * -300, rotated, student[:, [1, 0]], student.transpose(2, 3)):
        torch.testing.assert_close(similarity_loss(changed, teacher), reference, rtol=1e-9, atol=0)
    order = torch.randperm(5)
    torch.testing.assert_close(similarity_loss(student[order], teacher[order]), reference)
    assert similarity_loss(student.roll(1, 0), teacher).item() != pytest.approx(reference.item(), rel=1e-3)


def test_the_scale_of_one_sample_does_matter():
    student, teacher = features(3, 4).detach(), features(3, 4).detach()
    reference = similarity_loss(student, teacher).item()
    student[0] *= 3
    assert similarity_loss(student, teacher).item() != pytest.approx(reference, rel=1e-3)


def test_equal_features_cost_nothing_and_pull_nowhere():
    student = features(4, 3, 2, 5)
    loss = similarity_loss(student, student.detach() * 2)
    assert loss.item() == pytest.approx(0.0, abs=1e-30)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-15


def test_a_batch_of_one_costs_nothing():
    student = features(1, 3, 2, 5)
    loss = similarity_loss(student, torch.randn(1, 7, dtype=torch.float64))
    assert loss.item() == pytest.approx(0.0, abs=1e-30)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-15


@pytest.mark.parametrize("samples", [2, 8, 64])
def test_the_loss_falls_with_the_size_of_the_batch(samples):
    """Samples alike in nothing, and alike in everything: about 2 / B."""
    alike = torch.ones(samples, 3, dtype=torch.float64)
    loss = similarity_loss(torch.eye(samples, dtype=torch.float64), alike).item()
    assert loss == pytest.approx(2 * (1 - samples**-0.5) / samples, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [0.0, 1e-7, 1.0, 1e4])
@pytest.mark.parametrize("rows", [1, 4])
def test_dead_and_constant_features_are_finite(value, dtype, rows):
    flat, other = torch.randn(4, 3, 4, 5).to(dtype), torch.randn(4, 3, 4, 5).to(dtype)
    flat[:rows] = value
    for student, teacher in ((flat, other), (other, flat), (flat, flat)):
        student = student.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16 if dtype == torch.float32 else dtype):
            loss = similarity_loss(student, teacher)
        (gradient,) = torch.autograd.grad(3000 * loss, student)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1e-5])
def test_a_dead_sample_has_no_direction_and_spares_the_others(value):
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    student[1] = value
    student.requires_grad_(True)
    (gradient,) = torch.autograd.grad(similarity_loss(student, teacher), student)
    assert gradient.abs().max() < 10
    assert gradient[0].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    # In float16 these sums of squares are infinite.
    student, teacher = (torch.randn(4, 64, 4, 6).mul(40).to(dtype) for _ in range(2))
    with torch.autocast("cpu", dtype):
        found = similarity_loss(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, similarity_loss(student.float(), teacher.float()))


def test_no_gradient_reaches_the_teacher():
    student, teacher = features(3, 4), features(3, 5)
    similarity_loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_the_method_compares_the_last_maps():
    method = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["vgg8"](5)).eval()
    batch = batch_of()
    student, teacher = method.student(batch.inputs), method.teacher(batch)
    assert [(pair.student.layer, pair.teacher.layer) for pair in method.pairs] == [("layer3", "layer4")]
    expected = similarity_loss(student.features["layer3"].double(), teacher.features["layer4"].double())
    found = method.losses(batch)["similarity"]
    assert found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert method.weight("similarity", Progress()) == 3000.0


def test_several_pairs_are_summed():
    pair = build(CATALOGUE["tiny_cnn"](5), toy_transformer(), layers="layer2:blocks.1+layer3:embedding").eval()
    batch = batch_of()
    student, teacher = pair.student(batch.inputs), pair.teacher(batch)
    expected = sum(similarity_loss(*one.maps(student, teacher)) for one in pair.pairs)
    assert len(pair.pairs) == 2
    assert pair.losses(batch)["similarity"].item() == pytest.approx(expected.item(), rel=1e-6)


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
    losses["similarity"].backward()
    gradients = [p.grad for p in method.student.parameters() if p.grad is not None]
    assert losses["similarity"].item() > 0
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_parts_of_a_batch_do_not_add_up_and_the_registration_says_so():
    assert set(catalogue.get("sp").exceptions) == {"parts-of-a-batch-add-up"}


@pytest.mark.parametrize("beta", [-1.0, float("nan")])
def test_a_weight_below_zero_is_refused(beta):
    with pytest.raises(UserError, match=f"beta={beta}"):
        build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), beta=beta)
