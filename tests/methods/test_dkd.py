import math

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.losses import cross_entropy, kd_loss
from tutelage.methods.dkd import DKD

STUDENT, TEACHER, LABELS = [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], [[3.0, 2.0, 1.0], [1.0, 0.0, -1.0]], [2, 0]


def divergence(target, p):
    return math.fsum(t * (math.log(t) - math.log(x)) for t, x in zip(target, p, strict=True) if t > 0)


def standardized(row, ddof):
    mean = math.fsum(row) / len(row)
    sigma = math.sqrt(math.fsum((z - mean) ** 2 for z in row) / (len(row) - ddof))
    return [(z - mean) / sigma for z in row]


def slow_parts(slow, student, teacher, labels, temperature, ddof=None):
    """TCKD and NCKD from the paper's definition, one probability at a time."""
    tckd, nckd = [], []
    for s, t, y in zip(student, teacher, labels, strict=True):
        if ddof is not None:
            s, t = standardized(s, ddof), standardized(t, ddof)
        p, q = slow.softmax(t, temperature), slow.softmax(s, temperature)
        tckd.append(divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]]))
        others = [k for k in range(len(p)) if k != y]
        p_rest, q_rest = math.fsum(p[k] for k in others), math.fsum(q[k] for k in others)
        # A teacher that leaves nothing for the others says nothing of them.
        if p_rest == 0:
            p, p_rest = [1.0] * len(p), float(len(others))
        nckd.append(divergence([p[k] / p_rest for k in others], [q[k] / q_rest for k in others]))
    return temperature**2 * slow.mean(tckd), temperature**2 * slow.mean(nckd)


def slow_gradient(function, rows, step=2e-3):
    """Central differences of the fourth order."""
    gradient = []
    for i, row in enumerate(rows):
        gradient.append([])
        for k in range(len(row)):

            def moved(by, i=i, k=k):
                shifted = [list(other) for other in rows]
                shifted[i][k] += by * step
                return function(shifted)

            gradient[i].append((8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * step))
    return torch.tensor(gradient)


def parts(student, teacher, labels, parrot, **options):
    method = DKD(nn.Identity(), parrot(teacher), **options)
    return method.losses(Batch(inputs=student, targets=labels))


@pytest.fixture
def sample(double):
    return torch.randn(5, 4) * 3, torch.randn(5, 4) * 3, torch.tensor([0, 3, 1, 2, 3])


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("ddof", [None, 0, 1])
def test_loss_and_gradient_against_loops(temperature, ddof, sample, slow, measure, echo, parrot):
    student, teacher, labels = sample
    options = {} if ddof is None else {"standardize": True, "standardize_ddof": ddof}
    method = DKD(echo, parrot(teacher), temperature=temperature, alpha=0.5, beta=3.0, ramp_epochs=1, **options)
    found = measure(method, student, labels)

    def total(rows):
        tckd, nckd = slow_parts(slow, rows, teacher.tolist(), labels.tolist(), temperature, ddof)
        return slow.label_loss(rows, labels.tolist()) + 0.5 * tckd + 3 * nckd

    tckd, nckd = slow_parts(slow, student.tolist(), teacher.tolist(), labels.tolist(), temperature, ddof)
    hard = slow.label_loss(student.tolist(), labels.tolist())
    assert found.losses == pytest.approx({"ce": hard, "tckd": tckd, "nckd": nckd}, rel=1e-9)
    assert found.total == pytest.approx(total(student.tolist()), rel=1e-9)
    expected = slow_gradient(total, student.tolist())
    assert torch.allclose(found.gradient, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("temperature", "tckd", "nckd", "total"),
    [(1.0, 0.4794927280, 0.2865306145, 2.7717376436878243), (4.0, 0.6024332694, 0.3107210908, 3.08820199548294)],
)
def test_known_answers(temperature, tckd, nckd, total, double, measure, echo, parrot):
    method = DKD(echo, parrot(torch.tensor(TEACHER)), temperature=temperature, ramp_epochs=1)
    found = measure(method, torch.tensor(STUDENT), torch.tensor(LABELS))
    assert (found.losses["tckd"], found.losses["nckd"]) == pytest.approx((tckd, nckd), rel=1e-9)
    assert found.total == pytest.approx(0.7531091265562451 + total, rel=1e-12)


@pytest.mark.parametrize(("row", "expected"), [(0, 1.1504207652), (1, 0.2662167068)])
def test_the_parts_are_kd_taken_apart(row, expected, double, parrot):
    student, teacher, labels = (torch.tensor([x[row]]) for x in (STUDENT, TEACHER, LABELS))
    found = parts(student, teacher, labels, parrot, temperature=1.0)
    whole = found["tckd"] + (1 - teacher.softmax(1)[0, labels[0]]) * found["nckd"]
    assert whole.item() == pytest.approx(expected, rel=1e-9)
    assert whole.item() == pytest.approx(kd_loss(student, teacher, 1.0).item(), rel=1e-12)


