import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from tutelage.data.own import OwnLoader, OwnSamples, as_image
from tutelage.data.own_targets import find_targets
from tutelage.data.task import task_named
from tutelage.errors import UserError

CLASSIFICATION = task_named("classification")


class Pairs(Dataset):
    def __init__(self, images, labels):
        self._images, self._labels = images, labels

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index):
        return self._images[index], self._labels[index]


class Noisy(Pairs):
    def __init__(self, length=20):
        super().__init__(None, list(range(length)))

    def __getitem__(self, index):
        return torch.full((1, 2, 2), float(index)) + torch.rand(1), self._labels[index]


def test_images_of_every_kind_become_the_same_floats():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    expected = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    for image in (pixels, Image.fromarray(pixels), torch.from_numpy(pixels.transpose(2, 0, 1).copy())):
        assert torch.equal(as_image(image), expected)
    grey = pixels[:, :, 0]
    for image in (grey, Image.fromarray(grey), torch.from_numpy(grey.copy()), grey[None], grey[..., None]):
        assert torch.equal(as_image(image), torch.from_numpy(grey.copy())[None].float() / 255)


def test_floats_pass_as_they_are():
    image = torch.randn(3, 5, 5, dtype=torch.float64) * 9
    assert torch.equal(as_image(image), image.float())
    assert torch.equal(as_image(image.numpy()), image.float())


@pytest.mark.parametrize("image", ["cat.jpg", torch.zeros(1, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.int64)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(UserError, match="An image of the dataset"):
        as_image(image)


def test_targets_are_found_where_they_are():
    labels = torch.tensor([2, 0, 1, 1])
    images = torch.rand(4, 1, 2, 2)
    attribute = Pairs(images, labels.tolist())
    attribute.targets = labels.tolist()
    for dataset in (TensorDataset(images, labels), attribute, Pairs(images, labels.tolist())):
        assert find_targets(dataset, CLASSIFICATION).tolist() == [2, 0, 1, 1]
        assert find_targets(Subset(dataset, [3, 0]), CLASSIFICATION).tolist() == [1, 2]


def test_too_many_samples_are_not_read_for_their_labels():
    with pytest.raises(UserError, match="attribute `targets`"):
        find_targets(Pairs([None] * 20_001, [0] * 20_001), CLASSIFICATION)


def test_select_keeps_images_and_labels_together():
    foreign = OwnSamples(Noisy(), CLASSIFICATION).select([5, 2])
    images, targets = foreign.read_batch([1, 0])
    assert targets.tolist() == [2, 5]
    assert images.int().flatten(1)[:, 0].tolist() == [2, 5]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (object(), "cannot be indexed"),
        (Pairs([], []), "is empty"),
        ([(torch.rand(1, 2, 2), 1, "a.png")], "tuple of 3: make each a pair"),
        ([{"image": 1, "label": 2}], "image of the dataset is a int"),
        ([{"image": torch.rand(1, 2, 2), "label": 2, "target": 2}], "fields label, target"),
        ([{"label": 2}], "only the field label"),
    ],
)
def test_what_is_no_dataset_is_refused(dataset, message):
    with pytest.raises(UserError, match=message):
        OwnSamples(dataset, CLASSIFICATION)


def test_images_of_several_sizes_are_refused():
    foreign = OwnSamples(Pairs([torch.rand(1, 2, 2), torch.rand(1, 3, 3)], [0, 1]), CLASSIFICATION)
    with pytest.raises(UserError, match="resize them to one shape"):
        foreign.read_batch([0, 1])


def inputs(loader, number, start=0):
    return [batch.inputs for batch in loader.epoch(number, start)]


@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_loader_resumes(own_generator, workers):
    def loader():
        generator = torch.Generator() if own_generator else None
        users = DataLoader(Noisy(), batch_size=4, shuffle=True, generator=generator, num_workers=workers)
        return OwnLoader(users, CLASSIFICATION, seed=1)

    first = loader()
    inputs(first, 0)
    torch.rand(3)
    whole = inputs(first, 1)
    torch.rand(5)
    rest = inputs(loader(), 1, 3)
    assert len(whole) == len(first) == 5
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[3:]))
    assert not torch.equal(whole[0], inputs(first, 0)[0])


def test_a_users_loader_leaves_the_global_chance_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    inputs(OwnLoader(DataLoader(Noisy(), batch_size=4, shuffle=True), CLASSIFICATION), 0)
    assert torch.equal(torch.rand(3), expected)


def test_a_users_loader_is_shared_by_processes():
    users = DataLoader(Noisy(), batch_size=4, shuffle=True)
    whole, part = (OwnLoader(users, CLASSIFICATION, rank=rank, world_size=size) for rank, size in ((0, 1), (1, 2)))
    for batch, share in zip(whole.epoch(0), part.epoch(0), strict=True):
        assert torch.equal(share.inputs, batch.inputs[1::2])
        assert torch.equal(share.targets, batch.targets[1::2])


def test_the_size_of_a_users_batches_where_it_is_known():
    images = TensorDataset(torch.zeros(20, 1, 4, 4), torch.zeros(20).long())
    assert OwnLoader(DataLoader(images, batch_size=6), CLASSIFICATION).sizes() == (6,)
    assert OwnLoader(DataLoader(images, batch_size=5), CLASSIFICATION, rank=1, world_size=2).sizes() == (2,)
    assert OwnLoader(DataLoader(images, batch_sampler=[[0, 1], [2]]), CLASSIFICATION).sizes() == ()


@pytest.mark.parametrize(
    ("samples", "size", "processes", "batches"),
    [(9, 4, 1, 2), (10, 4, 1, 3), (1, 4, 1, 1), (4, 1, 1, 4), (11, 8, 2, 1), (12, 8, 2, 2), (5, 5, 1, 1)],
)
def test_training_leaves_out_a_last_batch_with_one_sample_for_a_process(samples, size, processes, batches):
    loader = DataLoader(TensorDataset(torch.zeros(samples, 1, 2, 2), torch.arange(samples)), batch_size=size)
    own = OwnLoader(loader, CLASSIFICATION, world_size=processes, training=True)
    assert len(own) == len(list(own.epoch(0))) == batches
    # Whatever is measured is measured whole.
    whole = OwnLoader(loader, CLASSIFICATION)
    assert sum(len(batch) for batch in whole.epoch(0)) == samples


def test_a_users_loader_of_bytes_becomes_floats():
    users = DataLoader(TensorDataset(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8), torch.arange(4)), batch_size=4)
    batch = next(OwnLoader(users, CLASSIFICATION).epoch(0))
    assert torch.equal(batch.inputs, torch.full((4, 1, 2, 2), 51).float() / 255)
    assert batch.indices is None


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_laid_on_white(mode):
    icon = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    icon.putpixel((1, 2), (0, 0, 0, 255))
    image = as_image(icon.convert(mode))
    assert image[:, 2, 1].tolist() == [0, 0, 0]
    assert image.sum() == 3 * 15
