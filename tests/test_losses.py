import math

import pytest
import torch
import torch.nn.functional as F

from tutelage.losses import cross_entropy, kd_loss, log_mean_probability, soft_cross_entropy, wide

# Known answers in float64, from the fact sheet of the logit methods.
STUDENT = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[3.0, 2.0, 1.0], [1.0, 0.0, -1.0]], dtype=torch.float64)
LABELS = torch.tensor([2, 0])


def softmax(row, temperature=1.0):
    weights = [math.exp((value - max(row)) / temperature) for value in row]
    return [weight / math.fsum(weights) for weight in weights]


def slow_kl(student, teacher, temperature):
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        total += math.fsum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return total / len(student)


def random_pair(rows=7, classes=5, scale=3.0):
    return (torch.randn(rows, classes, dtype=torch.float64) * scale for _ in range(2))


def gradient_of(loss, logits):
    logits = logits.detach().clone().requires_grad_(True)
    return torch.autograd.grad(loss(logits), logits)[0]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, 0.7083187360185268),
        (2.0, 0.7971552395421697),
        (4.0, 0.8239160682148416),
        (20.0, 0.8329516019230411),
    ],
)
def test_kd_known_answers(temperature, expected):
    assert kd_loss(STUDENT, TEACHER, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_kd_known_answers_of_each_row_and_of_the_mix():
    rows = [kd_loss(STUDENT[i : i + 1], TEACHER[i : i + 1], 4.0).item() for i in range(2)]
    assert rows == pytest.approx([1.319629912154, 0.328202224276], rel=1e-11)
    mix = 0.1 * cross_entropy(STUDENT, LABELS) + 0.9 * kd_loss(STUDENT, TEACHER, 4.0)
    assert mix.item() == pytest.approx(0.816835374048982, rel=1e-12)


def test_kd_direction_is_from_the_teacher():
    assert kd_loss(TEACHER, STUDENT, 1.0).item() == pytest.approx(0.7297072204925766, rel=1e-12)
    assert kd_loss(TEACHER, STUDENT, 4.0).item() == pytest.approx(0.8256213219774787, rel=1e-12)


def test_kd_mean_reduction_divides_by_the_classes_as_well():
    assert kd_loss(STUDENT, TEACHER, 4.0, reduction="mean").item() == pytest.approx(0.2746386894, rel=1e-9)


def test_kd_known_gradient():
    gradient = gradient_of(lambda z: kd_loss(z, TEACHER, 4.0), STUDENT)
    expected = [[-0.3299074780, 0.0, 0.3299074780], [-0.1717912366, 0.0136749951, 0.1581162415]]
    assert torch.allclose(gradient, torch.tensor(expected, dtype=torch.float64), atol=1e-10)


def test_kd_of_a_uniform_teacher_known_answer():
    student = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    assert kd_loss(student, torch.zeros_like(student), 1.0).item() == pytest.approx(0.308993675776, rel=1e-11)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("t_squared", [True, False])
def test_kd_against_loops_and_closed_gradient(temperature, t_squared):
    student, teacher = random_pair()
    factor = temperature**2 if t_squared else 1.0
    expected = factor * slow_kl(student, teacher, temperature)
    found = kd_loss(student, teacher, temperature, t_squared=t_squared)
    assert found.item() == pytest.approx(expected, rel=1e-11)
    gradient = gradient_of(lambda z: kd_loss(z, teacher, temperature, t_squared=t_squared), student)
    closed = (F.softmax(student / temperature, 1) - F.softmax(teacher / temperature, 1)) / temperature / len(student)
    assert torch.allclose(gradient, factor * closed, atol=1e-14)


def test_kd_default_temperature_is_four():
    assert torch.equal(kd_loss(STUDENT, TEACHER), kd_loss(STUDENT, TEACHER, 4.0))


def test_kd_invariances():
    student, teacher = random_pair()
    reference = kd_loss(student, teacher)
    shifts = torch.randn(2, len(student), 1, dtype=torch.float64) * 5
    classes, rows = torch.randperm(5), torch.randperm(7)
    assert torch.allclose(kd_loss(student + shifts[0], teacher + shifts[1]), reference, rtol=1e-12)
    assert torch.allclose(kd_loss(student[:, classes], teacher[:, classes]), reference, rtol=1e-12)
    assert torch.allclose(kd_loss(student[rows], teacher[rows]), reference, rtol=1e-12)
    assert not torch.allclose(kd_loss(student[:, classes.roll(1)], teacher[:, classes]), reference, rtol=1e-3)


def test_kd_keeps_its_size_when_the_batch_is_repeated_and_the_classes_are_replicated():
    student, teacher = random_pair()
    reference = kd_loss(student, teacher, 1.0)
    assert torch.allclose(kd_loss(student.repeat(3, 1), teacher.repeat(3, 1), 1.0), reference, rtol=1e-12)
    # Every class split in two equal halves: p log(p / q) of both halves add up to what it was.
    assert torch.allclose(kd_loss(student.repeat(1, 2), teacher.repeat(1, 2), 1.0), reference, rtol=1e-12)


def test_kd_of_maps_is_the_mean_over_places():
    student, teacher = (torch.randn(2, 5, 3, 4, dtype=torch.float64) for _ in range(2))
    flat = [maps.permute(0, 2, 3, 1).reshape(-1, 5) for maps in (student, teacher)]
    for reduction in ("batchmean", "mean"):
        found = kd_loss(student, teacher, 2.0, reduction=reduction)
        assert torch.allclose(found, kd_loss(*flat, 2.0, reduction=reduction), rtol=1e-12)
    assert torch.allclose(soft_cross_entropy(student, teacher, 2.0), soft_cross_entropy(*flat, 2.0), rtol=1e-12)


def test_gradient_keeps_its_order_from_low_to_high_temperature():
    student, teacher = random_pair(scale=1.0)
    sizes = [gradient_of(lambda z, t=t: kd_loss(z, teacher, t), student).norm().item() for t in (1.0, 20.0, 100.0)]
    assert max(sizes) < 3 * min(sizes)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_cross_entropy_against_loops(temperature):
    student, teacher = random_pair()
    expected = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        expected -= math.fsum(a * math.log(b) for a, b in zip(p, q, strict=True)) / len(student)
    assert soft_cross_entropy(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-12)
    hard = gradient_of(lambda z: soft_cross_entropy(z, teacher, temperature), student)
    soft = gradient_of(lambda z: kd_loss(z, teacher, temperature, t_squared=False), student)
    assert torch.allclose(hard, soft, atol=1e-14)


def test_soft_cross_entropy_known_answers():
    teacher = torch.tensor([[3.0, 2.0, 1.0], [2.0, 0.0, -1.0]], dtype=torch.float64)
    found = soft_cross_entropy(STUDENT, teacher).item()
    assert found == pytest.approx(1.5407143178584657, rel=1e-12)
    entropy = soft_cross_entropy(teacher, teacher).item()
    assert entropy == pytest.approx(0.6783310992838059, rel=1e-12)
    assert found - entropy == pytest.approx(0.8623832185746598, rel=1e-12)
    assert kd_loss(STUDENT, teacher, 1.0).item() == pytest.approx(0.8623832185746598, rel=1e-12)


def test_cross_entropy_known_answers():
    assert cross_entropy(STUDENT, LABELS).item() == pytest.approx(0.7531091265562451, rel=1e-12)
    assert cross_entropy(TEACHER, LABELS).item() == pytest.approx(1.4076059644443806, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7, 1.0])
