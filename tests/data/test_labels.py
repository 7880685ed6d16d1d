import datasets
import numpy as np
import pytest

from tutelage.data.labels import class_indices, class_names, read_column
from tutelage.errors import Notice, UserError


def column(values, feature="int64", split="train"):
    kind = datasets.ClassLabel(names=feature) if isinstance(feature, list) else datasets.Value(feature)
    rows = datasets.Dataset.from_dict({"label": values}, features=datasets.Features({"label": kind}))
    return read_column(rows, "label", where=f"the split {split!r} of zoo")


def read(train, test, feature="int64", test_feature=None):
    columns = {"train": column(train, feature), "test": column(test, test_feature or feature, "test")}
    names = class_names(columns["train"])
    return names, {split: indices.tolist() for split, indices in class_indices(columns, names).items()}


def test_whole_numbers_from_zero_need_no_telling():
    assert read([0, 1, 2, 1], [2, 0]) == (("0", "1", "2"), {"train": [0, 1, 2, 1], "test": [2, 0]})
    assert read([0.0, 1.0], [1.0], "float64")[1] == {"train": [0, 1], "test": [1]}
    assert read([False, True], [True], "bool") == (("0", "1"), {"train": [0, 1], "test": [1]})


@pytest.mark.parametrize(
    "ids", [[7, 500, 100_001], [4006381333931, 4012345678901, 5901234123457], [1, 2, 3], [-7, 0, 3], [0, 1, 3]]
)
def test_numbers_with_gaps_become_classes_by_that_name(ids):
    with pytest.warns(Notice, match=f"3 numbers from {ids[0]} to {ids[-1]}, and not 0 to 2"):
        names, indices = read([ids[2], ids[0], ids[1], ids[0]], [ids[1], ids[2]])
    assert names == tuple(map(str, ids))
    assert indices == {"train": [2, 0, 1, 0], "test": [1, 2]}


def test_numbers_that_are_text_stand_in_the_order_of_their_text():
    with pytest.warns(Notice, match="the split 'train' of zoo are numbers.* sorted as text: 1, 10, 2"):
        assert read(["10", "2", "1"], ["2"], "string")[1] == {"train": [1, 2, 0], "test": [2]}


def test_numbers_of_the_samples_are_no_classes():
    with pytest.raises(UserError, match="3000 different values, so they look like numbers of the samples"):
        class_names(column(list(range(10, 3010))))


@pytest.mark.parametrize(
    ("values", "feature", "message"),
    [
        (["cat", "dog", None], "string", r"Row 2 of the split 'train' of zoo has no label \(1 such rows\)"),
        (["cat", " ", "dog"], "string", "Row 1 .* has no label"),
        ([0, None, 1, None], "int64", r"Row 1 .* has no label \(2 such"),
        ([0.0, 0.5, 1.0], "float32", r"label 0.5, which is a fraction and not a class.*--task regression"),
        ([[0], [0, 2]], datasets.List(datasets.Value("int64")), r"are lists: .*--task multi-label"),
        ([np.datetime64("2024-05-01", "s")] * 2, "timestamp[s]", r"are datetime64\[s\]: name a column"),
    ],
)
def test_labels_that_are_no_classes(values, feature, message):
    kind = datasets.Value(feature) if isinstance(feature, str) else feature
    rows = datasets.Dataset.from_dict({"label": values}, features=datasets.Features({"label": kind}))
    with pytest.raises(UserError, match=message):
        read_column(rows, "label", where="the split 'train' of zoo")


@pytest.mark.parametrize(
    ("train", "test", "feature", "message"),
    [
        ([0, 1, 2], [0, 3], "int64", "Row 1 of the split 'test' of zoo has the class '3'.*Training has 0, 1, 2"),
        (["ant", "bee"], ["bee", "cat"], "string", "Row 1 .*the class 'cat', which training does not have"),
        ([0, 1, -1], [0], "int64", r"Row 2 of the split 'train' .*label -1, which stands for no label"),
        ([0, 1], [0, -1], ["ant", "bee"], "Row 1 of the split 'test' .*label -1"),
    ],
)
def test_labels_that_training_does_not_have(train, test, feature, message):
    with pytest.raises(UserError, match=message):
        read(train, test, feature)


def test_a_number_out_of_range():
    columns = {"train": column([0, 1], ["ant", "bee"]), "test": column([0, 5], "int64", "test")}
    with pytest.raises(UserError, match="Row 1 of the split 'test' of zoo has the label 5, but labels go from 0 to 1"):
        class_indices(columns, ("ant", "bee"))


def test_one_class_is_refused_where_classes_count():
    for values, feature in (([3, 3], "int64"), ([0, 0], ["ant"]), (["ant"] * 2, "string")):
        with pytest.raises(UserError, match="only one class"):
            class_names(column(values, feature))
    assert class_names(column([0, 0], ["ant"]), one_will_do=True) == ("ant",)


@pytest.mark.parametrize("own", [["bee", "ant"], ["bee", "cat", "ant"], ["bee"], ["bee", "ant", "dog"]])
def test_a_split_with_another_order_is_read_by_name(own):
    with pytest.warns(Notice, match="test' of zoo are numbered differently.*This split has bee"):
        _, indices = read([0, 1, 2], [own.index("bee")], ["ant", "bee", "cat"], own)
    assert indices["test"] == [1]


def test_a_named_class_that_training_does_not_have():
    with pytest.warns(Notice), pytest.raises(UserError, match="Row 1 .*'dog', which training does not have"):
        read([0, 1], [0, 1], ["ant", "bee"], ["bee", "dog"])


@pytest.mark.parametrize(
    ("train", "feature", "test", "test_feature"),
    [
        ([0, 1], ["ant", "bee"], ["bee", "ant"], "string"),
        (["ant", "bee"], "string", [1, 0], ["ant", "bee"]),
        ([0, 1], ["ant", "bee"], [1, 0], "int64"),
        ([0, 1], "int64", ["1", "0"], "string"),
    ],
)
def test_names_and_numbers_meet(train, feature, test, test_feature):
    assert read(train, test, feature, test_feature)[1] == {"train": [0, 1], "test": [1, 0]}


def test_labels_that_nobody_published():
    assert column([-1, -1], split="test").is_hidden
    assert not column([-1, 0]).is_hidden
