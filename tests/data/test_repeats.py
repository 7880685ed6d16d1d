"""Copies of training images in other splits, and under other classes, are told of."""

import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from tutelage.data.sources import load_data
from tutelage.errors import Notice


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = generator.integers(0, 255, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def told(root):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_data(str(root), validation=0)
    return [str(one.message) for one in caught if issubclass(one.category, Notice)]


def test_test_images_that_were_learned_are_told_each_time(root):
    for number in range(3):
        shutil.copy(root / "train" / "ant" / f"{number}.png", root / "test" / "ant" / f"copy-{number}.png")
    for _ in range(2):
        [text] = told(root)
        assert text.startswith("3 of 27 test images are training images too, such as ")
        assert "copy-0.png, which is" in text
        assert "train/ant/0.png: what is measured on them was learned by heart" in text


def test_one_image_under_two_classes_is_told(root):
    shutil.copy(root / "train" / "ant" / "5.png", root / "train" / "bee" / "copy.png")
    [text] = told(root)
    assert text.startswith("1 training images have a copy under another class, such as ")
    assert "ant/5.png and " in text
    assert "bee/copy.png: remove" in text


def test_a_copy_under_the_same_class_does_little_harm(root):
    shutil.copy(root / "train" / "ant" / "5.png", root / "train" / "ant" / "copy.png")
    assert told(root) == []
