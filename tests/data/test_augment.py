import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.data.randaugment import RandAugment
from tutelage.data.transforms import Crop, Flip, ResizedCrop, Rotate
from tutelage.errors import UserError

TEXTS = [
    "none",
    "crop:4,flip",
    "flip,crop:2",
    "flip:0.25,rotate:15,cutout:8",
    "rotate:12.3456789",
    "resized-crop,flip",
    "scale,flip,colour:0.4",
    "resized-crop:0.2:1",
    "resized-crop:0.2:1:0.5:2",
    "randaugment:2,random-cutout",
    "randaugment:1,random-cutout:0.25",
]


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("text", TEXTS)
def test_text_round_trip(text):
    augmentation = Augmentation.parse(text)
    assert str(augmentation) == text
    assert Augmentation.parse(str(augmentation)) == augmentation


def test_defaults_and_spaces():
    assert Augmentation.parse("crop, flip ,rotate") == Augmentation((Crop(4), Flip(), Rotate(15)))
    assert Augmentation.parse("resized-crop:0.3") == Augmentation((ResizedCrop((0.3, 1.0)),))
    assert Augmentation.parse("randaugment") == Augmentation((RandAugment(2),))
    assert Augmentation.parse("") == Augmentation.parse("none") == Augmentation()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crp:4", "'crop'"),
        ("crop:four", "crop:four"),
        ("crop:1.5", "crop:1.5"),
        ("crop:nan", "crop:nan"),
        ("crop:4:4", "crop:4:4"),
        ("crop:0", "or leave it out"),
        ("randaugment:0", "leave it out"),
        ("randaugment:1.5", "randaugment:1.5"),
        ("random-cutout:2", "at most 1"),
        ("resized-crop:1:2:3", "resized-crop:1:2:3"),
        ("none,flip", "none"),
        ("crop,,flip", "Known"),
    ],
)
def test_unreadable_texts_say_what_is_meant(text, message):
    with pytest.raises(UserError, match=message):
        Augmentation.parse(text)


@pytest.mark.parametrize("text", TEXTS)
def test_replay_is_bit_identical_whatever_the_batch(text):
    augmentation = Augmentation.parse(text)
    images = torch.randint(0, 256, (16, 3, 12, 12), dtype=torch.uint8)
    view = augmentation.sample(chance(), 16, (12, 12))
    assert view.shape == (16, augmentation.width)
    assert view.dtype == torch.float32
    together = augmentation.apply(images, view)
    order = torch.randperm(16)
    assert torch.equal(together[order[:5]], augmentation.apply(images[order[:5]], view[order[:5]]))


def test_transforms_are_applied_in_the_order_listed():
    images = torch.arange(5, dtype=torch.uint8).expand(1, 1, 5, 5) + 1
    shift, mirror = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0]])
    crop_first = Augmentation.parse("crop:1,flip").apply(images, torch.cat([shift, mirror], 1))
    flip_first = Augmentation.parse("flip,crop:1").apply(images, torch.cat([mirror, shift], 1))
    assert crop_first[0, 0, 2].tolist() == [0, 5, 4, 3, 2]
    assert flip_first[0, 0, 2].tolist() == [4, 3, 2, 1, 0]


def test_the_empty_augmentation_is_false_and_leaves_images_alone():
    images = torch.rand(2, 1, 4, 4)
    nothing = Augmentation()
    assert not nothing
    assert nothing.apply(images, nothing.sample(chance(), 2, (4, 4))) is images


def test_parameters_of_another_augmentation_are_refused():
    view = Augmentation.parse("crop:4").sample(chance(), 2, (4, 4))
    with pytest.raises(UserError, match="the augmentation that drew them"):
        Augmentation.parse("crop:4,flip").apply(torch.rand(2, 1, 4, 4), view)


# What lies on the images moves with them.

ALL = [
    "crop:2",
    "flip",
    "rotate:40",
    "resized-crop",
    "scale:0.5:2",
    "colour:0.4",
    "cutout:3",
    "random-cutout",
    "randaugment:2",
    "crop:2,flip,rotate:15",
]


@pytest.mark.parametrize("text", ALL)
def test_maps_hold_only_values_that_they_had_or_the_one_from_outside(text):
    augmentation = Augmentation.parse(text)
    maps = torch.randint(0, 5, (8, 9, 12))
    view = augmentation.sample(torch.Generator().manual_seed(0), 8, (9, 12))
    found = augmentation.apply_to_maps(maps, view, outside=-1)
    assert found.shape == maps.shape
    assert found.dtype == maps.dtype
    assert set(found.unique().tolist()) <= {-1, 0, 1, 2, 3, 4}


@pytest.mark.parametrize("text", ["crop:2", "flip", "crop:2,flip"])
def test_where_nothing_is_blended_maps_move_exactly_as_images(text):
    augmentation = Augmentation.parse(text)
    images = torch.randint(1, 255, (8, 1, 9, 12), dtype=torch.uint8)
    view = augmentation.sample(torch.Generator().manual_seed(1), 8, (9, 12))
    moved = augmentation.apply(images, view)
    assert torch.equal(augmentation.apply_to_maps(images, view, outside=0), moved)
    assert torch.equal(augmentation.apply_to_maps(images[:, 0].long(), view, outside=0), moved[:, 0].long())


@pytest.mark.parametrize("text", ["rotate:40", "resized-crop:0.3:0.6", "randaugment:1"])
def test_a_blob_stays_under_its_pixels(text):
    # Large areas of one value: away from their edges, bilinear and nearest reading agree.
    augmentation = Augmentation.parse(text)
    images = torch.zeros(64, 1, 32, 32)
    images[:, :, 8:24, 4:20] = 1
    view = augmentation.sample(torch.Generator().manual_seed(2), 64, (32, 32))
    if text.startswith("rand"):
        # Only operations that move; those on tones change the image alone.
        view[:, 0] = view[:, 0].clamp(min=9)
        still = view[:, 1:] == view[:, 1:2]
        view = view[~still.all(1)]
        images = images[: len(view)]
    moved, maps = augmentation.apply(images, view), augmentation.apply_to_maps(images.long(), view, outside=0)
    clear = (moved < 0.01) | (moved > 0.99)
    agree = (moved.round().long() == maps)[clear].float().mean()
    assert agree > 0.995


def test_maps_under_another_augmentation_are_refused():
    with pytest.raises(UserError, match="use the augmentation that drew them"):
        Augmentation.parse("flip").apply_to_maps(torch.zeros(2, 4, 4), torch.zeros(2, 2), outside=0)
