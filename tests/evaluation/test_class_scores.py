"""Scores that weigh the classes, against scikit-learn and known answers."""

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef

from tutelage.data.task import task_named
from tutelage.errors import UserError
from tutelage.evaluation.class_scores import OF_CLASSES, counts_of, score_of

THEIRS = {
    "f1": f1_score,
    "macro_f1": lambda labels, predicted: f1_score(labels, predicted, average="macro"),
    "balanced_accuracy": balanced_accuracy_score,
    "mcc": matthews_corrcoef,
}


def scores(labels, predicted, classes):
    counts = counts_of(torch.tensor(labels), torch.tensor(predicted), classes=classes)
    return {name: score_of(name, counts) for name in OF_CLASSES}


@pytest.mark.parametrize("classes", [2, 4])
def test_they_are_those_of_scikit_learn(classes):
    torch.manual_seed(classes)
    labels = torch.randint(0, classes, (200,)) * torch.randint(0, 2, (200,))
    predicted = torch.where(torch.rand(200) < 0.6, labels, torch.randint(0, classes, (200,)))
    found = scores(labels.tolist(), predicted.tolist(), classes)
    for name, theirs in THEIRS.items():
        if name != "f1" or classes == 2:
            assert found[name] == pytest.approx(theirs(labels.numpy(), predicted.numpy()), abs=1e-12), name


def test_known_answers():
    # Of four positives three are found, and one of six negatives is taken for one: precision and recall are 3/4.
    found = scores([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 0, 0, 0, 0, 0], 2)
    assert found["f1"] == pytest.approx(3 / 4)
    assert found["macro_f1"] == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert found["mcc"] == pytest.approx((3 * 5 - 1 * 1) / (4 * 4 * 6 * 6) ** 0.5)


def test_answers_of_one_class_are_worth_nothing_and_never_a_nan():
    assert scores([0, 0, 0, 1], [0, 0, 0, 0], 2) == pytest.approx(
        {"f1": 0.0, "macro_f1": 3 / 7, "balanced_accuracy": 0.5, "mcc": 0.0}
    )
    # A third class that occurs nowhere counts nowhere.
    assert scores([0, 1], [0, 1], 3) == pytest.approx(
        {"f1": 1.0, "macro_f1": 1.0, "balanced_accuracy": 1.0, "mcc": 1.0}
    )


def test_a_task_measures_them_only_where_asked():
    usual = task_named("classification")
    task = usual.judged_by(["mcc", "macro_f1"], outputs=3)
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 3), torch.randint(-1, 3, (50,))
    assert not set(OF_CLASSES) & set(compute(usual, logits, labels))
    for detail in ("watched", "scores", "full"):
        found = compute(task, logits, labels, detail=detail)
        known = labels >= 0
        predicted = logits.argmax(1)[known]
        assert found["mcc"] == pytest.approx(matthews_corrcoef(labels[known], predicted))
        assert found["macro_f1"] == pytest.approx(f1_score(labels[known], predicted, average="macro"))
        assert "f1" not in found
    # In two parts, as two processes measure.
    first, second = task.meter(), task.meter()
    first.update(logits[:20], labels[:20])
    second.update(logits[20:], labels[20:])
    first.merge(second)
    assert first.compute() == compute(task, logits, labels)


def compute(task, logits, labels, **options):
    meter = task.meter(**options)
    meter.update(logits, labels)
    return meter.compute()


def test_the_f1_of_one_class_is_refused_for_many():
    with pytest.raises(UserError, match="there are 3: choose macro-f1"):
        task_named("classification").judged_by(["f1"], outputs=3)
