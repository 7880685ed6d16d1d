"""DIST against loops in float64, value and gradient, its known answers, and where a correlation has none."""

import math

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.methods.dist import DIST, dist_losses, relation_loss

STUDENT = torch.tensor([[2, 0, 1], [0, 1, 0], [-1, 1, 2], [1, 0, 0]], dtype=torch.float64)
TEACHER = torch.tensor([[3, 0, 0], [0, 2, 1], [0, 1, 3], [1, 2, 0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0])


# The paper's equations, one number at a time: of scalar tensors, through which gradients flow.


def scalars(tensor):
    return [scalars(part) for part in tensor] if tensor.ndim else tensor


def slow_softmax(row, temperature):
    exponentials = [(z / temperature).exp() for z in row]
    return [e / sum(exponentials) for e in exponentials]


def slow_correlation(a, b, eps):
    a_mean, b_mean = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - a_mean) * (y - b_mean) for x, y in zip(a, b, strict=True))
    a_length, b_length = (sum((x - mean) ** 2 for x in values).sqrt() for values, mean in ((a, a_mean), (b, b_mean)))
    return product / (a_length * b_length + eps)


def slow(student, teacher, temperature, eps=1e-8):
    ours, theirs = ([slow_softmax(row, temperature) for row in scalars(logits)] for logits in (student, teacher))
    rows = [slow_correlation(a, b, eps) for a, b in zip(ours, theirs, strict=True)]
    columns = [slow_correlation(a, b, eps) for a, b in zip(zip(*ours, strict=True), zip(*theirs, strict=True))]
    return {"inter": 1 - sum(rows) / len(rows), "intra": 1 - sum(columns) / len(columns)}


def drawn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def numbers(losses):
    return {name: loss.item() for name, loss in losses.items()}


def build(student, teacher, **options):
    return DIST(student, teacher, **options)


@pytest.mark.parametrize("eps", [0.0, 1e-8, 1e-3])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("shape", [(5, 4), (2, 7), (6, 3)])
def test_value_and_gradient_are_the_papers(shape, temperature, eps):
    student, teacher = drawn(*shape).requires_grad_(), drawn(*shape)
    found = dist_losses(student, teacher, temperature, eps=eps)
    expected = slow(student, teacher, temperature, eps)
    for name in ("inter", "intra"):
        assert found[name].shape == ()
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-9)
        gradients = (torch.autograd.grad(one[name], student, retain_graph=True)[0] for one in (found, expected))
        torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


def test_known_answers():
    exact, code = (numbers(dist_losses(STUDENT, TEACHER, 1.0, eps=eps)) for eps in (0.0, 1e-8))
    assert exact == pytest.approx({"inter": 0.3396182413, "intra": 0.2001938164}, abs=5e-11)
    assert code == pytest.approx({"inter": 0.3396182715, "intra": 0.2001938459}, abs=5e-11)
    exact, code = (numbers(dist_losses(STUDENT, TEACHER, 4.0, eps=eps)) for eps in (0.0, 1e-8))
    assert exact == pytest.approx({"inter": 0.3349692268, "intra": 0.2226493512}, abs=5e-11)
    assert code == pytest.approx({"inter": 0.3349696393, "intra": 0.2226496901}, abs=5e-11)
    assert 16 * sum(exact.values()) == pytest.approx(8.9218972472, abs=1e-9)
    assert 16 * sum(code.values()) == pytest.approx(8.9219092708, abs=1e-9)


@pytest.mark.parametrize(("scale", "known"), [(1e-3, 0.9980039920), (1e-4, 0.8333333333), (1e-5, 0.0476190476)])
def test_eps_weakens_what_hardly_varies(scale, known):
    row = scale * torch.tensor([[1, 2, 4, 3]], dtype=torch.float64)
    assert 1 - relation_loss(row, row).item() == pytest.approx(known, abs=5e-11)
    assert relation_loss(row, row, eps=0.0).item() == pytest.approx(0.0, abs=1e-12)


def test_logits_may_be_shifted_but_not_scaled():
    """That DIST ignores the scale of logits is often said, and wrong."""
    reference = numbers(dist_losses(STUDENT, TEACHER, 1.0, eps=0.0))
    shifted = STUDENT + torch.tensor([[5.0], [1.0], [-2.0], [9.0]], dtype=torch.float64)
    assert numbers(dist_losses(shifted, TEACHER, 1.0, eps=0.0)) == pytest.approx(reference, abs=1e-12)
    scaled = dist_losses(2 * STUDENT, TEACHER, 1.0, eps=0.0)["inter"].item()
    assert scaled == pytest.approx(0.3247423363, abs=5e-11)


