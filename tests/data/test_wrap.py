import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tutelage.data import ResidentImages, as_data
from tutelage.errors import UserError


def users(n=60, classes=3, dtype=torch.float32):
    images = torch.randint(0, 256, (n, 3, 4, 5), dtype=torch.uint8)
    return TensorDataset(images if dtype == torch.uint8 else images.to(dtype) / 255, torch.arange(n) % classes)


def test_a_dataset_has_its_validation_held_out():
    data = as_data(users(), test=users(9))
    assert [data.count(split) for split in ("train", "validation", "test")] == [54, 6, 9]
    assert torch.bincount(data.validation.targets).tolist() == [2, 2, 2]
    assert (data.num_classes, data.class_names) == (3, ("0", "1", "2"))
    assert (data.in_channels, data.image_size) == (3, (4, 5))
    assert (data.mean, data.std) == ((0.0,) * 3, (1.0,) * 3)
    batch = next(data.loader("train", batch_size=8, train=True).epoch(0))
    assert batch.inputs.shape == (8, 3, 4, 5)
    assert not batch.extras


def test_given_splits_are_used():
    data = as_data(users(), users(12), users(9), class_names=("a", "b", "c"), name="mine")
    assert [data.count(split) for split in ("train", "validation", "test")] == [60, 12, 9]
    assert (data.name, data.class_names) == ("mine", ("a", "b", "c"))
    assert as_data(users(), hold_out=0).validation is None


def test_bytes_are_measured_and_can_be_augmented():
    data = as_data(users(dtype=torch.uint8), augment="crop:1,flip")
    assert all(0 < value < 1 for value in data.mean + data.std)
    assert next(data.loader("train", batch_size=8, train=True).epoch(0)).extras["view"].shape == (8, 3)


def test_resident_images_stay_resident():
    data = as_data(ResidentImages(torch.zeros(60, 1, 4, 4, dtype=torch.uint8), torch.arange(60) % 3))
    assert isinstance(data.train, ResidentImages)


def test_a_loader_is_used_as_it_is():
    loader = DataLoader(users(), batch_size=7, shuffle=True)
    data = as_data(loader, test=users(9))
    assert data.train is loader
    assert data.validation is None
    assert data.num_classes == 3
    assert data.count("train") == 60
    assert [len(batch) for batch in data.loader("train", batch_size=99, train=True).epoch(0)] == [7] * 8 + [4]
    assert [len(batch) for batch in data.loader("test", batch_size=9, train=False).epoch(0)] == [9]


def test_fingerprints_tell_data_apart():
    torch.manual_seed(0)
    first, second = users(), users()
    prints = {as_data(first).fingerprint, as_data(second).fingerprint, as_data(first, split_seed=1).fingerprint}
    assert len(prints) == 3
    assert as_data(first).fingerprint == as_data(first).fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_data(users(), num_classes=2), "label 2, out of the range 0 to 1"),
        (lambda: as_data(users(classes=2), test=users(9)), "out of the range"),
        (lambda: as_data(users(classes=2), test=users(9), num_classes=3), "training does not have"),
        (lambda: as_data(users(), class_names=("a",), num_classes=3), "class names"),
        (lambda: as_data(DataLoader(users()), augment="flip"), "augments for itself"),
        (lambda: as_data(users(3)), "hold|Holding"),
        (lambda: as_data(3), "cannot be indexed"),
    ],
)
def test_mistakes_say_what_to_do(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_an_iterable_loader_must_name_its_classes():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(torch.rand(1, 2, 2), 0), (torch.rand(1, 2, 2), 1)])

        def __len__(self):
            return 2

    with pytest.raises(UserError, match="num_classes="):
        as_data(DataLoader(Stream(), batch_size=1))
    assert as_data(DataLoader(Stream(), batch_size=1), num_classes=2).in_channels == 1
