import pytest
import torch
from PIL import Image, ImageDraw

from tutelage.data.sources import load_data
from tutelage.errors import Notice


def icons(root, ink=(0, 0, 0), count=8):
    """Shapes that are drawn in transparency alone: every pixel has the same colour."""
    for name in ("disc", "square"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            icon = Image.new("RGBA", (16, 16), (*ink, 0))
            draw = ImageDraw.Draw(icon)
            (draw.ellipse if name == "disc" else draw.rectangle)((3, 3, 10 + number % 4, 12), fill=(*ink, 255))
            icon.save(root / name / f"{number}.png")
    return root


def test_shapes_drawn_in_transparency_are_seen(tmp_path):
    data = load_data(str(icons(tmp_path / "icons")), validation=0)
    assert data.train.images.amin() == 0
    assert data.train.images.amax() == 255
    assert (data.train.images[:, :, 0, 0] == 255).all()


@pytest.mark.parametrize("limit", [2048, 0])
def test_images_of_one_colour_are_told_each_time(tmp_path, limit):
    root = icons(tmp_path / "icons", ink=(255, 255, 255))
    Image.new("RGB", (16, 16), "red").save(root / "disc" / "0.png")
    for _ in range(2):
        with pytest.warns(Notice, match=r"16 of 16 images.* are all one colour, such as .*icons/disc/0\.png"):
            load_data(str(root), validation=0, resident_limit_mib=limit)


def test_grey_images_too(tmp_path):
    root = icons(tmp_path / "icons")
    for file in root.glob("*/*.png"):
        Image.open(file).convert("LA").save(file)
    data = load_data(str(root), validation=0)
    assert data.in_channels == 1
    assert torch.equal(data.train.images.unique(), torch.tensor([0, 255], dtype=torch.uint8))
