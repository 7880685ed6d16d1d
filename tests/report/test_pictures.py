"""Pictures in files."""

import numpy as np
from PIL import Image

from tutelage.report.pictures import contact_sheet, distances, loss_curves


def test_a_contact_sheet_shows_every_image_sharp_and_named(tmp_path):
    red = np.zeros((3, 8, 8), dtype=np.uint8)
    red[0] = 255
    grey = np.full((1, 8, 8), 100, dtype=np.uint8)
    contact_sheet(tmp_path / "sheet.png", [("cat", [red, red]), ("", [grey])])
    with Image.open(tmp_path / "sheet.png") as opened:
        sheet = np.asarray(opened)
    # Eight pixels become 64, with a gap of two.
    assert sheet.shape[0] == 2 + 2 * 66
    assert (sheet == (255, 0, 0)).all(2).sum() == 2 * 64 * 64
    assert (sheet == 100).all(2).sum() == 64 * 64
    # The name is written before its row.
    assert (sheet[:66, :20] != 255).any()
    assert (sheet[68:, :20] == 255).all()


def test_curves_and_distances_are_pictures(tmp_path):
    curve = [{"iteration": float(step), "loss": 1 / step, "class": 0.0} for step in (1, 10, 20)]
    loss_curves(tmp_path / "losses.png", [curve, curve])
    rows = [
        {"name": "near", "divergence": 0.1, "deviation": None, "layers": {"input": 0.1, "bn1": 0.2}},
        {"name": "far", "divergence": 1.0, "deviation": 0.2, "layers": {"input": 0.3, "bn1": 2.0}},
    ]
    distances(tmp_path / "distances.png", rows, unit="nats")
    for name in ("losses.png", "distances.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 100
