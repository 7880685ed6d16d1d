import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher, ShuffledTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import parse_choice
from tutelage.losses import cross_entropy, kd_loss
from tutelage.methods.kd import KD, kd_shuffled_teacher, kd_uniform_teacher
from tutelage.testing.toys import methods_of, toy_experiment


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("t_squared", [True, False])
@pytest.mark.parametrize("reduction", ["batchmean", "mean"])
def test_loss_against_loops_and_closed_gradient(temperature, t_squared, reduction, double, slow, measure, echo, parrot):
    logits, labels, answers = torch.randn(5, 4) * 3, torch.randint(0, 4, (5,)), torch.randn(5, 4) * 3
    options = {"temperature": temperature, "t_squared": t_squared, "reduction": reduction}
    found = measure(KD(echo, parrot(answers), alpha=0.7, **options), logits, labels)
    factor = (temperature**2 if t_squared else 1) / (4 if reduction == "mean" else 1)
    soft = factor * slow.soft_loss(logits.tolist(), answers.tolist(), temperature)
    hard = slow.label_loss(logits.tolist(), labels.tolist())
    assert found.losses == pytest.approx({"ce": hard, "kd": soft}, rel=1e-10)
    assert found.total == pytest.approx(0.3 * hard + 0.7 * soft, rel=1e-10)
    gap = (F.softmax(logits / temperature, 1) - F.softmax(answers / temperature, 1)) / temperature
    closed = (0.3 * (F.softmax(logits, 1) - F.one_hot(labels, 4)) + 0.7 * factor * gap) / 5
    assert torch.allclose(found.gradient, closed, atol=1e-14)


