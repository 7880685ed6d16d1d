"""Which number in a mask is which class."""

import json

import numpy as np
import pytest

from tutelage.data.class_maps import ClassList, ClassMaps, parse_ignored
from tutelage.data.survey import Survey
from tutelage.errors import Notice, UserError

NOBODY = ClassList()


def surveys(train, **others):
    return {
        split: Survey(np.zeros((1, 2), dtype=np.int64), {value: f"{split}/mask-{value}.png" for value in values})
        for split, values in {"train": train, **others}.items()
    }


def read(maps, *values):
    return maps.read(np.array([values]), "a file")[0].tolist()


def test_numbers_are_classes_and_255_is_none():
    with pytest.warns(Notice, match="with the number 255 have no class"):
        maps = ClassMaps(surveys([0, 1, 2, 255]), NOBODY)
    assert maps.names == ("0", "1", "2")
    assert read(maps, 2, 255, 0) == [2, -1, 0]


def test_ignored_numbers_leave_no_gap():
    maps = ClassMaps(surveys([0, 1, 2, 3]), ClassList(ignored=(0,)))
    assert maps.names == ("1", "2", "3")
    assert read(maps, 0, 1, 3) == [-1, 0, 2]


def test_names_beside_the_data():
    maps = ClassMaps(surveys([0, 1, 2, 3]), ClassList(("sky", "road", "car", "void"), (3,)))
    assert maps.names == ("sky", "road", "car")
    assert read(maps, 3, 2) == [-1, 2]


def test_white_on_black_is_a_class():
    with pytest.warns(Notice, match="0 and 255 alone"):
        maps = ClassMaps(surveys([0, 255], test=[0]), NOBODY)
    assert read(maps, 255, 0) == [1, 0]


def test_classes_that_training_lacks_are_told():
    with pytest.warns(Notice, match="No training mask holds the class 1"):
        maps = ClassMaps(surveys([0, 2]), NOBODY)
    assert maps.names == ("0", "1", "2")
    with pytest.warns(Notice, match="holds the class car"):
        ClassMaps(surveys([0, 1]), ClassList(("sky", "road", "car")))


@pytest.mark.parametrize(
    ("found", "known"),
    [
        (surveys([0, 1], test=[0, 7]), NOBODY),
        (surveys([0, 1, 7]), ClassList(("sky", "road"))),
        (surveys([0, 1, 7]), ClassList(("sky", "road"), (255,))),
    ],
)
def test_a_number_that_is_no_class_names_its_file(found, known):
    with pytest.raises(UserError, match=r"mask-7\.png holds the number 7, which is none of the 2 classes.*ignore=7"):
        ClassMaps(found, known)


def test_a_file_that_changed_since_is_refused():
    maps = ClassMaps(surveys([0, 1]), NOBODY)
    for value in (2, 70000):
        with pytest.raises(UserError, match=f"new.png holds the number {value}"):
            maps.read(np.array([[0, value]]), "new.png")


def test_one_class_is_nothing_to_tell_apart():
    with pytest.raises(UserError, match="one class only"):
        ClassMaps(surveys([3]), ClassList(ignored=(0, 1, 2)))


def test_files_of_classes(tmp_path):
    assert ClassList.beside(tmp_path) == NOBODY
    (tmp_path / "classes.txt").write_text("sky\nroad\n\n")
    assert ClassList.beside(tmp_path).names == ("sky", "road")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["sky", "void"], "ignore_index": 1}))
    assert ClassList.beside(tmp_path) == ClassList(("sky", "void"), (1,))
    (tmp_path / "classes.json").write_text(json.dumps(["sky", "road"]))
    assert ClassList.beside(tmp_path) == ClassList(("sky", "road"))
    (tmp_path / "classes.json").write_text("{}")
    with pytest.raises(UserError, match="names no classes"):
        ClassList.beside(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        ClassList.read(tmp_path / "nowhere.txt")


def test_several_numbers_to_ignore():
    assert parse_ignored("0+255") == (0, 255)
    with pytest.raises(UserError, match="write ignore=255"):
        parse_ignored("void")
