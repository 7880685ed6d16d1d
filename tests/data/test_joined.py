"""Unlabelled images beside labelled ones."""

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data.images import ResidentImages
from tutelage.data.joined import Joined, join, with_unlabelled
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.testing.kinds import KINDS


def resident(count, size=(6, 8), masks=True, shade=0):
    images = torch.arange(count)[:, None, None, None].expand(-1, 3, *size).to(torch.uint8) + shade
    targets = (torch.arange(count)[:, None, None].expand(-1, *size) % 3).to(torch.int16)
    return ResidentImages(images, targets if masks else torch.arange(count) % 3)


def test_in_memory_they_are_one_tensor():
    joined = join(resident(4), resident(3, shade=100))
    assert isinstance(joined, ResidentImages)
    assert len(joined) == 7
    assert joined.targets.dtype == torch.int16
    assert (joined.targets[4:] == -1).all()
    assert torch.equal(joined.targets[:4], resident(4).targets)
    assert joined.images[4:, 0, 0, 0].tolist() == [100, 101, 102]


@pytest.mark.parametrize("indices", [[0, 5, 3, 6, 1], [4, 5, 6], [2, 0]])
@pytest.mark.parametrize("masks", [True, False])
def test_read_from_two_places_they_keep_their_order(indices, masks):
    own, more = resident(4, masks=masks), resident(3, shade=100)
    joined = Joined(own, more, np.arange(7))
    whole = join(own, more)
    images, targets = joined.read_batch(indices)
    wanted, expected = whole.read_batch(torch.tensor(indices))
    assert torch.equal(images, wanted)
    assert torch.equal(targets, expected)
    assert torch.equal(joined.targets, whole.targets)
    part = joined.select(indices)
    assert torch.equal(part.read_batch(list(range(len(indices))))[0], wanted)
    assert torch.equal(part.targets, expected)


def test_floats_and_bytes_meet():
    dataset = [(image / 255, int(number) % 3) for number, image in enumerate(resident(4).images)]
    data = as_data(dataset, hold_out=0)
    joined = with_unlabelled(data, list(resident(3, shade=100).images))
    images, targets = joined.train.read_batch([0, 5])
    assert images.dtype == torch.float32
    assert images[1, 0, 0, 0].item() == pytest.approx(101 / 255)
    assert targets.tolist() == [0, -1]
    assert joined.fingerprint != data.fingerprint
    assert joined.offers == data.offers
    assert joined.count("train") == 7


def test_they_take_the_size_and_the_channels_of_the_labelled_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        for kind, found in (("scenes/images", pixels), ("scenes/masks", pixels[..., 0] % 2), ("more/all", pixels[:5])):
            (tmp_path / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(found).save(tmp_path / kind / f"{number}.png")
    data = load_data(str(tmp_path / "scenes"), task="segmentation", validation=0)
    joined = with_unlabelled(data, str(tmp_path / "more"))
    assert joined.count("train") > data.count("train")
    assert joined.train.size == (6, 8)
    batch = next(iter(joined.loader("train", train=True, batch_size=20).epoch(0)))
    empty = (batch.targets == -1).flatten(1).all(1)
    assert empty.sum() == joined.count("train") - data.count("train")
    assert torch.isfinite(batch.loss(torch.randn(len(batch), 2, 6, 8)))


def test_what_has_no_place_for_them_refuses():
    with pytest.raises(UserError, match="these data are for regression: leave out --unlabelled"):
        with_unlabelled(KINDS["regression"].data(), [torch.rand(3, 12, 16)] * 4)
    with pytest.raises(UserError, match="leave out --unlabelled"):
        Joined(resident(4), resident(3), np.arange(7)).with_targets(None)
    loader = torch.utils.data.DataLoader([torch.rand(3, 12, 16)] * 4)
    with pytest.raises(UserError, match="pass the dataset"):
        with_unlabelled(KINDS["labels"].data(), loader)
