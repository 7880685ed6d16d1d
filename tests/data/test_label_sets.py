import datasets
import pytest

from tutelage.data.label_sets import read_other_targets
from tutelage.data.task import task_named
from tutelage.errors import UserError


def table(values, feature):
    return datasets.Dataset.from_dict({"label": values}, features=datasets.Features({"label": feature}))


def read(task, **splits):
    where = {name: f"the split {name!r} of zoo" for name in splits}
    names, targets = read_other_targets(splits, "label", task_named(task), where=where)
    return names, {name: values.tolist() for name, values in targets.items()}


def named(*names):
    return datasets.List(datasets.ClassLabel(names=list(names)))


def test_sets_of_classes_are_read_by_name():
    train = table([[0], [0, 2], [1], []], named("ant", "bee", "cat"))
    names, targets = read("multi-label", train=train, test=table([[0], [1]], named("cat", "ant")))
    assert names == ("ant", "bee", "cat")
    assert targets["train"] == [[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert targets["test"] == [[0, 0, 1], [1, 0, 0]]


def test_sets_of_words():
    text = datasets.List(datasets.Value("string"))
    train = table([["cat"], ["ant", "cat"]], text)
    assert read("multi-label", train=train) == (("ant", "cat"), {"train": [[0, 1], [1, 1]]})
    with pytest.raises(UserError, match="Row 0 of the split 'test' of zoo has the class 'dog'"):
        read("multi-label", train=train, test=table([["dog"]], text))


def test_numbers_to_be_predicted():
    names, targets = read("regression", train=table([0.5, 1.0], datasets.Value("float32")))
    assert (names, targets) == (("label",), {"train": [[0.5], [1.0]]})
    rows = table([[0.5, 1.0]], datasets.List(datasets.Value("float32")))
    assert read("regression", train=rows)[0] == ("label 0", "label 1")


def test_targets_that_nobody_published_are_no_split():
    rows, hidden = table([1, 2], datasets.Value("int64")), table([-1, -1], datasets.Value("int64"))
    assert list(read("regression", train=rows, test=hidden)[1]) == ["train"]