def test_each_row_of_probabilities_may_be_scaled_and_shifted():
    ours, theirs = drawn(4, 6).softmax(1), drawn(4, 6).softmax(1)
    reference = relation_loss(ours, theirs, eps=0.0)
    scale, shift = torch.rand(4, 1, dtype=torch.float64) + 0.1, drawn(4, 1)
    torch.testing.assert_close(relation_loss(scale * ours + shift, theirs, eps=0.0), reference)
    torch.testing.assert_close(relation_loss(-ours, theirs, eps=0.0), 2 - reference)


def test_equal_networks_cost_nothing_and_the_order_of_classes_does_not_matter():
    equal = numbers(dist_losses(STUDENT, STUDENT, 1.0, eps=0.0))
    assert equal == pytest.approx({"inter": 0.0, "intra": 0.0}, abs=1e-12)
    order = torch.tensor([2, 0, 1])
    swapped = dist_losses(STUDENT[:, order], TEACHER[:, order], 4.0)
    assert numbers(swapped) == pytest.approx(numbers(dist_losses(STUDENT, TEACHER, 4.0)), rel=1e-12)


# Where a correlation has nothing to say.


def test_of_two_classes_only_the_relation_of_samples_teaches():
    student = torch.tensor([[1.0, 0], [0, 2], [3, 0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2.0, 0], [0, 1], [1, 0]], dtype=torch.float64)
    losses = dist_losses(student, teacher, 1.0)
    assert losses["inter"].item() == pytest.approx(5.4e-8, abs=1e-9)
    assert losses["intra"].item() == pytest.approx(0.1207194714, abs=5e-8)
    inter, intra = (torch.autograd.grad(losses[name], student, retain_graph=True)[0] for name in losses)
    assert inter.abs().max() < 1e-6
    assert intra.abs().max() > 1e-3
    opposed = dist_losses(student[:2].detach(), torch.tensor([[0.0, 1], [0, 1]], dtype=torch.float64), 1.0)
    assert opposed["inter"].item() == pytest.approx(1.0, abs=1e-6)


def test_of_one_sample_only_the_relation_of_classes_teaches():
    student = STUDENT[:1].clone().requires_grad_()
    losses = dist_losses(student, TEACHER[:1], 1.0)
    assert losses["inter"].item() == pytest.approx(0.0343515094, abs=5e-8)
    assert losses["intra"].item() == 1.0
    (gradient,) = torch.autograd.grad(losses["intra"], student)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def gradient_of(scale, rows=2, classes=3):
    chance = torch.Generator().manual_seed(0)
    student = (scale * torch.randn(rows, classes, generator=chance)).requires_grad_()
    losses = dist_losses(student, torch.randn(rows, classes, generator=chance), 1.0)
    (gradient,) = torch.autograd.grad(losses["inter"] + losses["intra"], student)
    return gradient, losses


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-3])
def test_a_fresh_head_of_zeros_has_a_gradient_of_bounded_size(scale):
    """In the authors' code it is 9.6e6 at zero, 3.9e5 at 1e-6 and 418 at 1e-3."""
    gradient, losses = gradient_of(scale)
    assert all(0 <= loss.item() <= 2 for loss in losses.values())
    assert 1 < gradient.abs().max() < 1000


def test_without_the_bound_it_would_explode():
    chance = torch.Generator().manual_seed(0)
    student = (1e-6 * torch.randn(2, 3, generator=chance, dtype=torch.float64)).requires_grad_()
    losses = slow(student, torch.randn(2, 3, generator=chance, dtype=torch.float64), 1.0)
    (gradient,) = torch.autograd.grad(losses["inter"] + losses["intra"], student)
    assert gradient.abs().max() > 1e5


def test_a_head_of_zeros_learns(echo, parrot):
    """From uniform answers the gradient leads towards the teacher's, with labels and without."""
    teacher = torch.randn(32, 10, generator=torch.Generator().manual_seed(0))
    features = torch.randn(32, 16, generator=torch.Generator().manual_seed(1))
    head = nn.Linear(16, 10)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    method = build(head, parrot(teacher))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    first = None
    for _ in range(50):
        losses = method.losses(Batch(inputs=features))
        total = method.total(Update(losses), Progress())
        first = total.item() if first is None else first
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert head.weight.abs().max() < 100
    assert total.item() < 0.8 * first


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_floor_leaves_ordinary_answers_alone(temperature):
    """A hundredth of a logit is above it, at any number of classes."""
    for classes in (3, 100, 1000):
        student, teacher = 0.01 * temperature * drawn(8, classes), drawn(8, classes)
        found, expected = (f(student, teacher, temperature, eps=0.0)["inter"] for f in (dist_losses, fast))
        torch.testing.assert_close(found, expected)