def test_of_two_classes_tckd_is_kd_and_nckd_is_zero(double, parrot):
    student, teacher, labels = torch.randn(5, 2).requires_grad_(True), torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    found = parts(student, teacher, labels, parrot, temperature=3.0)
    assert found["tckd"].item() == pytest.approx(kd_loss(student, teacher, 3.0).item(), rel=1e-12)
    assert found["nckd"].item() == 0.0
    (gradient,) = torch.autograd.grad(found["nckd"], student)
    assert torch.equal(gradient, torch.zeros(5, 2))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("ddof", [None, 0, 1])
@pytest.mark.parametrize("kept", [1, 2])
def test_recorded_answers_without_the_others(kept, ddof, temperature, slow, measure, echo, parrot):
    """`hard` and `top2-renormalized` replay log 0 as -1e30; the label may be kept or not."""
    answers = torch.full((3, 4), -1e30)
    answers[0, :kept], answers[1, :kept], answers[2, -kept:] = -0.2, -0.2, -0.5
    student, labels = torch.randn(3, 4) * 3, torch.tensor([0, 3, 1])
    options = {} if ddof is None else {"standardize": True, "standardize_ddof": ddof}
    method = DKD(echo, parrot(answers), temperature=temperature, alpha=0.5, beta=3.0, ramp_epochs=1, **options)
    found = measure(method, student, labels)

    def total(rows):
        tckd, nckd = slow_parts(slow, rows, answers.double().tolist(), labels.tolist(), temperature, ddof)
        return slow.label_loss(rows, labels.tolist()) + 0.5 * tckd + 3 * nckd

    assert found.total == pytest.approx(total(student.double().tolist()), rel=1e-5)
    expected = slow_gradient(total, student.double().tolist())
    assert torch.allclose(found.gradient, expected.float(), rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_invariances(sample, parrot):
    student, teacher, labels = sample
    reference = parts(student, teacher, labels, parrot)
    shifts, classes, rows = torch.randn(2, 5, 1) * 9, torch.tensor([2, 0, 3, 1]), torch.randperm(5)
    same = [
        parts(student + shifts[0], teacher + shifts[1], labels, parrot),
        parts(student[:, classes], teacher[:, classes], classes.argsort()[labels], parrot),
        parts(student[rows], teacher[rows], labels[rows], parrot),
    ]
    for found in same:
        assert all(torch.allclose(found[name], reference[name], rtol=1e-11) for name in reference)
    other = parts(student, teacher, (labels + 1) % 4, parrot)
    assert not any(torch.allclose(other[name], reference[name], rtol=1e-3) for name in reference)


def test_each_part_reads_its_own_half(sample, parrot):
    student, teacher, labels = sample
    reference = parts(student, teacher, labels, parrot)
    label = torch.nn.functional.one_hot(labels, 4)
    raised = parts(student + 2.0 * label, teacher - label, labels, parrot)
    assert torch.allclose(raised["nckd"], reference["nckd"], rtol=1e-11)
    assert not torch.allclose(raised["tckd"], reference["tckd"], rtol=1e-3)
    mixed = student.clone()
    for row, y in zip(mixed, labels.tolist(), strict=True):
        others = [k for k in range(4) if k != y]
        row[others] = row[others[1:] + others[:1]]
    moved = parts(mixed, teacher, labels, parrot)
    assert torch.allclose(moved["tckd"], reference["tckd"], rtol=1e-11)
    assert not torch.allclose(moved["nckd"], reference["nckd"], rtol=1e-3)


def test_equal_logits_cost_nothing_and_pull_nowhere(sample, parrot):
    student, _, labels = sample
    student.requires_grad_(True)
    found = parts(student, student.detach().clone(), labels, parrot)
    assert found["tckd"].item() == found["nckd"].item() == 0.0
    (gradient,) = torch.autograd.grad(found["tckd"] + found["nckd"], student)
    assert gradient.abs().max() < 1e-14


def test_standardized_terms_know_no_scale_and_the_cross_entropy_reads_raw_logits(sample, parrot):
    student, teacher, labels = sample
    scales, shifts = torch.rand(2, 5, 1) * 4 + 0.5, torch.randn(2, 5, 1)
    reference = parts(student, teacher, labels, parrot, standardize=True)
    scaled = student * scales[0] + shifts[0]
    found = parts(scaled, teacher * scales[1] + shifts[1], labels, parrot, standardize=True)
    assert torch.allclose(found["tckd"], reference["tckd"], rtol=1e-10)
    assert torch.allclose(found["nckd"], reference["nckd"], rtol=1e-10)
    assert torch.equal(found["ce"], cross_entropy(scaled, labels))
    assert torch.equal(reference["ce"], cross_entropy(student, labels))


def test_no_gradient_reaches_the_teacher(sample, parrot):
    student, teacher, labels = (x.requires_grad_(True) if x.is_floating_point() else x for x in sample)
    for standardize in (False, True):
        found = parts(student, teacher, labels, parrot, standardize=standardize)
        (found["tckd"] + found["nckd"]).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_a_sure_and_wrong_student_costs_what_it_should(double, parrot):
    student, teacher = torch.tensor([[1e4, 0.0, 0.0]]), torch.tensor([[0.0, 1e4, 0.0]])
    found = parts(student, teacher, torch.tensor([0]), parrot, temperature=1.0)
    # The teacher is sure that it is not the label; log(1 - p(y)) of the student is log 2 - 10,000.
    assert found["tckd"].item() == pytest.approx(1e4 - math.log(2), rel=1e-12)
    assert found["nckd"].item() == pytest.approx(math.log(2), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 4.0])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ([1e4, -1e4, 0.0], [-1e4, 0.0, 1e4]),
        ([-1e4, -1e4, 1e4], [1e4, 1e4, -1e4]),
        ([7.0, 7.0, 7.0], [-2.0, -2.0, -2.0]),
        ([0.0, 0.0, 0.0], [1e4, 0.0, 0.0]),
        ([1e4, -1e4], [-1e4, 1e4]),
    ],
)
def test_losses_and_gradients_stay_finite(student, teacher, standardize, temperature, dtype, parrot):
    for label in range(len(student)):
        logits = torch.tensor([student], dtype=dtype, requires_grad=True)
        answers, labels = torch.tensor([teacher], dtype=dtype), torch.tensor([label])
        found = parts(logits, answers, labels, parrot, temperature=temperature, standardize=standardize)
        for name, loss in found.items():
            (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
            assert loss.dtype == torch.float32, name
            assert loss.isfinite(), name
            assert loss >= -1e-5, name
            assert gradient.isfinite().all(), name


def weights(method, *, epochs, steps=4):
    """The weight of TCKD, over alpha, at each step of a run."""
    for step in range(epochs * steps):
        yield method.weight("tckd", Progress(step=step, total_steps=epochs * steps, epoch=step // steps))


@pytest.mark.parametrize(("epoch", "factor"), [(1, 0.05), (5, 0.25), (20, 1.0), (40, 1.0)])
def test_warm_up_known_answers(epoch, factor, echo, parrot):
    method = DKD(echo, parrot(torch.zeros(1, 2)), alpha=2.0, beta=6.0, ramp_epochs=20)
    progress = Progress(step=(epoch - 1) * 7 + 6, total_steps=240 * 7, epoch=epoch - 1)
    assert method.weight("tckd", progress) == pytest.approx(2 * factor)
    assert method.weight("nckd", progress) == pytest.approx(6 * factor)
    assert method.weight("ce", progress) == 1.0


@pytest.mark.parametrize("epochs", [240, 300])
def test_the_default_warm_up_is_the_published_one(epochs, echo, parrot):
    default, published = (DKD(echo, parrot(torch.zeros(1, 2)), ramp_epochs=ramp) for ramp in (None, 20))
    assert list(weights(default, epochs=epochs)) == list(weights(published, epochs=epochs))


@pytest.mark.parametrize("epochs", [1, 10, 24, 120])
def test_a_shorter_run_warms_up_for_a_twelfth(epochs, echo, parrot):
    found = list(weights(DKD(echo, parrot(torch.zeros(1, 2))), epochs=epochs, steps=24))
    twelfth = 2 * epochs
    assert found == sorted(found)
    assert max(found[:twelfth]) < 1.0
    assert set(found[twelfth:]) == {1.0}
    assert found[twelfth // 2] == pytest.approx(0.5)


def test_the_warm_up_can_be_switched_off_and_is_obeyed(echo, parrot):
    assert set(weights(DKD(echo, parrot(torch.zeros(1, 2)), ramp_epochs=1), epochs=10)) == {1.0}
    slow = list(weights(DKD(echo, parrot(torch.zeros(1, 2)), ramp_epochs=20), epochs=10))
    assert (slow[0], slow[-1]) == (pytest.approx(0.05), pytest.approx(0.5))


def test_only_the_student_is_trained_and_exported():
    student, teacher = nn.Linear(3, 4), nn.Linear(3, 4)
    method = DKD(student, FrozenTeacher(teacher))
    assert list(method.optimizers()["student"].params) == list(student.parameters())
    assert method.export() is student


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0 must be above zero"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"alpha": -1.0}, "alpha=-1.0 must be zero or more"),
        ({"beta": math.nan}, "beta=nan must be zero or more"),
        ({"ramp_epochs": 0}, "ramp_epochs=0 must be 1 or more; with 1 there is no warm-up"),
    ],
)
def test_mistakes_are_told(options, message, echo, parrot):
    with pytest.raises(UserError, match=message):
        DKD(echo, parrot(torch.zeros(1, 2)), **options)


@pytest.mark.parametrize("labels", [torch.full((2, 3), 1 / 3), torch.tensor([0.0, 1.0]), torch.tensor([0])])
def test_labels_that_are_no_class_indices_are_refused(labels, parrot):
    with pytest.raises(UserError, match="labels must be class indices of shape"):
        parts(torch.tensor(STUDENT), torch.tensor(TEACHER), labels, parrot)


@pytest.mark.parametrize("classes", [2, 100])
def test_other_classes_are_refused(classes, parrot):
    with pytest.raises(ValueError, match=rf"\(2, 3\), and the teacher \(2, {classes}\)"):
        parts(torch.tensor(STUDENT), torch.zeros(2, classes), torch.tensor(LABELS), parrot)