def test_known_answer(double, measure, echo, parrot):
    student, teacher = [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], [[3.0, 2.0, 1.0], [1.0, 0.0, -1.0]]
    found = measure(KD(echo, parrot(torch.tensor(teacher))), torch.tensor(student), torch.tensor([2, 0]))
    assert found.total == pytest.approx(0.816835374048982, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("ddof", [0, 1])
def test_standardized_loss_against_loops_and_closed_gradient(temperature, ddof, double, slow, measure, echo, parrot):
    logits, labels, answers = torch.randn(5, 4) * 3, torch.randint(0, 4, (5,)), torch.randn(5, 4) * 3
    options = {"temperature": temperature, "standardize": True, "standardize_ddof": ddof}
    found = measure(KD(echo, parrot(answers), alpha=0.7, multiplier=5.0, **options), logits, labels)

    def standardized(rows):
        for row in rows:
            mean = math.fsum(row) / 4
            yield [(z - mean) / math.sqrt(math.fsum((x - mean) ** 2 for x in row) / (4 - ddof)) for z in row]

    student, teacher = list(standardized(logits.tolist())), list(standardized(answers.tolist()))
    soft = temperature**2 * slow.soft_loss(student, teacher, temperature)
    hard = slow.label_loss(logits.tolist(), labels.tolist())
    assert found.losses == pytest.approx({"ce": hard, "kd": soft}, rel=1e-10)
    assert found.total == pytest.approx(0.3 * hard + 3.5 * soft, rel=1e-10)
    expected = []
    for row, s, t, y in zip(logits.tolist(), student, teacher, labels.tolist(), strict=True):
        mean = math.fsum(row) / 4
        sigma = math.sqrt(math.fsum((z - mean) ** 2 for z in row) / (4 - ddof))
        p, q, hot = slow.softmax(t, temperature), slow.softmax(s, temperature), slow.softmax(row)
        # dKL/dZ, through dZ_j/dz_k = (1[j = k] - 1/K - Z_j Z_k / (K - ddof)) / sigma.
        pull = [temperature * (b - a) for a, b in zip(p, q, strict=True)]
        along = math.fsum(g * z for g, z in zip(pull, s, strict=True)) / (4 - ddof)
        back = [(g - math.fsum(pull) / 4 - along * z) / sigma for g, z in zip(pull, s, strict=True)]
        expected.append([(0.3 * (hot[k] - (k == y)) + 3.5 * back[k]) / 5 for k in range(4)])
    assert torch.allclose(found.gradient, torch.tensor(expected), rtol=1e-9, atol=1e-14)


def test_the_published_weights_of_logit_standardization(echo, parrot):
    options = parse_choice("kd:standardize=true,temperature=2,multiplier=10").hyper_parameters
    method = KD(echo, parrot(torch.zeros(1, 2)), **options)
    assert (method.weights["ce"], method.weights["kd"]) == (pytest.approx(0.1), pytest.approx(9.0))
    assert (method.temperature, method.standardize, method.standardize_ddof) == (2.0, True, 1)


def test_a_standardized_soft_term_knows_no_scale_and_the_cross_entropy_does(double, measure, echo, parrot):
    logits, labels, answers = torch.randn(5, 4) * 3, torch.randint(0, 4, (5,)), torch.randn(5, 4)
    method = KD(echo, parrot(7 * answers - 3), standardize=True)
    found = measure(method, logits, labels).losses
    assert found["ce"] == cross_entropy(logits, labels).item()
    assert found["kd"] != pytest.approx(kd_loss(logits, 7 * answers - 3).item(), rel=1e-2)
    scaled = measure(method, 0.2 * logits + 5, labels).losses
    assert scaled["kd"] == pytest.approx(found["kd"], rel=1e-10)
    assert scaled["ce"] == cross_entropy(0.2 * logits + 5, labels).item()
    assert measure(method, answers, labels).losses["kd"] == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("row", [[1e4, -1e4, 0.0], [7.0, 7.0, 7.0], [0.0, 0.0, 0.0]])
def test_standardized_losses_and_gradients_stay_finite(row, dtype, measure, echo, parrot):
    for answer in ([-1e4, 0.0, 1e4], [3.0, 3.0, 3.0]):
        method = KD(echo, parrot(torch.tensor([answer], dtype=dtype)), standardize=True, multiplier=10.0)
        found = measure(method, torch.tensor([row], dtype=dtype), torch.tensor([1]))
        assert math.isfinite(found.total)
        assert found.gradient.isfinite().all()


@pytest.mark.parametrize("kept", [1, 2])
def test_recorded_answers_without_the_others_are_standardized_as_what_they_are(kept, slow, measure, echo, parrot):
    """`hard` and `top2-renormalized` replay log 0 as -1e30: no uniform teacher."""
    answers = torch.full((2, 4), -1e30)
    answers[0, :kept], answers[1, -kept:] = -0.5, -1.0
    logits, labels = torch.randn(2, 4) * 3, torch.tensor([1, 2])
    method = KD(echo, parrot(answers), temperature=2.0, standardize=True)

    def standardized(row):
        mean = math.fsum(row) / 4
        return [(z - mean) / math.sqrt(math.fsum((x - mean) ** 2 for x in row) / 3) for z in row]

    levels, students = ([standardized(row) for row in rows.double().tolist()] for rows in (answers, logits))
    found = measure(method, logits, labels)
    assert found.losses["kd"] == pytest.approx(4 * slow.soft_loss(students, levels, 2.0), rel=1e-5)
    assert found.losses["kd"] != pytest.approx(4 * slow.soft_loss(students, [[0.0] * 4] * 2, 2.0), rel=0.1)
    assert found.gradient.isfinite().all()


@pytest.mark.parametrize("name", ["tf-kd-self", "re-kd", "de-kd"])
def test_recipes_hand_the_switch_on(name):
    for standardize in (False, True):
        *_, last = methods_of(catalogue.get(name), toy_experiment(), {"standardize": standardize}).values()
        assert isinstance(last, KD)
        assert last.standardize is standardize


def test_uniform_teacher(double, slow, measure, echo):
    logits, labels = torch.randn(5, 4) * 3, torch.randint(0, 4, (5,))
    method = kd_uniform_teacher(echo, 4, temperature=3.0, alpha=0.6)
    assert isinstance(method.teacher, UniformTeacher)
    found = measure(method, logits, labels)
    uniform = [slow.kl([0.25] * 4, slow.softmax(row, 3.0)) for row in logits.tolist()]
    assert found.losses["kd"] == pytest.approx(9 * slow.mean(uniform), rel=1e-12)


def test_shuffled_teacher_gives_each_sample_the_answer_of_another(double, slow, measure, echo, parrot):
    logits, labels, answers = torch.randn(2, 4), torch.randint(0, 4, (2,)), torch.randn(2, 4)
    method = kd_shuffled_teacher(echo, parrot(answers), temperature=3.0, alpha=0.6)
    assert isinstance(method.teacher, ShuffledTeacher)
    found = measure(method, logits, labels)
    swapped = slow.soft_loss(logits.tolist(), answers.flip(0).tolist(), 3.0)
    assert found.losses["kd"] == pytest.approx(9 * swapped, rel=1e-12)
    assert (method.weights["ce"], method.weights["kd"]) == (pytest.approx(0.4), 0.6)


def test_only_the_student_is_trained_and_exported():
    student, teacher = nn.Linear(3, 4), nn.Linear(3, 4)
    method = KD(student, FrozenTeacher(teacher))
    assert list(method.optimizers()["student"].params) == list(student.parameters())
    assert method.export() is student
    inputs = torch.randn(2, 3)
    assert torch.equal(method(inputs)["student"], student(inputs))


def test_one_update_a_batch(echo, parrot):
    method = KD(echo, parrot(torch.randn(5, 4)))
    (update,) = method.step(Batch(inputs=torch.randn(5, 4), targets=torch.randint(0, 4, (5,))), Progress())
    assert (update.optimizer, set(update.losses)) == ("student", {"ce", "kd"})
    assert all(loss.shape == () for loss in update.losses.values())


def test_other_classes_are_refused(echo, parrot):
    method = KD(echo, parrot(torch.zeros(5, 100)))
    with pytest.raises(ValueError, match=r"\(5, 4\), and the teacher \(5, 100\)"):
        method.losses(Batch(inputs=torch.zeros(5, 4), targets=torch.zeros(5, dtype=torch.long)))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_is_a_share(alpha, echo, parrot):
    with pytest.raises(UserError, match=r"alpha=.*between 0 and 1"):
        KD(echo, parrot(torch.zeros(1, 2)), alpha=alpha)


@pytest.mark.parametrize("temperature", [0.0, -4.0, math.nan])
def test_temperature_is_above_zero(temperature, echo, parrot):
    with pytest.raises(UserError, match=r"temperature=.*above zero"):
        KD(echo, parrot(torch.zeros(1, 2)), temperature=temperature)
