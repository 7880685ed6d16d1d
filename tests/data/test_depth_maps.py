"""Depth maps in files: what is read, as what, and what is refused or told."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data.depth_maps import DepthMaps, parse_missing, parse_scale, read_depth
from tutelage.data.names import Spec
from tutelage.data.paired import PairedImages
from tutelage.data.sources import load_data
from tutelage.data.survey import Survey
from tutelage.errors import Notice, UserError

# Told wherever nobody names a scale; one test looks for it.
pytestmark = pytest.mark.filterwarnings("ignore:Depths are read with")
MILLIMETRES = np.array([[0, 1500, 2000], [800, 4000, 65535]], dtype=np.uint16)


def cell(path, values):
    """Save numbers as the ending says; return a cell with the file."""
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return {"bytes": None, "path": str(path)}


def maps(where=None, *medians):
    sizes = np.ones((1, 2), dtype=np.int64)
    return DepthMaps(
        {"train": Survey(sizes, {value: f"{value}.png" for value in medians or (1.0,)})}, where or Spec("x", "x")
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.png", MILLIMETRES),
        ("b.npy", MILLIMETRES),
        ("c.npy", MILLIMETRES.astype(np.int32)[None]),
        ("d.npy", (MILLIMETRES / 1000).astype(np.float32)),
        ("e.npy", (MILLIMETRES / 1000)[..., None]),
        ("f.tiff", (MILLIMETRES / 1000).astype(np.float32)),
    ],
)
def test_whole_numbers_are_millimetres_and_fractions_metres(tmp_path, name, values):
    given = cell(tmp_path / name, values)
    found = maps().read(read_depth(given, "row 0"), "row 0")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, MILLIMETRES / 1000, rtol=1e-6)
    if name.endswith(".npy"):
        held = {"bytes": (tmp_path / name).read_bytes(), "path": None}
        np.testing.assert_array_equal(read_depth(held, "row 0"), read_depth(given, "row 0"))


def test_what_is_no_depth_is_zero():
    fractions = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-3, 2.0]])
    assert maps().read(fractions, "x").tolist() == [[0, 0, 0, 0, 0, pytest.approx(1e-3), 2.0]]
    said = Spec("x", "x", ignore="65535+4000", scale="1/1000")
    assert maps(said).read(MILLIMETRES, "x")[1].tolist() == [pytest.approx(0.8), 0, 0]
    near = Spec("x", "x", ignore="0.1")
    assert maps(near).read(np.array([[0.1, 0.2]], dtype=np.float32), "x").tolist() == [[0, pytest.approx(0.2)]]


def test_8_bits_need_a_scale():
    bytes_of_depth = np.array([[0, 100]], dtype=np.uint8)
    with pytest.raises(UserError, match=r"The depth map at x\.png has 8 bits a pixel.*scale=0\.04"):
        maps().read(bytes_of_depth, "x.png")
    assert maps(Spec("x", "x", scale="0.04")).read(bytes_of_depth, "x.png").tolist() == [[0, 4]]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("colour.png", np.zeros((4, 4, 3), dtype=np.uint8), "is a RGB image, whose pixels are colours"),
        ("deep.npy", np.zeros((4, 4, 3)), r"is an array \[4, 4, 3\] of float64: it should be \[height, width\]"),
        ("words.npy", np.array([["a"]]), r"is an array \[1, 1\] of <U1"),
        ("things.npy", np.array([[{}]]), "cannot be read"),
    ],
)
def test_what_is_no_map_names_its_file(tmp_path, name, values, said):
    with pytest.raises(UserError, match=f"The depth map at .*{name}.* {said}"):
        read_depth(cell(tmp_path / name, values), "row 0")


def test_files_that_are_absent_or_damaged_name_themselves(tmp_path):
    (tmp_path / "half.npy").write_bytes(b"\x93NUMPY\x01")
    for name in ("half.npy", "none.npy"):
        with pytest.raises(UserError, match=f"{name}.* cannot be read"):
            read_depth({"bytes": None, "path": str(tmp_path / name)}, "row 0")


@pytest.mark.parametrize(("text", "metres"), [("0.001", 0.001), ("1/256", 1 / 256), ("1e-3", 0.001), ("2", 2.0)])
def test_scales(text, metres):
    assert parse_scale(text) == pytest.approx(metres)


@pytest.mark.parametrize("text", ["mm", "0", "-1", "1/0", "nan", ""])
def test_scales_that_are_none(text):
    with pytest.raises(UserError, match="is no number above zero: write how many metres"):
        parse_scale(text)


def test_missing_numbers():
    assert parse_missing("65535+0.5") == (65535.0, 0.5)
    with pytest.raises(UserError, match="ignore=far is no number"):
        parse_missing("far")


def test_units_are_told_or_doubted():
    with pytest.warns(Notice, match="median of 1.8 metres: whole numbers as millimetres, fractions as metres"):
        maps(None, 1.8)
    for median in (2000.0, 0.002):
        with pytest.warns(Notice, match="so their unit may be another one: say how many metres a 1 in the files is"):
            maps(Spec("x", "x", scale="1"), median)
    with pytest.warns(Notice, match=r"Some depth maps hold no depth at all, such as None\.png"):
        maps(Spec("x", "x", scale="1"), 1.8, None)
    with pytest.raises(UserError, match=r"No depth map of training holds a depth, such as None\.png"):
        maps(None, None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))

    def make(sizes, ending=".png", change=lambda depths, split, number: depths):
        root = tmp_path / "rooms"
        for place, split in enumerate(("train", "test")):
            for number, size in enumerate(sizes):
                image = np.random.default_rng(number + 100 * place).integers(1, 255, size, dtype=np.uint8)
                for kind in ("images", "depth"):
                    (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.stack([image] * 3, 2)).save(root / "images" / split / f"{number}.png")
                # The brighter, the farther: a hundredth of a metre for each step of grey.
                depths = change(image.astype(np.uint16) * 10, split, number)
                cell(root / "depth" / split / f"{number}{ending}", depths)
        return str(root)

    return make


@pytest.mark.parametrize("ending", [".png", ".npy"])
def test_a_folder_of_images_and_depths_lies_in_memory(folder, ending):
    data = load_data(f"{folder([(6, 8)] * 8, ending)},scale=0.001", task="depth", validation=0.25, augment="none")
    assert (data.num_classes, data.class_names, data.image_size) == (1, ("depth",), (6, 8))
    (batch,) = data.loader("test", train=False, batch_size=9).epoch(0)
    assert batch.targets.dtype == torch.float32
    torch.testing.assert_close(batch.targets, batch.inputs[:, 0] * 2.55)
    again = load_data(f"{folder([(6, 8)] * 8, ending)},scale=0.002", task="depth", validation=0.25, augment="none")
    assert again.fingerprint != data.fingerprint
    assert again.train.targets.max() == 2 * data.train.targets.max()


def test_depths_of_several_sizes_are_measured_whole_and_trained_on_a_canvas(folder):
    place = f"{folder([(6, 8), (4, 9)] * 3)},scale=0.001"
    with pytest.warns(Notice, match="2 sizes"):
        data = load_data(place, task="depth", validation=0, augment="none")
    assert isinstance(data.train, PairedImages)
    (batch,) = data.loader("train", train=True, batch_size=6, workers=0).epoch(0)
    torch.testing.assert_close(batch.targets, batch.inputs[:, 0] * 2.55)
    sizes = {tuple(batch.targets.shape[1:]) for batch in data.loader("test", train=False, batch_size=6).epoch(0)}
    assert sizes == {(6, 8), (4, 9)}


def test_resizing_all_images_changes_no_depth(folder):
    place = f"{folder([(8, 8)] * 4, change=lambda depths, *_: np.full_like(depths, 1500))},scale=0.001"
    data = load_data(place, task="depth", validation=0, augment="none", image_size=4)
    (batch,) = data.loader("train", train=True, batch_size=4, workers=0).epoch(0)
    assert batch.targets.shape == (4, 4, 4)
    assert batch.targets.unique().tolist() == [1.5]


def test_maps_that_do_not_fit_name_their_file(folder):
    strange = folder([(6, 8)] * 4, change=lambda depths, split, n: depths[:5] if (split, n) == ("test", 2) else depths)
    with pytest.raises(UserError, match=r"depth map at .*depth.test.2\.png.* is 5 high and 8 wide and its image at"):
        load_data(strange, task="depth")
    coarse = folder([(6, 8)] * 4, change=lambda depths, *_: depths.astype(np.uint8))
    with pytest.raises(UserError, match=r"depth.test.0\.png.*has 8 bits a pixel"):
        load_data(coarse, task="depth")


def test_a_table_with_a_column_of_depths(folder, tmp_path, monkeypatch):
    root = folder([(6, 8)] * 6)
    files = [f"{root}/{{}}/train/{number}.png" for number in range(6)]
    columns = {"image": "images", "depth": "depth", "mask": "depth"}
    table = datasets.Dataset.from_dict(
        {name: [file.format(kind) for file in files] for name, kind in columns.items()},
        features=datasets.Features(dict.fromkeys(columns, datasets.Image())),
    )
    (tmp_path / "table").mkdir()
    table.to_parquet(tmp_path / "table" / "train.parquet")
    data = load_data(f"{tmp_path / 'table'},scale=0.001", task="depth", validation=0, augment="none")
    (batch,) = data.loader("train", train=False, batch_size=6).epoch(0)
    torch.testing.assert_close(batch.targets, batch.inputs[:, 0] * 2.55)
