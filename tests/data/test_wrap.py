import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from tutelage.data import ResidentImages, as_data
from tutelage.errors import Notice, UserError


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
        (lambda: as_data(DataLoader(users()), augment="flip"), "does its own augmentation"),
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


class Named(Dataset):
    """Images as bright as their class: ant is 0, bee 0.4, cat 0.8."""

    def __init__(self, *classes, each=10):
        self.classes, self._each = list(classes), each

    def __len__(self):
        return self._each * len(self.classes)

    def __getitem__(self, index):
        label = index % len(self.classes)
        shade = {"ant": 0.0, "bee": 0.4, "cat": 0.8, "dog": 1.0}[self.classes[label]]
        return torch.full((1, 4, 4), shade), label


def is_right(data, split):
    batch = next(data.loader(split, batch_size=64, train=False).epoch(0))
    return torch.allclose(batch.inputs[:, 0, 0, 0], batch.targets * 0.4)


@pytest.mark.parametrize("classes", [("cat", "ant", "bee"), ("ant", "cat"), ("cat",)])
def test_a_test_set_with_another_numbering_is_read_by_name(classes):
    with pytest.warns(Notice, match="test split of data are numbered differently"):
        data = as_data(Named("ant", "bee", "cat"), test=Named(*classes))
    assert data.class_names == ("ant", "bee", "cat")
    assert is_right(data, "train")
    assert is_right(data, "test")


def test_a_test_set_that_lacks_the_last_class_is_numbered_alike():
    assert is_right(as_data(Named("ant", "bee", "cat"), test=Named("ant", "bee")), "test")


def test_a_class_that_training_lacks_is_refused_by_name():
    with pytest.raises(UserError, match="'bee', which training does not have.*Training has ant, cat"):
        as_data(Named("ant", "cat"), test=Named("ant", "bee", "cat"))


def test_a_loader_with_another_numbering_is_refused():
    with pytest.raises(UserError, match="pass its dataset, whose classes are read by name.*This split has cat, ant"):
        as_data(Named("ant", "bee", "cat"), test=DataLoader(Named("cat", "ant"), batch_size=4))
    data = as_data(Named("ant", "bee", "cat"), test=DataLoader(Named("ant", "bee"), batch_size=64))
    assert is_right(data, "test")


def test_names_of_ones_own_are_for_the_numbers_of_training():
    with pytest.warns(Notice):
        data = as_data(Named("ant", "bee", "cat"), test=Named("cat", "ant"), class_names=("A", "B", "C"))
    assert data.class_names == ("A", "B", "C")
    assert is_right(data, "test")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([7, 500, 100_001], "3 different numbers up to 100001, which would make 100,002 classes"),
        ([4006381333931, 4012345678901, 5901234123457], "would make that many classes"),
        ([3, 3, 3], "all 3, so there is nothing to tell apart"),
    ],
)
def test_numbers_that_are_no_class_indices_are_refused(labels, message):
    pairs = TensorDataset(torch.rand(60, 1, 4, 4), torch.tensor(labels)[torch.arange(60) % 3])
    for data in (pairs, DataLoader(pairs, batch_size=8)):
        with pytest.raises(UserError, match=message):
            as_data(data)


def test_what_is_only_measured_may_have_one_class():
    pairs = TensorDataset(torch.rand(12, 1, 4, 4), torch.full((12,), 3))
    assert as_data(pairs, for_training=False, hold_out=0).num_classes == 4


def test_gaps_are_told_and_a_number_of_classes_that_is_given_holds():
    pairs = TensorDataset(torch.rand(60, 1, 4, 4), torch.tensor([7, 500, 900])[torch.arange(60) % 3])
    with pytest.warns(Notice, match="3 different numbers up to 900, which makes 901 classes"):
        assert as_data(pairs).num_classes == 901
    assert as_data(pairs, num_classes=1000).num_classes == 1000


def test_data_without_labels_name_the_task_that_learns_without():
    data = as_data([torch.rand(1, 4, 4) for _ in range(12)])
    assert (data.num_classes, data.unlabelled) == (0, {"train", "validation"})
    with pytest.raises(UserError, match=r"data has no labels.*task='unlabelled'"):
        data.task.check_answer((2, 3), 2, 0, who="teacher", data=data.name)


def test_loaders_without_samples_or_a_length_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.rand(1, 2, 2), 0)])

    class Batches(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])

    with pytest.raises(UserError, match="The Stream of a DataLoader is iterable and has no length"):
        as_data(DataLoader(Stream(), batch_size=1), num_classes=2)
    with pytest.raises(UserError, match="batch_size=None treats each sample as a batch"):
        as_data(DataLoader(Batches(), batch_size=None))
    with pytest.raises(UserError, match="TensorDataset"):
        as_data((torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])))


def test_data_to_learn_from_are_needed():
    with pytest.raises(UserError, match="no data to learn from"):
        as_data(test=users(9))
