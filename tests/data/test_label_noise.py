"""Wrong labels: how many, which ones, whose, and that they are the same again."""

import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tutelage.data.label_noise import label_offsets, training_labels, with_wrong_labels
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.system.chance import generator
from tutelage.testing.toys import CLASSES, toy_data

MANY = 100_000


@pytest.mark.parametrize(("flips", "share"), [("any", 0.18), ("other", 0.2)])
def test_the_effective_rate_and_where_labels_go(flips, share):
    offsets = label_offsets(MANY, 0.2, 10, flips=flips, chance=generator(0))
    wrong = (offsets != 0).float().mean().item()
    assert wrong == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / MANY))
    counts = offsets.bincount(minlength=10)
    assert len(counts) == 10
    # Whatever is wrong is wrong evenly; five standard errors.
    expected = MANY * share / 9
    assert (counts[1:] - expected).abs().max() < 5 * math.sqrt(expected)


@pytest.mark.parametrize("flips", ["any", "other"])
def test_the_ends_of_the_range(flips):
    assert not label_offsets(50, 0.0, 10, flips=flips).any()
    moved = label_offsets(MANY, 1.0, 4, flips=flips, chance=generator(1))
    assert moved.unique().tolist() == ([0, 1, 2, 3] if flips == "any" else [1, 2, 3])


def test_a_lower_rate_makes_a_subset_wrong():
    low, high = (label_offsets(MANY, rate, 10, flips="other", chance=generator(5)) for rate in (0.1, 0.3))
    assert (high[low != 0] == low[low != 0]).all()
    assert (low != 0).sum() < (high != 0).sum()


def test_no_place_of_a_batch_is_wrong_more_often_than_another():
    offsets = label_offsets(MANY, 0.1, 10, flips="other", chance=generator(2)).view(-1, 50)
    by_place = (offsets != 0).float().mean(0)
    assert (by_place - 0.1).abs().max() < 5 * math.sqrt(0.1 * 0.9 / len(offsets))
    by_batch = (offsets != 0).sum(1)
    assert by_batch.unique().numel() > 5, "nor is the number of wrong labels in a batch fixed"


def test_labels_are_drawn_among_the_classes_and_not_the_channels():
    data = toy_data()
    assert data.in_channels < CLASSES
    wrong = training_labels(with_wrong_labels(data, 1.0, seed=3))
    assert wrong.unique().tolist() == list(range(CLASSES))


def test_only_training_labels_change():
    data = toy_data()
    noisy = with_wrong_labels(data, 0.5, seed=0, flips="other")
    before, after = training_labels(data), training_labels(noisy)
    assert 0.2 < (before != after).float().mean() < 0.8
    assert torch.equal(before, training_labels(toy_data())), "the data themselves stay as they are"
    assert noisy.validation is data.validation
    assert noisy.test is data.test
    assert noisy.fingerprint != data.fingerprint
    (batch,) = noisy.loader("train", train=False, batch_size=48).epoch(0)
    assert torch.equal(batch.targets, after)
    assert torch.equal(batch.inputs, data.example(48))


def test_the_seed_decides():
    one, again, other = (with_wrong_labels(toy_data(), 0.5, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(training_labels(one), training_labels(again))
    assert one.fingerprint == again.fingerprint
    assert not torch.equal(training_labels(one), training_labels(other))
    assert len({data.fingerprint for data in (one, other, with_wrong_labels(toy_data(), 0.4, seed=4))}) == 3


def test_held_out_validation_samples_keep_their_labels():
    data = load_data("digits", subset=300)
    noisy = with_wrong_labels(data, 1.0, seed=0, flips="other")
    assert torch.equal(noisy.validation.targets, data.validation.targets)
    assert not (noisy.train.targets == data.train.targets).any()


def test_a_users_own_dataset():
    pairs = TensorDataset(torch.rand(40, 3, 8, 8), torch.arange(40) % 5)
    data = as_data(pairs, hold_out=0.2)
    noisy = with_wrong_labels(data, 1.0, seed=0, flips="other")
    clean, wrong = (
        next(iter(one.loader("train", train=True, batch_size=16, seed=1).epoch(0))) for one in (data, noisy)
    )
    assert torch.equal(clean.inputs, wrong.inputs)
    assert torch.equal(clean.indices, wrong.indices)
    assert not (clean.targets == wrong.targets).any()
    assert torch.equal(wrong.targets, training_labels(noisy)[wrong.indices])


def test_images_that_are_read_when_they_are_needed(make_photos):
    root = make_photos(splits=("train", "test"))
    data = load_data(f"{root}", augment="none", validation=0)
    streamed = load_streamed(root)
    for one in (data, streamed):
        noisy = with_wrong_labels(one, 1.0, seed=0, flips="other")
        (clean,) = one.loader("train", train=False, batch_size=99, workers=0).epoch(0)
        (wrong,) = noisy.loader("train", train=False, batch_size=99, workers=0).epoch(0)
        assert torch.equal(clean.inputs, wrong.inputs)
        assert not (clean.targets == wrong.targets).any()


def load_streamed(root):
    from tutelage.data.images import StreamedImages
    from tutelage.data.sources import load_data as load

    data = load(f"{root}", augment="none", validation=0)
    if isinstance(data.train, StreamedImages):
        return data
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(root), split="train")
    targets = torch.tensor(rows["label"])
    rows = rows.cast_column("image", datasets.Image(decode=False))
    train = StreamedImages(rows, targets, image="image", split="train", channels=3, size=data.image_size)
    return data.with_splits(train=train)


def test_a_loader_is_refused_with_the_way_out():
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 4, 4), torch.arange(8) % 2), batch_size=4)
    with pytest.raises(UserError, match="pass the dataset instead.*redraw=batch"):
        with_wrong_labels(as_data(loader, num_classes=2), 0.1, seed=0)


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_a_rate_is_a_share(rate):
    with pytest.raises(UserError, match="from 0 to 1"):
        label_offsets(4, rate, 10)


def test_one_class_cannot_be_wrong():
    with pytest.raises(UserError, match="two classes or more"):
        label_offsets(4, 0.1, 1)


def test_samples_without_a_label_get_none():
    data = toy_data()
    targets = data.train.targets.clone()
    targets[::3] = -1
    partly = data.with_splits(train=data.train.with_targets(targets))
    found = training_labels(with_wrong_labels(partly, 1.0, seed=0, flips="other"))
    assert torch.equal(found == -1, targets == -1)
    assert (found != targets)[targets != -1].all()
