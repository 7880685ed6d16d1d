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
        ("crop:0", "leave crop out"),
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
