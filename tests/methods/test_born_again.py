import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from tutelage.errors import UserError
from tutelage.methods.born_again import (
    BornAgain,
    born_again,
    confidence_weighted,
    permute_dark_knowledge,
)
from tutelage.methods.supervised import Supervised
from tutelage.models.ensemble import Ensemble

# Known answers from the fact sheet.
STUDENT = [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]
TEACHER = [[3.0, 2.0, 1.0], [2.0, 0.0, -1.0]]
LABELS = [2, 0]


@pytest.fixture
def toy(double):
    return torch.tensor(STUDENT), torch.tensor(TEACHER), torch.tensor(LABELS)


def test_ban_known_answer(toy, measure, echo, parrot):
    student, teacher, labels = toy
    found = measure(BornAgain(echo, parrot(teacher)), student, labels)
    assert found.losses == pytest.approx({"teacher": 1.5407143178584657}, rel=1e-12)
    assert torch.allclose(found.gradient, (student.softmax(1) - teacher.softmax(1)) / 2, atol=1e-15)


def test_ban_with_labels_adds_the_cross_entropy(toy, measure, echo, parrot):
    student, teacher, labels = toy
    found = measure(BornAgain(echo, parrot(teacher), variant="ban+l"), student, labels)
    assert found.losses == pytest.approx({"teacher": 1.5407143178584657, "ce": 0.7531091265562451}, rel=1e-12)
    assert found.total == pytest.approx(sum(found.losses.values()), rel=1e-15)
    both = 2 * student.softmax(1) - teacher.softmax(1) - F.one_hot(labels, 3)
    assert torch.allclose(found.gradient, both / 2, atol=1e-15)


def test_cwtm_known_answer(toy, measure, echo, parrot):
    student, teacher, labels = toy
    found = measure(BornAgain(echo, parrot(teacher), variant="cwtm"), student, labels)
    assert found.losses == pytest.approx({"ce": 0.7939901312590907}, rel=1e-12)
    weights = torch.tensor([0.440838450721, 0.559161549279])
    closed = weights[:, None] * (student.softmax(1) - F.one_hot(labels, 3))
    assert torch.allclose(found.gradient, closed, atol=1e-11)


def test_cwtm_against_loops(double, slow):
    student, teacher, labels = torch.randn(6, 5), torch.randn(6, 5) * 3, torch.randint(0, 5, (6,))
    sure = [max(slow.softmax(row)) for row in teacher.tolist()]
    losses = [-math.log(slow.softmax(row)[y]) for row, y in zip(student.tolist(), labels.tolist(), strict=True)]
    expected = sum(w / sum(sure) * loss for w, loss in zip(sure, losses, strict=True))
    assert confidence_weighted(student, teacher, labels).item() == pytest.approx(expected, rel=1e-12)


def test_cwtm_of_equal_confidence_is_the_mean(toy):
    student, _, labels = toy
    found = confidence_weighted(student, torch.zeros(2, 3), labels).item()
    assert found == pytest.approx(0.7531091265562451, rel=1e-12)


def test_cwtm_in_half_precision_is_computed_in_float32():
    student, teacher, labels = torch.randn(64, 10).half(), torch.randn(64, 10).half(), torch.randint(0, 10, (64,))
    found = confidence_weighted(student, teacher, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, confidence_weighted(student.float(), teacher.float(), labels))


def test_dkpp_known_answer_of_the_swapped_classes(toy, measure, echo, parrot):
    student, teacher, labels = toy
    method = BornAgain(echo, parrot(teacher), variant="dkpp")
    seen = [measure(method, student, labels).losses["teacher"] for _ in range(60)]
    # The second sample's student answers are equal, so only the first sample's two orders differ: swapped, and as is.
    assert len({round(value, 12) for value in seen}) == 2
    assert min(seen) == pytest.approx(1.4633653689162571, rel=1e-12)
    assert max(seen) == pytest.approx(1.5407143178584657, rel=1e-12)


def test_permutation_keeps_the_first_choice_and_the_set_of_values(double):
    logits = torch.randn(500, 6)
    shuffled = permute_dark_knowledge(logits)
    assert torch.equal(shuffled.argmax(1), logits.argmax(1))
    assert torch.equal(shuffled.amax(1), logits.amax(1))
    assert torch.equal(shuffled.sort(1).values, logits.sort(1).values)
    assert torch.allclose(shuffled.softmax(1).sum(1), torch.ones(500))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_order_of_the_others_is_equally_likely_and_drawn_per_sample(dtype):
    logits = torch.tensor([[1.0, 9.0, 2.0, 3.0]], dtype=dtype).repeat(6000, 1)
    rows = permute_dark_knowledge(logits)
    counts = [
        (rows[:, [0, 2, 3]] == torch.tensor(order, dtype=dtype)).all(1).sum().item()
        for order in itertools.permutations([1.0, 2.0, 3.0])
    ]
    assert sum(counts) == 6000
    assert min(counts) > 850
    assert max(counts) < 1150


def test_two_classes_leave_nothing_to_permute():
    logits = torch.randn(5, 2)
    assert torch.equal(permute_dark_knowledge(logits), logits)


def test_generations_teach_one_another(run, make, without_test):
    network = born_again(run, make, without_test, generations=3, variant="ban+l")
    assert [fit.name for fit in run.fits] == ["generation-0", "generation-1", "generation-2"]
    assert make.parts == [fit.name for fit in run.fits]
    assert isinstance(run.fits[0].method, Supervised)
    for number in (1, 2):
        method = run.fits[number].method
        assert isinstance(method, BornAgain)
        assert method.variant == "ban+l"
        assert method.teacher.network is make.networks[number - 1]
    assert network is make.networks[2]
    assert run.notes == {}


def test_generations_and_their_ensemble_are_scored(run, make, with_test):
    born_again(run, make, with_test, generations=2)
    assert list(run.notes["members"]) == ["generation-0", "generation-1", "ensemble of 2"]
    ensemble = run.evaluated[-1][1]
    assert isinstance(ensemble, Ensemble)
    assert list(ensemble.networks) == make.networks


def test_one_generation_is_refused(run, make, without_test):
    with pytest.raises(UserError, match="generations=1"):
        born_again(run, make, without_test, generations=1)
