import os
import shutil
import zlib

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data.sources import load_data
from tutelage.errors import Notice, UserError


def write(file, labels, feature):
    """Write images that are as bright as their class: `ant` is dark, `bee` grey, `cat` bright."""
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    shades = {"ant": 0, "bee": 100, "cat": 200}
    images = []
    for number, label in enumerate(labels):
        pixels = np.full((6, 6, 3), shades[names[label] if names else label], np.uint8)
        # No image stands in two files.
        pixels[0, :2] = [50 + number % 50], [50 + zlib.crc32(file.name.encode()) % 50]
        images.append(Image.fromarray(pixels))
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    file.parent.mkdir(exist_ok=True)
    datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(str(file))


def named(*names):
    return datasets.ClassLabel(names=list(names))


def is_right(images):
    """Return whether every image is as bright as its class."""
    return torch.equal(images.images[:, 0, 3, 3].long(), images.targets * 100)


@pytest.mark.parametrize("order", [("cat", "ant"), ("cat", "bee", "ant"), ("bee", "cat", "ant")])
def test_a_test_file_with_another_order_is_read_by_name(tmp_path, order):
    write(tmp_path / "zoo" / "train.parquet", [0, 1, 2] * 10, named("ant", "bee", "cat"))
    write(tmp_path / "zoo" / "test.parquet", [0, 1] * 3, named(*order))
    with pytest.warns(Notice, match="read by name"):
        data = load_data(str(tmp_path / "zoo"))
    assert data.class_names == ("ant", "bee", "cat")
    for images in (data.train, data.validation, data.test):
        assert is_right(images)


def test_a_test_file_of_words(tmp_path):
    write(tmp_path / "zoo" / "train.parquet", [0, 1, 2] * 10, named("ant", "bee", "cat"))
    write(tmp_path / "zoo" / "test.parquet", ["cat", "ant"], datasets.Value("string"))
    assert is_right(load_data(str(tmp_path / "zoo")).test)


def test_files_of_one_split_must_agree(tmp_path):
    write(tmp_path / "zoo" / "train-00000-of-00002.parquet", [0, 1] * 10, named("ant", "bee"))
    write(tmp_path / "zoo" / "train-00001-of-00002.parquet", [0, 1] * 10, named("bee", "ant"))
    with pytest.raises(UserError, match="numbers its classes differently from .*train-00000"):
        load_data(str(tmp_path / "zoo"))


def test_a_misspelt_file_is_named(tmp_path):
    write(tmp_path / "zoo" / "trian.parquet", [0, 1] * 10, named("ant", "bee"))
    write(tmp_path / "zoo" / "test.parquet", [0, 1] * 10, named("ant", "bee"))
    with pytest.raises(UserError, match=r"trian\.parquet belongs to no split: trian looks like a misspelt"):
        load_data(str(tmp_path / "zoo"))


def test_files_of_no_split_are_told(tmp_path):
    for name in ("train", "test", "more"):
        write(tmp_path / "zoo" / f"{name}.parquet", [0, 1] * 10, named("ant", "bee"))
    with pytest.warns(Notice, match=r"1 files belong to no split.*more\.parquet"):
        assert load_data(str(tmp_path / "zoo")).count("test") == 20


def test_a_table_that_changed_and_kept_its_time_is_read_again(tmp_path):
    file, other = tmp_path / "zoo" / "train.parquet", tmp_path / "other.parquet"
    write(file, [0, 1] * 20, named("ant", "bee"))
    kept = file.stat()
    first = load_data(str(tmp_path / "zoo"))
    write(other, [1, 0] * 20, named("ant", "bee"))
    shutil.copyfile(other, file)
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    again = load_data(str(tmp_path / "zoo"))
    assert again.fingerprint != first.fingerprint
    assert is_right(again.train)
