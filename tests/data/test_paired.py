"""Images with masks: on a canvas for training, whole for measuring."""

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data.images import ResidentImages
from tutelage.data.paired import Frame, PairedImages
from tutelage.data.sources import load_data
from tutelage.errors import Notice, UserError

SPLITS = (("train", True), ("test", False))


def scene(size, seed):
    """A mask of three classes, and an image whose brightness is the class."""
    mask = np.random.default_rng(seed).integers(0, 3, size).astype(np.uint8)
    return np.stack([mask * 80 + 20] * 3, 2), mask


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))

    def make(sizes, splits=("train", "test"), change=lambda mask, split, number: mask):
        root = tmp_path / "scenes"
        for place, split in enumerate(splits):
            for number, size in enumerate(sizes):
                image, mask = scene(size, number)
                # No image stands in two splits.
                image[0, 0, 0] += place
                for kind, pixels in (("images", image), ("masks", change(mask, split, number))):
                    (root / kind / split).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(root / kind / split / f"{number:02}.png")
        return str(root)

    return make


def batches(data, split, **options):
    return list(data.loader(split, workers=0, **options).epoch(0))


def test_images_of_one_size_lie_in_memory_with_narrow_masks(folder):
    data = load_data(folder([(6, 8)] * 12), task="segmentation", validation=0.25, augment="none")
    assert isinstance(data.train, ResidentImages)
    assert data.train.targets.dtype == torch.int16
    assert data.class_names == ("0", "1", "2")
    assert data.image_size == (6, 8)
    assert (data.count("train"), data.count("validation"), data.count("test")) == (9, 3, 12)
    (batch,) = batches(data, "test", train=False, batch_size=20)
    assert batch.targets.dtype == torch.int64
    # The brightness tells the class, so that image and mask are seen to belong together.
    assert torch.equal((batch.inputs[:, 0] * 255 - 20).round().long() // 80, batch.targets)


def test_images_of_different_sizes_are_trained_on_a_canvas_and_measured_whole(folder):
    sizes = [(6, 8), (4, 9), (6, 8), (5, 5)] * 3
    with pytest.warns(Notice, match="3 sizes: in training each lies on a canvas of 9x6 pixels"):
        data = load_data(folder(sizes), task="segmentation", validation=0, augment="none")
    assert isinstance(data.train, PairedImages)
    assert data.image_size == (6, 9)
    (batch,) = batches(data, "train", train=True, batch_size=12)
    for image, mask, index in zip(batch.inputs, batch.targets, batch.indices, strict=True):
        height, width = sizes[index]
        assert torch.equal((image[0, :height, :width] * 255 - 20).round().long() // 80, mask[:height, :width])
        assert (mask[height:] == -1).all()
        assert (mask[:, width:] == -1).all()
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
    measured = batches(data, "test", train=False, batch_size=4)
    assert sorted({tuple(batch.targets.shape[1:]) for batch in measured}) == sorted(set(sizes))
    assert sum(len(batch) for batch in measured) == 12
    for batch in measured:
        assert torch.equal((batch.inputs[:, 0] * 255 - 20).round().long() // 80, batch.targets)
        assert all(sizes[index] == tuple(batch.targets.shape[1:]) for index in batch.indices.tolist())


def test_smaller_images_are_still_measured_by_their_whole_masks(folder):
    data = load_data(folder([(12, 16)] * 6), task="segmentation", validation=0, image_size=8, augment="none")
    assert data.image_size == (6, 8)
    (train,) = batches(data, "train", train=True, batch_size=6)
    assert train.inputs.shape[2:] == train.targets.shape[1:] == (6, 8)
    (whole,) = batches(data, "test", train=False, batch_size=6)
    assert whole.inputs.shape[2:] == (6, 8)
    assert whole.targets.shape[1:] == (12, 16)
    _, mask = scene((12, 16), int(train.indices[0]))
    assert torch.equal(train.targets[0], torch.from_numpy(mask[1::2, 1::2].astype(np.int64)))


def test_16_bits_and_palettes_are_read_and_what_is_no_class_names_its_file(folder):
    wide = folder([(4, 5)] * 8, change=lambda mask, split, number: mask.astype(np.uint16) * 300)
    with pytest.warns(Notice, match="No training mask holds"):
        data = load_data(wide, task="segmentation", validation=0)
    assert data.num_classes == 601
    strange = folder([(4, 5)] * 8, change=lambda mask, split, number: mask + 9 * (split == "test" and number == 3))
    with pytest.raises(UserError, match=r"masks.test.03\.png .*holds the number 9"):
        load_data(strange, task="segmentation", validation=0)


def test_options_of_masks_are_for_masks(folder):
    place = folder([(4, 5)] * 4)
    assert load_data(f"{place},ignore=0", task="segmentation", validation=0).class_names == ("1", "2")
    with pytest.raises(UserError, match="is for masks|are for masks"):
        load_data(f"{place},ignore=0")


def test_without_masks_and_other_masks(folder):
    with pytest.warns(Notice, match="2 sizes"):
        data = load_data(folder([(6, 8), (4, 9)] * 4), task="segmentation", validation=0)
    bare = data.train.with_targets(None)
    assert not bare.has_targets
    assert data.train.has_targets
    assert bare.read_batch([0, 1])[1] is None
    with pytest.raises(TypeError, match="come from files"):
        data.train.with_targets(torch.zeros(8))


@pytest.mark.filterwarnings("ignore:The training images have 2 sizes")
def test_what_fits_into_memory_is_decoded_once(folder, monkeypatch):
    place, read = folder([(6, 8), (4, 9)] * 4), []
    monkeypatch.setattr(
        PairedImages, "_read", lambda self, index, old=PairedImages._read: read.append(1) or old(self, index)
    )
    data = load_data(place, task="segmentation", validation=0, augment="none")
    read.clear()
    first, again = (
        [batch for split, train in SPLITS for batch in batches(data, split, train=train, batch_size=4)]
        for _ in range(2)
    )
    assert len(read) == 16, "each image once for training, or for measuring"
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
    assert not data.train.is_decoded, "no worker processes"
    streamed = load_data(place, task="segmentation", validation=0, augment="none", resident_limit_mib=0)
    read.clear()
    for _ in range(2):
        batches(streamed, "test", train=False, batch_size=4)
    assert len(read) == 16
    assert streamed.train.is_decoded
    assert streamed.fingerprint == data.fingerprint


@pytest.mark.filterwarnings("ignore:The training images have 2 sizes")
def test_statistics_leave_out_what_lies_beside_images_on_the_canvas(folder):
    data = load_data(folder([(6, 8), (4, 9)] * 4), task="segmentation", validation=0, augment="none")
    pixels = np.concatenate([scene(size, n)[0][..., 0].ravel() for n, size in enumerate([(6, 8), (4, 9)] * 4)]) / 255
    assert data.mean == pytest.approx((pixels.mean(),) * 3)
    assert data.std == pytest.approx((pixels.std(),) * 3)


def test_frames():
    sizes = np.array([[10, 20], [30, 20]])
    assert Frame.of(sizes, None) == Frame((30, 20))
    assert Frame.of(sizes, 10) == Frame((10, 10), 10)
    assert Frame((10, 10), 10).seen((30, 20)) == (10, 7)
