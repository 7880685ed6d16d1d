"""Several teachers as one answer, or as one teacher for each sample."""

import math

import pytest
import torch

from tutelage.core.teachers.combining import Together, chosen, rightest, surest, weighted_mean
from tutelage.data.criterion import CROSS_ENTROPY
from tutelage.errors import UserError
from tutelage.losses import log_mean_probability
from tutelage.testing.kinds import KINDS


def some(members=3, samples=5, classes=4, places=()):
    torch.manual_seed(0)
    return 3 * torch.randn(members, samples, classes, *places, dtype=torch.float64)


def test_the_weighted_mean_is_the_slow_loop():
    members, weights = some(), (2.0, 0.0, 6.0)
    found = weighted_mean(members, weights)
    for b in range(5):
        for k in range(4):
            expected = sum(w * members[m, b, k].item() for m, w in enumerate(weights)) / sum(weights)
            assert found[b, k].item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(weighted_mean(members), members.mean(0))
    torch.testing.assert_close(weighted_mean(members, (5.0, 5.0, 5.0)), members.mean(0))


def test_the_surest_and_the_rightest_are_the_slow_loops(slow_softmax):
    members, labels = some(), torch.tensor([0, 3, 1, 1, 2])
    found, right = surest(members), rightest(members, labels)
    for b in range(5):
        p = [slow_softmax(members[m, b].tolist()) for m in range(3)]
        assert found[b] == max(range(3), key=lambda m: max(p[m]))
        assert right[b] == max(range(3), key=lambda m: p[m][labels[b]])
        assert torch.equal(chosen(members, found)[b], members[found[b], b])


@pytest.fixture
def slow_softmax():
    def softmax(row):
        total = math.fsum(map(math.exp, row))
        return [math.exp(value) / total for value in row]

    return softmax


def test_without_a_label_the_surest_answers_and_mixed_labels_count_by_their_shares():
    members = some()
    labels = torch.tensor([0, -1, 1, -1, 2])
    found = rightest(members, labels)
    assert torch.equal(found[[1, 3]], surest(members)[[1, 3]])
    assert torch.equal(found[[0, 2, 4]], rightest(members[:, [0, 2, 4]], labels[[0, 2, 4]]))
    hard = torch.nn.functional.one_hot(torch.tensor([0, 3, 1, 1, 2]), 4).double()
    assert torch.equal(rightest(members, hard), rightest(members, torch.tensor([0, 3, 1, 1, 2])))


def test_at_each_place_another_teacher_may_answer():
    members = some(places=(2, 3))
    found = chosen(members, surest(members))
    assert found.shape == (5, 4, 2, 3)
    labels = torch.randint(4, (5, 2, 3))
    right = chosen(members, rightest(members, labels))
    for b, y, x in [(0, 0, 0), (4, 1, 2), (2, 0, 1)]:
        place = members[:, b, :, y, x]
        assert torch.equal(found[b, :, y, x], place[place.softmax(1).amax(1).argmax()])
        assert torch.equal(right[b, :, y, x], place[place.log_softmax(1)[:, labels[b, y, x]].argmax()])


@pytest.mark.parametrize("how", ["mean", "weighted", "surest", "label"])
def test_one_of_the_ways_is_taken(how):
    members, labels = some(), torch.tensor([0, 3, 1, 1, 2])
    expected = {
        "mean": log_mean_probability(members),
        "weighted": members.mean(0),
        "surest": chosen(members, surest(members)),
        "label": chosen(members, rightest(members, labels)),
    }
    assert torch.equal(Together(how).combined(members, CROSS_ENTROPY, labels), expected[how])


def test_ways_have_names_of_their_own_but_the_mean():
    assert Together().name is None
    names = [Together("weighted").name, Together("weighted", (2, 1)).name, Together("surest").name]
    assert names == ["weighted", "weighted 2 1", "surest"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("best",), "no way for teachers to answer together named 'best'"),
        (("surest", (1.0, 2.0)), "are for teachers=weighted"),
        (("weighted", (1.0, -2.0)), "zero or more"),
        (("weighted", (0.0, 0.0)), "above zero"),
        (("weighted", (1.0, math.nan)), "zero or more"),
    ],
)
def test_nonsense_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        Together(*given)


def test_one_teacher_and_another_number_of_weights_are_refused():
    Together().check_count(1)
    Together("weighted", (1.0, 2.0)).check_count(2)
    with pytest.raises(UserError, match="name two or more"):
        Together("surest").check_count(1)
    with pytest.raises(UserError, match="3 teachers and 2 teacher_weights"):
        Together("weighted", (1.0, 2.0)).check_count(3)


def test_data_without_classes_or_labels_are_refused():
    for how, kind, serves in [
        ("surest", "labels", True),
        ("surest", "regression", False),
        ("surest", "unlabelled", True),
        ("label", "unlabelled", False),
        ("label", "maps", True),
        ("weighted", "regression", True),
    ]:
        data = KINDS[kind].data()
        if serves:
            Together(how).check_serves(data)
        else:
            with pytest.raises(UserError, match=f"teachers={how} chooses by"):
                Together(how).check_serves(data)
