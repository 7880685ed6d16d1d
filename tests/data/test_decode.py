import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tutelage.data.decode import decode_all, probe, read_image, to_pixels
from tutelage.errors import UserError


def encoded(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def test_lossless_images_come_back_as_they_were():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = read_image(encoded(Image.fromarray(pixels)), "row 0")
    assert (to_pixels(image, channels=3, size=(7, 9)) == pixels.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_grey_or_colour(mode, channels):
    pixels = to_pixels(Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode), channels=channels, size=(4, 5))
    assert pixels.shape == (channels, 4, 5)
    assert pixels.dtype == np.uint8
    assert (pixels == 255).all()


def test_transparent_palettes_do_not_warn():
    image = Image.new("P", (4, 4))
    cell = encoded(image, transparency=bytes([0, 255]))
    assert to_pixels(read_image(cell, "row 0"), channels=3, size=(4, 4)).shape == (3, 4, 4)


def test_the_shorter_side_is_resized_and_the_centre_cut_out():
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    assert (to_pixels(Image.fromarray(wide), channels=3, size=(5, 5))[:, :, 1:-1] == 200).all()
    assert to_pixels(Image.fromarray(wide), channels=3, size=(20, 7)).shape == (3, 20, 7)


def test_orientation_is_followed():
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6
    assert read_image(encoded(image, "JPEG", exif=exif), "row 0").size == (4, 8)


def test_unreadable_images_are_named(tmp_path):
    with pytest.raises(UserError, match="row 5"):
        read_image({"bytes": b"no image", "path": None}, "row 5")
    with pytest.raises(UserError, match="row 5"):
        read_image(None, "row 5")
    damaged = tmp_path / "cat.png"
    damaged.write_bytes(encoded(Image.effect_noise((64, 64), 50))["bytes"][:500])
    with pytest.raises(UserError, match=r"cat\.png"):
        read_image({"bytes": None, "path": str(damaged)}, "row 5")
    with pytest.raises(UserError, match=r"gone\.png"):
        read_image({"bytes": None, "path": str(tmp_path / "gone.png")}, "row 5")


def test_sixteen_bits_are_refused():
    image = Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16))
    with pytest.raises(UserError, match="8 bits"):
        read_image(encoded(image), "row 0")


@pytest.mark.parametrize(
    ("sizes", "modes", "asked", "expected"),
    [
        ([(9, 7)], ["L"], None, (1, (7, 9))),
        ([(9, 7)], ["L", "RGB"], None, (3, (7, 9))),
        ([(9, 7), (7, 9)], ["RGB"], None, (3, (224, 224))),
        ([(300, 400)], ["RGB"], None, (3, (224, 224))),
        ([(300, 400)], ["RGB"], 64, (3, (64, 64))),
    ],
)
def test_size_and_channels_are_probed(sizes, modes, asked, expected):
    read = lambda row: Image.new(modes[row % len(modes)], sizes[row % len(sizes)])  # noqa: E731
    assert probe(read, 20, asked) == expected


def test_all_images_are_decoded_in_their_places():
    def read(rows):
        return (np.full((1, 2, 2), row % 256, dtype=np.uint8) for row in rows)

    pixels = decode_all(read, (700, 1, 2, 2), "images")
    assert (pixels == (np.arange(700) % 256).astype(np.uint8)[:, None, None, None]).all()


def test_decoding_in_threads_leaves_warnings_as_they_were(monkeypatch):
    """Filters of warnings are shared by all threads: two that restored them crosswise hid all later notices."""
    cell = encoded(Image.new("RGB", (4, 4), "red"))
    together = threading.Barrier(2, timeout=30)

    def turned(image):
        # Both threads are here before either leaves.
        together.wait()
        return image

    monkeypatch.setattr("tutelage.data.decode.ImageOps.exif_transpose", turned)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            list(pool.map(lambda _: read_image(cell, "row 0"), range(2)))
            assert warnings.filters == before