def fast(student, teacher, temperature, *, eps):
    """`torch.corrcoef`, row by row."""
    ours, theirs = ((logits / temperature).softmax(1) for logits in (student, teacher))
    found = [torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(ours, theirs, strict=True)]
    return {"inter": 1 - torch.stack(found).mean()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("which", ["student", "teacher", "both"])
def test_classes_that_nobody_gives_anything_are_finite(dtype, which):
    """In float16 their probabilities and 1e-8 are zero, and the quotient NaN."""
    student, teacher = torch.randn(4, 5).to(dtype), torch.randn(4, 5).to(dtype)
    for logits in {"student": [student], "teacher": [teacher], "both": [student, teacher]}[which]:
        logits[:, 2] = -2e4
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16 if dtype == torch.float32 else dtype):
        losses = dist_losses(student, teacher, 1.0)
    (gradient,) = torch.autograd.grad(losses["inter"] + losses["intra"], student)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert gradient.isfinite().all()
    assert gradient[:, [0, 1, 3, 4]].abs().max() > 0


def test_classes_that_were_not_recorded_are_finite():
    student = torch.randn(4, 5, requires_grad=True)
    losses = dist_losses(student, torch.randn(4, 5).index_fill(1, torch.tensor([0, 3]), -1e30), 4.0)
    (gradient,) = torch.autograd.grad(losses["inter"] + losses["intra"], student)
    assert all(loss.isfinite() for loss in losses.values())
    assert gradient.isfinite().all()


# The method.


def test_each_place_of_a_map_is_a_row():
    student, teacher = drawn(2, 3, 2, 2).requires_grad_(), drawn(2, 3, 2, 2)
    found = dist_losses(student, teacher, 1.0)
    expected = slow(*(logits.permute(0, 2, 3, 1).reshape(8, 3) for logits in (student, teacher)), 1.0)
    assert numbers(found) == pytest.approx(numbers(expected), rel=1e-9)
    gradients = (torch.autograd.grad(sum(losses.values()), student)[0] for losses in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("temperature", "t_squared"), [(1.0, True), (4.0, True), (4.0, False)])
def test_the_method_adds_the_cross_entropy(temperature, t_squared, mixed, echo, parrot):
    targets = torch.tensor([[0.7, 0.3, 0.0]] * 4, dtype=torch.float64) if mixed else LABELS
    method = build(echo, parrot(TEACHER), temperature=temperature, t_squared=t_squared)
    losses = method.losses(Batch(inputs=STUDENT, targets=targets))
    hard, relations = nn.functional.cross_entropy(STUDENT, targets), slow(STUDENT, TEACHER, temperature)
    factor = temperature**2 if t_squared else 1.0
    wanted = {"ce": hard.item(), **{name: factor * loss.item() for name, loss in relations.items()}}
    assert numbers(losses) == pytest.approx(wanted)
    total = method.total(Update(losses), Progress()).item()
    assert total == pytest.approx(wanted["ce"] + 2 * (wanted["inter"] + wanted["intra"]))
    assert method.losses(Batch(inputs=STUDENT)).keys() == {"inter", "intra"}


def test_no_gradient_reaches_the_teacher():
    student, teacher = drawn(3, 4).requires_grad_(), drawn(3, 4).requires_grad_()
    sum(dist_losses(student, teacher).values()).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_parts_of_a_batch_do_not_add_up_and_the_registration_says_so():
    assert set(catalogue.get("dist").exceptions) == {"parts-of-a-batch-add-up"}


@pytest.mark.parametrize("name", ["inter_weight", "intra_weight", "eps"])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_what_is_below_zero_is_refused(name, value, echo, parrot):
    with pytest.raises(UserError, match=f"{name}={value} must be zero or more"):
        build(echo, parrot(TEACHER), **{name: value})


def test_a_temperature_by_which_nothing_can_be_divided_is_refused(echo, parrot):
    with pytest.raises(UserError, match=r"temperature=0\.0 must be above zero and finite"):
        build(echo, parrot(TEACHER), temperature=0.0)


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match="the same classes in the same order"):
        dist_losses(STUDENT, TEACHER[:, :2])
