"""Data whose test split comes from elsewhere."""

import numpy as np
import pytest
from PIL import Image

from tutelage.data.resolve import resolve_data
from tutelage.data.sources import load_data
from tutelage.errors import UserError


@pytest.fixture
def photos(tmp_path):
    """Make folders of grey images by class: `photos(name, ["a", "b"], side=8)`."""

    def make(name, classes, *, side=8, each=4, split=""):
        for number, label in enumerate(classes):
            folder = tmp_path / name / split / label
            folder.mkdir(parents=True)
            for image in range(each):
                value = np.full((side, side), 20 * number + image, dtype=np.uint8)
                value[0, 0] = 200
                Image.fromarray(value).save(folder / f"{image}.png")
        return str(tmp_path / name)

    return make


def test_the_test_split_is_the_others_and_nothing_is_held_out(photos):
    own, other = photos("own", ["a", "b"]), photos("other", ["a", "b"], each=5)
    data = resolve_data(own, test=other, validation=0)
    assert (data.count("train"), data.count("test")) == (8, 2)
    alone, foreign = (load_data(it, validation=0) for it in (own, other))
    assert data.fingerprint not in (alone.fingerprint, foreign.fingerprint)
    assert alone.count("train") == 6
    assert resolve_data(own, test=foreign, validation=0).fingerprint == data.fingerprint


def test_classes_are_matched_by_name_or_taken_in_order(photos):
    own, other = photos("own", ["b", "a"]), photos("other", ["a", "b"])
    assert resolve_data(own, test=other, validation=0).class_names == ("a", "b")
    numbered = photos("numbered", ["0", "1"])
    with pytest.warns(UserWarning, match="taken in the same order, a, b"):
        data = resolve_data(numbered, test=other, validation=0)
    assert data.class_names == ("a", "b")
    with pytest.raises(UserError, match="which training does not have"):
        resolve_data(own, test=photos("more", ["a", "c"]), validation=0)
    with pytest.raises(UserError, match="has 3 classes, and numbered has 2"):
        resolve_data(numbered, test=photos("three", ["x", "y", "z"], each=5), validation=0)


def test_images_of_another_size_are_brought_to_the_datas(photos):
    own, other = photos("own", ["a", "b"]), photos("other", ["a", "b"], side=12)
    with pytest.warns(UserWarning, match="brought to the 1 channels and 8x8 pixels of own"):
        data = resolve_data(own, test=other, validation=0)
    assert data.test.size == (8, 8)


def test_datasets_beside_names_are_still_refused(photos):
    own = photos("own", ["a", "b"])
    with pytest.raises(UserError, match="test= names data with a test split"):
        resolve_data(own, test=[1, 2])
    with pytest.raises(UserError, match="test= names data with a test split"):
        resolve_data(load_data(own, validation=0), test=own)
