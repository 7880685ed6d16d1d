"""Samples of every kind keep inputs and targets together, with targets or without."""

import numpy as np
import pytest
import torch

from tutelage.data.images import ResidentImages
from tutelage.data.own import OwnSamples, as_samples
from tutelage.data.samples import Samples
from tutelage.data.task import task_named

CLASSIFICATION = task_named("classification")


class Own:
    def __init__(self, labels=True):
        self.labels = labels

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = torch.full((1, 2, 2), float(index))
        return (image, index % 3) if self.labels else image


class Text(Own):
    def __getitem__(self, index):
        return {"input_ids": torch.full((4,), index), "attention_mask": torch.ones(4), "labels": index % 3}


@pytest.fixture(params=["resident", "own"])
def samples(request):
    if request.param == "own":
        return OwnSamples(Own(), CLASSIFICATION)
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return ResidentImages(images, torch.arange(6) % 3)


def read(samples, *indices):
    return samples.read_batch(torch.tensor(indices) if samples.is_resident else list(indices))


def test_a_batch_has_inputs_and_targets_in_the_order_asked_for(samples):
    images, targets = read(samples, 4, 0)
    assert images[:, 0, 0, 0].tolist() == [4, 0]
    assert targets.tolist() == [1, 0]
    chosen = samples.select(np.array([5, 3]))
    assert read(chosen, 1, 0)[0][:, 0, 0, 0].tolist() == [3, 5]
    assert chosen.targets.tolist() == [2, 0]


def test_targets_may_be_others_or_none(samples):
    other = samples.with_targets(torch.tensor([9, 8, 7, 6, 5, 4]))
    assert read(other, 2, 0)[1].tolist() == [7, 9]
    bare = samples.with_targets(None)
    assert bare.targets is None
    images, targets = read(bare, 2)
    assert images[0, 0, 0, 0] == 2
    assert targets is None
    assert bare.select([1]).targets is None
    assert samples.targets is not None


def test_inputs_without_targets_are_samples_too():
    found = OwnSamples(Own(labels=False), CLASSIFICATION)
    assert found.targets is None
    assert found.read_batch([1, 2])[0].shape == (2, 1, 2, 2)


def test_a_mapping_is_put_together_field_by_field():
    found = OwnSamples(Text(), CLASSIFICATION)
    inputs, targets = found.read_batch([1, 2])
    assert inputs["input_ids"].tolist() == [[1] * 4, [2] * 4]
    assert targets.tolist() == [1, 2]
    assert (found.channels, found.size) == (0, ())


def test_what_is_samples_already_stays_what_it_is(samples):
    assert as_samples(samples, CLASSIFICATION) is samples
    assert isinstance(as_samples(Own(), CLASSIFICATION), Samples)
