"""A look at all maps of a split."""

import datasets
import numpy as np
import pytest
from PIL import Image

from tutelage.data.class_maps import MASKS
from tutelage.data.names import Spec
from tutelage.data.survey import survey
from tutelage.errors import UserError


def rows(tmp_path, masks, images=None):
    cells = {"image": [], "mask": []}
    for number, mask in enumerate(masks):
        image = np.zeros((*(mask.shape if images is None else images[number]), 3), dtype=np.uint8)
        for kind, pixels in (("image", image), ("mask", mask)):
            path = tmp_path / f"{kind}-{number}.png"
            Image.fromarray(pixels).save(path)
            cells[kind].append({"bytes": None, "path": str(path)})
    kinds = {name: datasets.Image(decode=False) for name in cells}
    return datasets.Dataset.from_dict(cells, features=datasets.Features(kinds))


def test_sizes_and_numbers_with_the_first_file_of_each(tmp_path):
    masks = [np.array([[0, 1]], dtype=np.uint8), np.array([[1, 9], [0, 0], [0, 0]], dtype=np.uint8)]
    found = survey(rows(tmp_path, masks), Spec("x", "x"), MASKS, image="image", label="mask", split="train")
    assert found.sizes.tolist() == [[1, 2], [3, 2]]
    assert set(found.values) == {0, 1, 9}
    assert "mask-0.png" in found.values[1]
    assert "mask-1.png" in found.values[9]


def test_a_mask_of_another_size_than_its_image_is_refused_by_name(tmp_path):
    masks = [np.zeros((4, 4), dtype=np.uint8), np.zeros((4, 6), dtype=np.uint8)]
    with pytest.raises(UserError, match=r"mask-1\.png.* is 4 high and 6 wide and its image at .*image-1\.png.* 4 high"):
        survey(
            rows(tmp_path, masks, [(4, 4), (4, 5)]), Spec("x", "x"), MASKS, image="image", label="mask", split="train"
        )
