import pytest
import torch
from torch.utils.data import Dataset

from tutelage.data import images as images_module
from tutelage.data.augment import Augmentation
from tutelage.data.images import ResidentImages
from tutelage.data.loader import Loader, ResidentLoader, StreamedLoader, make_loader
from tutelage.data.own import OwnLoader
from tutelage.data.sources import load_data
from tutelage.data.task import task_named
from tutelage.errors import UserError

CLASSIFICATION = task_named("classification")

AUGMENTATION = Augmentation.parse("crop:2,flip")


class Noisy(Dataset):
    """A user's dataset with chance in its transform."""

    def __init__(self, length=20):
        self.targets = [index % 3 for index in range(length)]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return torch.full((1, 4, 4), float(index)) + torch.rand(1), self.targets[index]


@pytest.fixture
def resident():
    return ResidentImages(torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8), torch.arange(50) % 7)


@pytest.fixture
def streamed(make_parquet):
    return load_data(str(make_parquet({"train": 50, "test": 3})[0]), validation=0, resident_limit_mib=0).train


def same(first, second):
    return (
        torch.equal(first.inputs, second.inputs)
        and torch.equal(first.targets, second.targets)
        and torch.equal(first.indices, second.indices)
        and first.extras.keys() == second.extras.keys()
        and all(torch.equal(first.extras[key], second.extras[key]) for key in first.extras)
    )


def test_the_loader_that_fits(resident, streamed):
    loaders = [
        make_loader(dataset, CLASSIFICATION, batch_size=4, workers=0) for dataset in (resident, streamed, Noisy())
    ]
    assert [type(loader) for loader in loaders] == [ResidentLoader, StreamedLoader, StreamedLoader]
    assert isinstance(make_loader(torch.utils.data.DataLoader(Noisy()), CLASSIFICATION, batch_size=4), OwnLoader)
    assert all(isinstance(loader, Loader) for loader in loaders)
    assert [len(loader) for loader in loaders] == [13, 13, 5]
    assert [loader.sizes() for loader in loaders] == [(4,)] * 3


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_hold_what_was_planned(resident, channels_last):
    loader = make_loader(
        resident, CLASSIFICATION, batch_size=16, shuffle=True, augmentation=AUGMENTATION, channels_last=channels_last
    )
    seen = []
    for batch in loader.epoch(2):
        assert batch.inputs.dtype == torch.float32
        assert batch.inputs.is_contiguous(memory_format=torch.channels_last) == channels_last
        expected = AUGMENTATION.apply(resident.images[batch.indices], batch.extras["view"])
        assert torch.equal(batch.inputs, expected.float() / 255)
        assert torch.equal(batch.targets, resident.targets[batch.indices])
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(50))


def test_evaluation_is_in_order_and_plain(resident):
    batches = list(make_loader(resident, CLASSIFICATION, batch_size=16).epoch(0))
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), resident.images.float() / 255)
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(50))
    assert all(not batch.extras for batch in batches)


@pytest.mark.parametrize("kind", ["resident", "streamed", "foreign"])
def test_a_resumed_epoch_is_the_rest_of_the_whole_one(kind, resident, streamed):
    dataset = {"resident": resident, "streamed": streamed, "foreign": Noisy()}[kind]

    def loader():
        return make_loader(
            dataset, CLASSIFICATION, batch_size=4, seed=5, shuffle=True, augmentation=AUGMENTATION, workers=0
        )

    first = loader()
    whole = [list(first.epoch(number)) for number in range(2)]
    assert not torch.equal(whole[0][0].indices, whole[1][0].indices)
    rest = list(loader().epoch(1, 2))
    assert len(rest) == len(loader()) - 2
    assert all(same(a, b) for a, b in zip(rest, whole[1][2:]))


@pytest.mark.parametrize("kind", ["streamed", "foreign"])
def test_workers_change_nothing(kind, streamed):
    dataset = {"streamed": streamed, "foreign": Noisy()}[kind]
    loaders = [
        make_loader(dataset, CLASSIFICATION, batch_size=8, shuffle=True, augmentation=AUGMENTATION, workers=workers)
        for workers in (0, 2)
    ]
    for number, start in ((0, 0), (1, 1)):
        alone, many = (list(loader.epoch(number, start)) for loader in loaders)
        assert len(alone) == len(many)
        assert all(same(a, b) for a, b in zip(alone, many))
    next(loaders[1].epoch(2))
    assert same(next(loaders[0].epoch(3)), next(loaders[1].epoch(3)))


