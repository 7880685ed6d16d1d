"""What is asked about at a place: which files, which split, which columns."""

import json

import numpy as np
import pytest
from PIL import Image

from tutelage.data.asked import Wanted, load_asked
from tutelage.data.task import task_named
from tutelage.errors import Notice, UserError

TASK = task_named("classification")


def photos(root, *names, mode="RGB"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)).convert(mode).save(
            root / name
        )
    return str(root)


def test_of_split_folders_the_test_split_is_answered(tmp_path):
    place = photos(tmp_path, "train/cat/1.png", "test/1.png", "test/2.png")
    assert list(load_asked(place, TASK).names) == ["1.png", "2.png"]
    assert list(load_asked(place, TASK, split="train").names) == ["cat/1.png"]
    with pytest.raises(UserError, match="no split of .* named 'tset'. Did you mean 'test'"):
        load_asked(place, TASK, split="tset")
    place = photos(tmp_path / "no", "train/1.png", "val/1.png")
    with pytest.raises(UserError, match="has the splits train, validation: name one with --split"):
        load_asked(place, TASK)


def test_one_image_and_no_image(tmp_path):
    photos(tmp_path, "cat.png")
    assert list(load_asked(str(tmp_path / "cat.png"), TASK).names) == ["cat.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        load_asked(str(tmp_path / "none"), TASK)


def test_images_come_as_the_network_wants_them(tmp_path):
    place = photos(tmp_path, "1.png", "2.png")
    with pytest.warns(Notice, match="turned grey"):
        grey = load_asked(place, TASK, wanted=Wanted(channels=1, size=(4, 5))).samples
    assert (grey.channels, grey.size) == (1, (4, 5))
    assert load_asked(place, TASK, wanted=Wanted(channels=3, size=(4, 5), longest=7)).samples.size == (7, 7)


def test_folders_of_masks_are_no_images_to_answer(tmp_path):
    place = photos(tmp_path, "images/1.png", "masks/1.png")
    assert list(load_asked(place, task_named("segmentation")).names) == ["images/1.png"]


def test_a_table_without_labels(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"one": "a", "two": "b", "number": row}) for row in range(3)))
    with pytest.warns(Notice, match="read from one and two"):
        asked = load_asked(str(file), TASK)
    assert (asked.column, list(asked.names)) == ("index", [0, 1, 2])
    assert asked.samples.columns == (["a"] * 3, ["b"] * 3)
    assert len(load_asked(f"{file},text=two", TASK).samples.columns) == 1


def test_the_label_column_is_no_text(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text("text,kind,label\na film,x,good\n")
    with pytest.warns(Notice, match="read from text and kind"):
        load_asked(str(file), TASK)
    with pytest.warns(Notice, match="read from text and label"):
        load_asked(f"{file},label=kind", TASK)


def test_a_table_of_numbers(tmp_path):
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no image column, only a, b"):
        load_asked(str(tmp_path / "numbers.csv"), TASK)


def test_digits():
    asked = load_asked("digits", TASK)
    assert len(asked.names) == 599
    assert asked.samples.targets is None
