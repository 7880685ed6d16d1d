"""Answers in files: written whole, or not at all."""

import numpy as np
import pytest
from PIL import Image

from tutelage.errors import UserError
from tutelage.evaluation.written import check_target, joined, picture_names, write_maps, write_table


def test_columns_of_batches_are_joined_in_the_order_of_the_samples():
    parts = [([3, 0], {"a": np.array([30, 0])}), ([2, 1], {"a": np.array([20, 10])})]
    assert joined(parts)["a"].tolist() == [0, 10, 20, 30]
    assert joined([]) == {}


def test_numbers_are_written_so_that_they_can_be_read_again(tmp_path):
    numbers = np.array([1 / 3, 1e-9, 1.0], dtype=np.float32)
    names = np.array(["plain", 'quoted "word", comma', "übung"], dtype=object)
    write_table(tmp_path / "a.csv", {"file": names, "p": numbers})
    content = np.genfromtxt(tmp_path / "a.csv", delimiter="\n", dtype=str, encoding="utf-8", comments=None)
    assert content[2] == '"quoted ""word"", comma",1e-09'.replace("1e-09", f"{float(numbers[1]):.8g}")
    assert np.float32(content[1].split(",")[1]) == numbers[0]


def test_several_numbers_have_no_single_prediction(tmp_path):
    with pytest.raises(UserError, match=r"there are several: write .csv"):
        write_table(tmp_path / "a.tsv", {"index": np.arange(2), "prediction of a": np.zeros(2)})
    assert not list(tmp_path.iterdir())


def test_pictures_have_names_of_their_own():
    assert picture_names(["a.jpg", "b/a.jpeg"]) == ["a.png", "b/a.png"]
    assert picture_names(["a.jpg", "a.png"]) == ["a.jpg.png", "a.png.png"]
    assert picture_names(range(11))[:2] == ["00.png", "01.png"]


def test_a_folder_that_is_broken_off_leaves_what_was_there(tmp_path):
    out = tmp_path / "masks"
    mask = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    write_maps(out, [("a.png", mask)], classes=("sky", "road", "car"))
    assert np.asarray(Image.open(out / "a.png")).tolist() == mask.tolist()
    assert len({tuple(colour) for colour in np.asarray(Image.open(out / "a.png").convert("RGB")).reshape(-1, 3)}) == 3

    def broken():
        yield "b.png", mask
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_maps(out, broken(), classes=("sky",))
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a.png", "classes.txt", "masks"]


def test_a_folder_of_other_things_is_never_replaced(tmp_path):
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(UserError, match=r"holds other things than answers \(classes.txt is missing\)"):
        check_target(tmp_path, is_table=False, overwrite=True)
    with pytest.raises(UserError, match="is a folder, and the answers are a table"):
        check_target(tmp_path.rename(tmp_path.with_suffix(".csv")), is_table=True, overwrite=True)
    (file := tmp_path.with_suffix(".csv") / "photo.jpg").touch()
    with pytest.raises(UserError, match="is a file, and the answers are pictures"):
        check_target(file, is_table=False, overwrite=False)


def test_maps_of_16_bits_are_written_as_they_are(tmp_path):
    mask = np.array([[0, 65535], [300, 1]], dtype=np.uint16)
    write_maps(tmp_path / "depths", [("a.png", mask)], classes=("depth",))
    assert np.asarray(Image.open(tmp_path / "depths" / "a.png")).tolist() == mask.tolist()
