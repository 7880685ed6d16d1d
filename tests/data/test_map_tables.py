"""Tables of images and masks, and what a user says beside them."""

import datasets
import numpy as np
import pytest
from PIL import Image

from tutelage.data.class_maps import known_classes
from tutelage.data.names import parse_spec
from tutelage.data.sources import load_data
from tutelage.errors import UserError


@pytest.fixture
def parquet(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))

    def make(columns=("image", "annotation"), count=10):
        chance = np.random.default_rng(0)
        folder = tmp_path / "table"
        folder.mkdir()
        for split in ("train", "test"):
            masks = chance.integers(0, 3, (count, 6, 8), dtype=np.uint8)
            cells = {columns[0]: [Image.fromarray(np.stack([mask * 80] * 3, 2)) for mask in masks]}
            cells |= {name: [Image.fromarray(mask) for mask in masks] for name in columns[1:]}
            features = dict.fromkeys(columns, datasets.Image()) | {"name": datasets.Value("string")}
            table = datasets.Dataset.from_dict(
                cells | {"name": [str(number) for number in range(count)]}, features=datasets.Features(features)
            )
            table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
        return folder

    return make


@pytest.mark.parametrize("columns", [("image", "annotation"), ("photo", "mask"), ("pixel_values", "label")])
def test_columns_are_found_by_their_usual_names(parquet, columns):
    data = load_data(str(parquet(columns)), task="segmentation", validation=0.2, augment="none")
    assert data.class_names == ("0", "1", "2")
    batch = next(iter(data.loader("test", train=False, batch_size=10).epoch(0)))
    assert ((batch.inputs[:, 0] * 255).round().long() // 80 == batch.targets).all()


def test_unclear_columns_are_to_be_named(parquet):
    folder = parquet(("image", "first", "second"))
    with pytest.raises(UserError, match="of which image, first, second hold images: name that of the images"):
        load_data(str(folder), task="segmentation")
    assert load_data(f"{folder},image=image,label=second", task="segmentation", validation=0).num_classes == 3
    with pytest.raises(UserError, match="no label column named 'third'"):
        load_data(f"{folder},label=third", task="segmentation")
    with pytest.raises(UserError, match="no image column named 'name'"):
        load_data(f"{folder},image=name,label=second", task="segmentation")


def test_classes_beside_and_named(parquet, tmp_path):
    folder = parquet()
    (folder / "classes.txt").write_text("sky\nroad\ncar\n")
    assert load_data(str(folder), task="segmentation", validation=0).class_names == ("sky", "road", "car")
    other = tmp_path / "names.json"
    other.write_text('{"classes": ["void", "street", "bus"], "ignore_index": 0}')
    assert load_data(f"{folder},classes={other}", task="segmentation", validation=0).class_names == ("street", "bus")
    assert known_classes(parse_spec(f"{folder},ignore=1+2")).ignored == (1, 2)


def test_options_of_masks_need_masks(parquet):
    folder = parquet()
    with pytest.raises(UserError, match="ignore= and classes= behind the data are for masks, and the task is classif"):
        load_data(f"{folder},ignore=0,classes=x.txt")
    with pytest.raises(UserError, match="has no value: write ignore=VALUE"):
        load_data(f"{folder},ignore=", task="segmentation")