def test_smoothed_cross_entropy_against_loops(smoothing):
    logits, _ = random_pair()
    labels = torch.randint(0, 5, (7,))
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        for k, p in enumerate(softmax(row)):
            target = (1 - smoothing) * (k == label) + smoothing / 5
            expected -= target * math.log(p) / 7
    assert cross_entropy(logits, labels, label_smoothing=smoothing).item() == pytest.approx(expected, rel=1e-12)
    gradient = gradient_of(lambda z: cross_entropy(z, labels, label_smoothing=smoothing), logits)
    mixed = (1 - smoothing) * F.one_hot(labels, 5) + smoothing / 5
    assert torch.allclose(gradient, (F.softmax(logits, 1) - mixed) / 7, atol=1e-14)


def test_cross_entropy_of_maps():
    logits, labels = torch.randn(2, 5, 3, 4, dtype=torch.float64), torch.randint(0, 5, (2, 3, 4))
    flat = cross_entropy(logits.permute(0, 2, 3, 1).reshape(-1, 5), labels.flatten())
    assert torch.allclose(cross_entropy(logits, labels), flat, rtol=1e-12)


def test_no_gradient_reaches_the_teacher():
    student, teacher = (logits.requires_grad_(True) for logits in random_pair())
    (kd_loss(student, teacher) + soft_cross_entropy(student, teacher)).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_equal_logits_cost_nothing_and_pull_nowhere():
    student, _ = random_pair()
    assert kd_loss(student, student).item() == 0.0
    assert gradient_of(lambda z: kd_loss(z, student), student).abs().max() < 1e-15
    assert gradient_of(lambda z: kd_loss(z, student + 3.0), student).abs().max() < 1e-15


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_divergence_is_not_negative(temperature, dtype, rounding):
    for distance in (1e-6, 1e-3, 1.0):
        teacher = torch.randn(64, 100, dtype=dtype) * 3
        student = teacher + distance * torch.randn(64, 100, dtype=dtype)
        assert kd_loss(student, teacher, temperature, t_squared=False) >= -rounding


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = (torch.randn(8, 100).mul(5).to(dtype) for _ in range(2))
    labels = torch.randint(0, 100, (8,))
    for loss in (kd_loss, soft_cross_entropy):
        found = loss(student, teacher, 4.0)
        assert found.dtype == torch.float32
        assert torch.allclose(found, loss(student.float(), teacher.float(), 4.0))
    assert torch.equal(cross_entropy(student, labels), cross_entropy(student.float(), labels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("kind", ["huge", "constant", "opposed"])
def test_losses_and_gradients_stay_finite(dtype, temperature, kind):
    rows = {
        "huge": (torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 0.0, 1e4]])),
        "constant": (torch.full((1, 3), 7.0), torch.full((1, 3), -2.0)),
        "opposed": (torch.tensor([[1e4, 1e4, -1e4]]), torch.tensor([[-1e4, -1e4, 1e4]])),
    }
    student, teacher = (row.to(dtype) for row in rows[kind])
    student.requires_grad_(True)
    label = torch.tensor([1])
    losses = [
        kd_loss(student, teacher, temperature),
        soft_cross_entropy(student, teacher, temperature),
        cross_entropy(student, label, label_smoothing=0.1),
    ]
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite()
        assert loss >= 0
        assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", [kd_loss, soft_cross_entropy])
@pytest.mark.parametrize(("student", "teacher"), [((4, 10), (4, 100)), ((4, 10), (1, 10)), ((4, 10), (4, 1))])
def test_shapes_must_agree(loss, student, teacher):
    with pytest.raises(ValueError, match=r"student returns .*same classes in the same order"):
        loss(torch.zeros(student), torch.zeros(teacher))


def test_labels_must_fit_the_batch():
    with pytest.raises(ValueError, match="batch_size"):
        cross_entropy(torch.zeros(4, 10), torch.zeros(3, dtype=torch.long))


def test_wide_keeps_what_is_wide_enough():
    for given, expected in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert wide(torch.zeros(1, dtype=given)).dtype == expected


def test_the_mean_probability_of_maps_is_that_of_each_place():
    members = torch.randn(3, 2, 5, 4, 6, dtype=torch.float64) * 3
    expected = members.softmax(2).mean(0)
    found = log_mean_probability(members)
    assert torch.allclose(found.exp(), expected, rtol=1e-12)
    assert torch.allclose(found.exp().sum(1), torch.ones(2, 4, 6, dtype=torch.float64), rtol=1e-12)
