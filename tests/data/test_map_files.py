"""Masks of every kind as whole numbers, or an error that names the file."""

import numpy as np
import pytest
from PIL import Image

from tutelage.data.map_files import read_map, size_of
from tutelage.errors import UserError

NUMBERS = np.array([[0, 1, 2], [255, 1, 7]], dtype=np.uint8)


def cell(tmp_path, image, name="mask.png", **options):
    image.save(tmp_path / name, **options)
    return {"bytes": None, "path": str(tmp_path / name)}


def palette(numbers):
    image = Image.fromarray(numbers)
    found = Image.frombytes("P", image.size, image.tobytes())
    found.putpalette([value % 256 for value in range(0, 768 * 7, 7)])
    return found


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(NUMBERS),
        palette(NUMBERS),
        Image.fromarray(np.stack([NUMBERS] * 3, 2)),
        Image.fromarray(np.stack([NUMBERS, np.full_like(NUMBERS, 255)], 2)),
        Image.fromarray(np.stack([NUMBERS] * 3 + [np.full_like(NUMBERS, 255)], 2)),
        Image.fromarray(NUMBERS.astype(np.uint16)),
    ],
    ids=["grey", "palette", "equal colours", "grey and alpha", "equal colours and alpha", "16 bits"],
)
def test_the_numbers_of_a_mask_are_read_as_they_stand(tmp_path, image):
    found = read_map(cell(tmp_path, image), "row 0")
    assert found.tolist() == NUMBERS.tolist()


def test_numbers_of_16_bits_are_not_cut():
    wide = np.array([[0, 300], [65535, 1]], dtype=np.uint16)
    from io import BytesIO

    buffer = BytesIO()
    Image.fromarray(wide).save(buffer, "PNG")
    assert read_map({"bytes": buffer.getvalue(), "path": None}, "row 0").tolist() == wide.tolist()


def test_masks_of_black_and_white_are_zero_and_one(tmp_path):
    assert (
        read_map(cell(tmp_path, Image.fromarray(NUMBERS > 1)), "row 0").tolist() == (NUMBERS > 1).astype(int).tolist()
    )


def test_colours_are_no_class_numbers(tmp_path):
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (2, 3, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"mask\.png \(row 4\) is a RGB image whose pixels are colours"):
        read_map(cell(tmp_path, colours), "row 4")


def test_what_is_no_image_names_its_file(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"mask\.png"):
        read_map({"bytes": None, "path": str(tmp_path / "mask.png")}, "row 0")


def test_the_size_is_that_of_the_image_upright(tmp_path):
    image = Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8))
    assert size_of(cell(tmp_path, image), "row 0") == (4, 6)
    turned = Image.Exif()
    turned[274] = 6
    assert size_of(cell(tmp_path, image, "turned.jpg", exif=turned), "row 0") == (6, 4)
