import os
import shutil
import time

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data import StreamedImages, load_data
from tutelage.data.cache import cache_folder
from tutelage.errors import Notice, UserError


def test_digits():
    data = load_data("digits")
    assert [data.count(split) for split in ("train", "validation", "test")] == [1078, 120, 599]
    assert (data.name, data.num_classes, data.in_channels, data.image_size) == ("digits", 10, 1, (8, 8))
    assert str(data.augmentation) == "crop:1"
    assert data.train.images.max() == 255
    assert torch.bincount(data.test.targets).min() >= 57
    assert load_data("digits").fingerprint == data.fingerprint


def test_digits_can_be_enlarged_and_thinned_out():
    data = load_data("digits", image_size=16, subset=200, validation=0.25, augment="none")
    assert data.image_size == (16, 16)
    assert data.count("train") + data.count("validation") == 200
    assert not data.augmentation


def test_usual_augmentations(make_parquet, make_photos):
    small = make_parquet({"train": 60}, name="animals")[0]
    assert str(load_data(str(small)).augmentation) == "crop:4,flip"
    fashion = make_parquet({"train": 60}, name="fashion_mnist")[0]
    assert str(load_data(str(fashion)).augmentation) == "crop:2,flip"
    large = make_photos(size=(70, 80))
    assert str(load_data(str(large), validation=0.2).augmentation) == "resized-crop,flip"
    assert str(load_data(str(large), validation=0.2, augment="rotate:5").augmentation) == "rotate:5"


@pytest.fixture
def settled(monkeypatch, tmp_path):
    """A cache of its own, and a clock that is past the moment at which files could change unseen."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)


def test_the_second_time_comes_from_the_cache(make_parquet, monkeypatch, settled):
    folder, _ = make_parquet({"train": 30, "test": 6})
    first = load_data(str(folder))
    with monkeypatch.context() as patch:
        patch.setattr("tutelage.data.place.open_path", lambda *_, **__: pytest.fail("the source was opened"))
        again = load_data(str(folder))
    assert torch.equal(first.train.images, again.train.images)
    assert (first.fingerprint, first.mean, first.class_names) == (again.fingerprint, again.mean, again.class_names)
    os.utime(next(folder.iterdir()), (0, 0))
    assert load_data(str(folder)).fingerprint == first.fingerprint
    assert len(list(cache_folder().glob("decoded-*"))) == 1


def shades(images):
    """Return how bright each image is at its top left, beside its class."""
    return sorted(zip(images.targets.tolist(), images.images[:, 0, 0, 0].tolist()))


def test_another_folder_of_the_same_shape_is_other_data(make_photos, settled):
    one, other = make_photos(name="one/photos"), make_photos(name="other/photos")
    for shade, name in enumerate(("cat", "ant", "bee")):
        for number, file in enumerate(sorted((other / "train" / name).iterdir())):
            kept = (one / "train" / name / file.name).stat()
            pixels = np.full((10, 12, 3), 40 * shade + number, dtype=np.uint8)
            pixels[:, 6:] += 20
            Image.fromarray(pixels).save(file)
            os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    first = load_data(str(one), validation=0)
    again = load_data(str(other), validation=0)
    assert first.fingerprint != again.fingerprint
    assert shades(again.train) != shades(first.train)
    assert {(label, shade // 40) for label, shade in shades(again.train)} == {(0, 1), (1, 2), (2, 0)}


def test_swapped_class_folders_are_other_data(make_photos, settled):
    root = make_photos()
    first = load_data(str(root), validation=0)
    for name, to in (("ant", "swap"), ("bee", "ant"), ("swap", "bee")):
        (root / "train" / name).rename(root / "train" / to)
    again = load_data(str(root), validation=0)
    assert again.fingerprint != first.fingerprint
    assert {(label, shade // 40) for label, shade in shades(again.train)} == {(0, 1), (1, 0), (2, 2)}


def test_an_image_that_changed_and_kept_its_time_is_read_again(make_photos, settled):
    root = make_photos()
    file = root / "train" / "ant" / "6.ppm"
    Image.open(root / "train" / "ant" / "0.png").save(file)
    first = load_data(str(root), validation=0)
    content, kept = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (kept.st_size, kept.st_mtime_ns)
    again = load_data(str(root), validation=0)
    assert again.fingerprint != first.fingerprint


def test_a_copied_folder_comes_from_the_cache(make_photos, settled, tmp_path, monkeypatch):
    root = make_photos()
    first = load_data(str(root), validation=0)
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setattr("tutelage.data.sources._decode", lambda *_: pytest.fail("the images were decoded again"))
    assert load_data(str(tmp_path / "copy"), validation=0).fingerprint == first.fingerprint


def test_what_was_told_is_told_again(make_parquet, settled):
    folder, _ = make_parquet({"train": 60}, labels={"train": [3, 5] * 30}, features=datasets.Value("int64"))
    for _ in range(2):
        with pytest.warns(Notice, match="2 numbers from 3 to 5"):
            assert load_data(str(folder)).class_names == ("3", "5")


def test_large_data_are_streamed_and_agree_with_resident_ones(make_photos):
    root = make_photos(("train", "test"), count=20)
    resident, streamed = load_data(str(root)), load_data(str(root), resident_limit_mib=0)
    assert isinstance(streamed.train, StreamedImages)
    assert torch.equal(streamed.train.resident().images, resident.train.images)
    assert torch.equal(streamed.validation.targets, resident.validation.targets)
    np.testing.assert_allclose((streamed.mean, streamed.std), (resident.mean, resident.std), atol=1e-12)
    assert streamed.fingerprint == load_data(str(root), resident_limit_mib=0).fingerprint


def test_images_are_brought_to_the_size_asked_for(make_photos):
    data = load_data(str(make_photos()), image_size=6, validation=0.2)
    assert data.train.images.shape[1:] == (3, 6, 6)


def test_grey_photos_have_one_channel(make_photos):
    assert load_data(str(make_photos(mode="L")), validation=0.2).in_channels == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.5}, r"from 0 \(none\) to below 1"),
        ({"validation": 0.001}, "fewer than the"),
        ({"subset": 5}, "subset is 5"),
        ({"subset": 5000}, "subset is 5000"),
        ({"image_size": 0}, "image size"),
        ({"augment": "crp"}, "'crop'"),
    ],
)
def test_mistakes_say_what_to_do(options, message):
    with pytest.raises(UserError, match=message):
        load_data("digits", **options)


def test_cifar100(shared_data, tmp_path_factory, monkeypatch):
    # Kept from one test run to the next: decoding takes seconds.
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path_factory.getbasetemp().parent / "tutelage-cifar100"))
    data = load_data(str(shared_data / "cifar100"), validation=0)
    assert [data.count(split) for split in ("train", "validation", "test")] == [50_000, 0, 10_000]
    assert (data.num_classes, data.class_names[:2]) == (100, ("apple", "aquarium_fish"))
    assert data.mean == pytest.approx((0.50707516, 0.48654887, 0.44091784), abs=1e-6)
    assert data.std == pytest.approx((0.26733429, 0.25643846, 0.27615047), abs=1e-6)
    assert str(data.augmentation) == "crop:4,flip"
    coarse = load_data(f"{shared_data / 'cifar100'},label=coarse_label", resident_limit_mib=0, subset=200)
    assert coarse.num_classes == 20
    assert torch.equal(coarse.test[7][0], data.test[7][0])