class Repeated:
    """Batches in which images stand several times, and one in which none does."""

    def __len__(self):
        return 2

    def epoch(self, number, generator):
        yield torch.tensor([9, 3, 9, 40, 3, 9])
        yield torch.tensor([7, 2, 5])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_stands_several_times_in_a_batch_is_decoded_once(workers, streamed, tmp_path, monkeypatch):
    decoded, read_image = tmp_path / "decoded", images_module.read_image

    def counting(cell, where):
        # A file, because workers are other processes.
        with decoded.open("a") as file:
            file.write(f"{where}\n")
        return read_image(cell, where)

    resident = streamed.resident()
    monkeypatch.setattr(images_module, "read_image", counting)
    options = {"batch_size": 8, "augmentation": AUGMENTATION, "batch_sampler": Repeated()}
    batches = list(make_loader(streamed, CLASSIFICATION, workers=workers, **options).epoch(0))
    assert len(decoded.read_text().splitlines()) == 3 + 3
    assert batches[0].indices.tolist() == [9, 3, 9, 40, 3, 9]
    assert not torch.equal(batches[0].inputs[0], batches[0].inputs[2]), "each time it is another view"
    assert all(
        same(a, b) for a, b in zip(batches, make_loader(resident, CLASSIFICATION, **options).epoch(0), strict=True)
    )


def test_a_users_dataset_may_show_an_image_differently_each_time():
    batch = next(make_loader(Noisy(50), CLASSIFICATION, batch_size=8, batch_sampler=Repeated()).epoch(0, 0))
    assert not torch.equal(batch.inputs[0], batch.inputs[2])


def test_streamed_and_resident_agree(streamed):
    options = {"batch_size": 8, "shuffle": True, "augmentation": AUGMENTATION}
    loaders = (
        make_loader(streamed, CLASSIFICATION, workers=0, **options),
        make_loader(streamed.resident(), CLASSIFICATION, **options),
    )
    assert all(same(a, b) for a, b in zip(loaders[0].epoch(0), loaders[1].epoch(0), strict=True))


@pytest.mark.parametrize("kind", ["resident", "foreign"])
def test_processes_share_each_batch(kind, resident):
    dataset = {"resident": resident, "foreign": Noisy()}[kind]
    options = {"batch_size": 8, "shuffle": True, "augmentation": AUGMENTATION}
    whole = make_loader(dataset, CLASSIFICATION, **options)
    parts = [make_loader(dataset, CLASSIFICATION, rank=rank, world_size=2, **options) for rank in range(2)]
    for batch, *shares in zip(whole.epoch(0), *(part.epoch(0) for part in parts), strict=True):
        for rank, share in enumerate(shares):
            assert torch.equal(share.indices, batch.indices[rank::2])
            assert torch.equal(share.extras["view"], batch.extras["view"][rank::2])
            if kind == "resident":
                assert torch.equal(share.inputs, batch.inputs[rank::2])


def test_a_share_can_be_empty(resident):
    last = list(make_loader(resident, CLASSIFICATION, batch_size=49, rank=1, world_size=2).epoch(0))[-1]
    assert last.inputs.shape == (0, 3, 8, 8)


def test_a_method_can_bring_its_batches(resident):
    class Pairs:
        def __len__(self):
            return 3

        def epoch(self, number, generator):
            for _ in range(3):
                first = torch.randint(0, 43, (4,), generator=generator)
                yield torch.stack([first, first + 7], 1).flatten()

    loader = make_loader(resident, CLASSIFICATION, batch_size=99, batch_sampler=Pairs())
    batches = list(loader.epoch(1))
    assert len(loader) == len(batches) == 3
    assert all(torch.equal(batch.targets[::2], batch.targets[1::2]) for batch in batches)
    assert same(next(loader.epoch(1, 2)), batches[2])


def test_loading_leaves_the_global_chance_alone(streamed):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(
        make_loader(streamed, CLASSIFICATION, batch_size=8, shuffle=True, augmentation=AUGMENTATION, workers=0).epoch(0)
    )
    list(make_loader(Noisy(), CLASSIFICATION, batch_size=8, shuffle=True).epoch(0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_without_a_traceback(make_photos, workers):
    root = make_photos(("train", "test"))
    data = load_data(str(root), validation=0, resident_limit_mib=0)
    (root / "train" / "bee" / "3.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"^The file at .*bee/3\.png[^\n]*$"):
        list(data.loader("train", batch_size=8, train=True, workers=workers).epoch(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_the_accelerator_sees_the_same_pixels(resident, streamed):
    for dataset in (resident, streamed):
        options = {"batch_size": 8, "shuffle": True, "augmentation": AUGMENTATION, "workers": 0}
        here, there = (
            make_loader(dataset, CLASSIFICATION, **options),
            make_loader(dataset, CLASSIFICATION, device="cuda", **options),
        )
        for a, b in zip(here.epoch(0), there.epoch(0), strict=True):
            assert b.inputs.is_cuda
            assert b.extras["view"].is_cuda
            torch.testing.assert_close(a.inputs, b.inputs.cpu(), atol=1e-7, rtol=0)
            assert same(a, b.to("cpu")) or torch.equal(a.indices, b.indices.cpu())
