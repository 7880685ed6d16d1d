import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.data.dataset import assemble
from tutelage.data.images import ResidentImages
from tutelage.data.task import task_named
from tutelage.errors import UserError

CLASSIFICATION = task_named("classification")


def images(n=90, classes=3):
    return ResidentImages(torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8), torch.arange(n) % classes)


def data(splits=None, **options):
    values = {
        "name": "toy",
        "class_names": ("a", "b", "c"),
        "augmentation": Augmentation.parse("flip"),
        "digest": "0",
        "validation": 0.1,
        "test": 0.2,
        **options,
    }
    return assemble(splits or {"train": images()}, task=CLASSIFICATION, **values)


def sizes(made):
    return [made.count(split) for split in ("train", "validation", "test")]


def test_what_is_missing_is_held_out():
    assert sizes(data()) == [65, 7, 18]
    assert sizes(data({"train": images(), "validation": images(9), "test": images(6)})) == [90, 9, 6]
    assert sizes(data(validation=0)) == [72, 0, 18]
    assert sizes(data(validation=0, test=None)) == [90, 0, 0]
    assert sizes(data(subset=30)) == [27, 3, 18]


def test_the_test_split_is_the_same_for_every_seed():
    splits = {"train": images()}
    first, second = data(splits, split_seed=1), data(splits, split_seed=2, subset=40)
    assert torch.equal(first.test.images, second.test.images)
    assert not torch.equal(first.validation.images[:3], second.validation.images[:3])


def test_no_image_is_in_two_splits():
    numbered = ResidentImages(torch.arange(90, dtype=torch.uint8).view(90, 1, 1, 1), torch.arange(90) % 3)
    made = data({"train": numbered})
    seen = torch.cat([getattr(made, split).images.flatten() for split in ("train", "validation", "test")])
    assert sorted(seen.tolist()) == list(range(90))


def test_the_fingerprint_tells_content_and_splits_apart():
    splits = {"train": images()}
    made = [
        data(splits),
        data(splits, digest="1"),
        data(splits, split_seed=1),
        data(splits, subset=60),
        data(splits, validation=0),
        data(splits, validation=0, test=None),
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    assert data(splits).fingerprint == made[0].fingerprint


def test_loaders_shuffle_and_augment_for_training_only():
    made = data()
    train = next(made.loader("train", batch_size=16, train=True).epoch(0))
    plain = next(made.loader("train", batch_size=16, train=False).epoch(0))
    assert "view" in train.extras
    assert not plain.extras
    assert plain.indices.tolist() == list(range(16))


def test_processes_that_train_have_equal_shares():
    loaders = [data().loader("train", batch_size=16, train=True, rank=rank, world_size=4) for rank in range(4)]
    assert all(len(batch) == 4 for loader in loaders for batch in loader.epoch(0))
    with pytest.raises(UserError, match="take a multiple"):
        data().loader("train", batch_size=15, train=True, world_size=4)


@pytest.mark.parametrize(("batch_size", "sizes"), [(44, [44]), (22, [22, 22]), (20, [20, 20, 5]), (1, [1] * 45)])
def test_training_leaves_out_a_last_batch_of_one(batch_size, sizes):
    made = data({"train": images(45), "validation": images(45), "test": images(9)})
    assert [len(batch) for batch in made.loader("train", train=True, batch_size=batch_size).epoch(0)] == sizes
    assert sum(len(batch) for batch in made.loader("train", train=False, batch_size=batch_size).epoch(0)) == 45


def test_a_single_sample_is_a_batch():
    made = data({"train": images(1, classes=1), "validation": images(1, 1), "test": images(1, 1)}, class_names=("a",))
    assert len(made.loader("train", train=True, batch_size=8)) == 1


@pytest.mark.parametrize("split", ["trian", "val"])
def test_wrong_splits_are_named(split):
    with pytest.raises(UserError, match=split):
        data().loader(split, batch_size=4, train=False)


def test_a_split_that_is_not_there():
    with pytest.raises(UserError, match="no validation split"):
        data(validation=0).loader("validation", batch_size=4, train=False)


def test_classes_that_training_does_not_have():
    with pytest.raises(UserError, match="'c', which training does not have"):
        data({"train": images(classes=2), "test": images(9)})
    with pytest.raises(UserError, match="label 3, out of the range 0 to 2"):
        data({"train": images(), "test": images(8, classes=4)})


def test_the_content_is_not_printed():
    assert "tensor" not in repr(data())
