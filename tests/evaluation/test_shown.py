"""The few samples that a report shows."""

import base64
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from tutelage.data.task import task_named
from tutelage.data.wrap import as_data
from tutelage.evaluation.shown import Shown, image_jpeg, is_shown, map_png, shown_samples


def opened(encoded):
    return np.asarray(Image.open(BytesIO(base64.b64decode(encoded))))


def test_the_positions_are_spread_and_known_beforehand():
    assert [position for position in range(40) if is_shown(position)] == [0, 1, 2, 4, 8, 16, 32]
    for batch in (1, 3, 7, 40):
        shown = Shown()
        for start in range(0, 40, batch):
            shown.update(torch.arange(40)[start : start + batch, None, None].expand(-1, 2, 3))
        found = shown.images()
        assert list(found) == ["4", "8", "16", "32"]
        assert (opened(found["16"]) == 16).all()


def test_maps_and_images_read_back():
    classes = torch.tensor([[0, 1, -1], [3, 2, 1]])
    assert opened(map_png(classes)).tolist() == [[0, 1, 255], [3, 2, 1]]
    assert opened(map_png(torch.zeros(1000, 500, dtype=torch.long))).shape == (250, 125)
    grey = opened(image_jpeg(torch.full((1, 8, 8), 100, dtype=torch.uint8)))
    assert np.abs(grey.astype(int) - 100).max() <= 2
    floats = opened(image_jpeg(torch.linspace(-1, 1, 64).view(1, 8, 8).expand(3, -1, -1)))
    assert floats.min() <= 5
    assert floats.max() >= 250


def test_samples_are_those_that_networks_are_measured_on():
    images = torch.arange(12)[:, None, None, None].expand(-1, 3, 8, 8).to(torch.uint8) * 20
    masks = torch.arange(12)[:, None, None].expand(-1, 8, 8) % 3
    data = as_data(list(zip(images, masks)), test=list(zip(images, masks)), task="segmentation", hold_out=0)
    found = shown_samples(data)
    assert [one["position"] for one in found] == ["1", "2", "4", "8"]
    meter = task_named("segmentation").meter()
    for batch in data.loader("test", train=False, batch_size=5).epoch(0):
        meter.update(torch.nn.functional.one_hot(batch.targets, 3).permute(0, 3, 1, 2).float(), batch.targets)
    assert {one["position"]: one["truth"] for one in found} == meter.pictures()["maps"], "a right answer is the truth"
    assert np.abs(opened(found[-1]["image"]).astype(int) - 160).max() <= 2
