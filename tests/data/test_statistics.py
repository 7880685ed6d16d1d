import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from tutelage.data.images import ResidentImages
from tutelage.data.own import OwnSamples
from tutelage.data.sources import load_data
from tutelage.data.statistics import mean_and_std
from tutelage.data.task import task_named

CLASSIFICATION = task_named("classification")

TARGETS = torch.zeros(40, dtype=torch.int64)


def test_mean_and_std_are_exact():
    images = torch.randint(0, 256, (5000, 3, 4, 5), dtype=torch.uint8)
    mean, std = mean_and_std(ResidentImages(images, torch.zeros(5000)))
    pixels = images.double().numpy() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3)), abs=1e-12)


def test_a_constant_channel_has_a_std_to_divide_by():
    images = torch.full((40, 1, 4, 4), 51, dtype=torch.uint8)
    mean, std = mean_and_std(ResidentImages(images, TARGETS))
    assert mean == pytest.approx((0.2,))
    assert std == (1.0,)


def test_a_users_floats_are_normalised_already():
    foreign = OwnSamples(TensorDataset(torch.rand(40, 3, 4, 4), TARGETS), CLASSIFICATION)
    assert mean_and_std(foreign) == ((0.0,) * 3, (1.0,) * 3)


def test_a_users_bytes_are_measured():
    images = torch.randint(0, 256, (40, 3, 4, 4), dtype=torch.uint8)
    foreign = mean_and_std(OwnSamples(TensorDataset(images, TARGETS), CLASSIFICATION))
    resident = mean_and_std(ResidentImages(images, TARGETS))
    np.testing.assert_allclose(foreign, resident, atol=1e-9)


def test_streamed_images_are_measured(make_parquet):
    folder, pixels = make_parquet({"train": 60, "test": 30})
    data = load_data(str(folder), validation=0, resident_limit_mib=0)
    assert data.mean == pytest.approx(pixels["train"].mean((0, 1, 2)) / 255)
    assert data.std == pytest.approx(pixels["train"].std((0, 1, 2)) / 255)
