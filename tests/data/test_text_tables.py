import json

import pytest

from tutelage.data.sources import load_data
from tutelage.data.texts import RawTexts
from tutelage.errors import Notice, UserError


def test_json_lines_are_texts_with_classes_by_name(reviews):
    data = load_data(str(reviews()))
    assert data.class_names == ("bad", "good")
    assert isinstance(data.train, RawTexts)
    assert data.train.columns[0][2] == "the film the film a bad"
    assert data.train.targets.tolist()[:3] == [0, 1, 0]
    assert {name: len(samples) for name, samples in data.splits.items()} == dict.fromkeys(data.splits, 24)
    assert "images" not in data.offers


@pytest.mark.parametrize(("name", "mark"), [("train.csv", ","), ("train.tsv", "\t")])
def test_one_file_of_csv(tmp_path, name, mark):
    rows = [f"{'good' if number % 2 else 'bad'} {number}{mark}{number % 2}" for number in range(40)]
    (tmp_path / name).write_text("\n".join([f"text{mark}label", *rows]))
    data = load_data(str(tmp_path / name))
    assert data.class_names == ("0", "1")
    assert data.count("train") + data.count("validation") + data.count("test") == 40


def test_two_columns_are_a_pair(reviews):
    folder = reviews(other=lambda number: f"other {number}")
    assert load_data(str(folder)).train.columns[1][3] == "other 3"
    assert len(load_data(f"{folder},text=other").train.columns) == 1
    assert load_data(f"{folder},text=other+sentence,tokens=5").train.limit == 5


def test_other_content_is_other_data(reviews):
    folder = reviews()
    before = load_data(str(folder)).fingerprint
    assert load_data(str(folder)).fingerprint == before
    rows = (folder / "train.jsonl").read_text().splitlines()
    rows[0] = json.dumps({"sentence": "something else", "label": "bad"})
    (folder / "train.jsonl").write_text("\n".join(rows))
    assert load_data(str(folder)).fingerprint != before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (",text=sentense", "Did you mean 'sentence'"),
        (",text=number", "holds no text"),
        (",text=sentence+sentence", "one text, or two different ones"),
        (",label=labl", "Did you mean 'label'"),
        (",tokens=none", "whole number above zero"),
        (",tokens=", "write tokens=VALUE"),
        (",image=sentence,text=sentence", "name one kind of input"),
    ],
)
def test_what_is_wrong_is_said(reviews, options, words):
    folder = reviews(number=lambda number: number)
    with pytest.raises(UserError, match=words):
        load_data(f"{folder}{options}")


def test_three_columns_are_not_clear(reviews):
    folder = reviews(one=str, two=str)
    with pytest.raises(UserError, match="name the one or two to read"):
        load_data(str(folder))


def test_options_of_images_are_refused_for_texts(reviews):
    folder = str(reviews())
    with pytest.raises(UserError, match="no size and no augmentation"):
        load_data(folder, augment="flip")
    with pytest.raises(UserError, match="no size and no augmentation"):
        load_data(folder, image_size=8)
    with pytest.raises(UserError, match="digits have no columns"):
        load_data("digits,tokens=3")


def test_empty_texts_are_told(reviews):
    folder = reviews()
    rows = (folder / "train.jsonl").read_text().splitlines()
    rows[:2] = [json.dumps({"sentence": text, "label": "bad"}) for text in ("", None)]
    (folder / "train.jsonl").write_text("\n".join(rows))
    with pytest.warns(Notice, match="2 texts of the split 'train'"):
        data = load_data(str(folder))
    assert data.train.columns[0][:2] == ["", ""]


def test_a_class_that_training_lacks_is_refused(reviews):
    folder = reviews()
    with (folder / "test.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"sentence": "a", "label": "odd"}))
    with pytest.raises(UserError, match="class 'odd', which training does not have"):
        load_data(str(folder))


def test_glue_folders(shared_data):
    pairs = load_data(str(shared_data / "glue" / "rte"))
    assert (len(pairs.train.columns), pairs.class_names) == (2, ("entailment", "not_entailment"))
    # The labels of its test split are hidden, so a fifth of training is held out.
    assert (pairs.count("test"), pairs.count("validation")) == (498, 277)
    scores = load_data(str(shared_data / "glue" / "stsb"), task="regression", metric="mae")
    assert (scores.num_classes, scores.train.targets.shape) == (1, (5749, 1))
