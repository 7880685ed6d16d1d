import pytest

from tutelage.data.split_names import misspelt, read_name, read_names, twin_of, with_twins
from tutelage.errors import Notice, UserError


@pytest.mark.parametrize(
    ("name", "split", "rest"),
    [
        ("train", "train", ()),
        ("Training", "train", ()),
        ("val", "validation", ()),
        ("dev", "validation", ()),
        ("evaluation", "test", ()),
        ("training_set", "train", ()),
        ("Test-Images", "test", ()),
        ("valset", "validation", ()),
        ("TestDataset", "test", ()),
        ("val2017", "validation", ()),
        ("seg_train", "train", ("seg",)),
        ("train_station", "train", ("station",)),
    ],
)
def test_names_of_splits(name, split, rest):
    found = read_name(name)
    assert (found.split, found.rest) == (split, rest)


@pytest.mark.parametrize("name", ["ant", "trains", "rain", "train_test", "contest", "latest", "trainer", "2017", ""])
def test_other_names(name):
    assert read_name(name) is None


def test_usual_names_need_no_telling():
    assert read_names(["train", "val", "Test", "ant"], "photos") == {
        "train": "train",
        "validation": "val",
        "test": "Test",
    }


def test_unusual_names_are_told():
    with pytest.warns(Notice, match="photos: seg_train is read as the train split, seg_test is read as the test"):
        assert read_names(["seg_train", "seg_test"], "photos") == {"train": "seg_train", "test": "seg_test"}
    with pytest.warns(Notice, match="^photos: eval is read as the test split.$"):
        assert read_names(["train", "eval"], "photos") == {"train": "train", "test": "eval"}


def test_words_beside_must_agree():
    assert read_names(["seg_train", "pix_test"], "photos") == {}
    assert read_names(["seg_train"], "photos") == {}
    assert read_names(["train", "seg_test"], "photos") == {"train": "train"}


@pytest.mark.parametrize("names", [("val", "valid"), ("test", "eval"), ("train", "TRAIN")])
def test_two_names_of_one_split_are_refused(names):
    with pytest.raises(UserError, match=f"photos has {names[0]} and {names[1]}, which both mean"):
        read_names(["train", *names] if "train" not in names else names, "photos")


def test_misspelt_names():
    names = ["trian", "tset", "vla", "validaton", "Traning", "ant", "train", "Test", "photos", "cat", "extra"]
    assert misspelt(names) == ["trian", "tset", "vla", "validaton", "Traning"]


def test_of_two_kinds_of_a_split_the_matched_one_is_the_split_itself():
    names = ["train", "dev_matched", "dev_mismatched", "test_mismatched"]
    assert with_twins(names) == {
        "train": "train",
        "validation": "dev_matched",
        "validation-mismatched": "dev_mismatched",
        "test_mismatched": "test_mismatched",
    }
    beside = ["validation", "validation_matched", "validation_mismatched"]
    assert with_twins(beside) == {name: name for name in beside}
    assert twin_of("train_matched") is None
