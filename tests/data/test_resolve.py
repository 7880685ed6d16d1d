"""Data as a user names them. The ways to split them are tested in test_api.py."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tutelage.data.resolve import resolve_data
from tutelage.errors import UserError
from tutelage.testing.toys import toy_data


def test_foreign_data_stand_beside_any_data():
    pairs = TensorDataset(torch.rand(20, 1, 8, 8), torch.arange(20) % 2)
    for data in ("digits", pairs, toy_data()):
        found = resolve_data(data, foreign="digits")
        assert found.foreign.name == "digits"
        assert (found.foreign.images.channels, found.foreign.images.size) == (found.in_channels, found.image_size)
        assert resolve_data(data).foreign is None


def test_ready_made_data_are_as_they_are():
    data = toy_data()
    assert resolve_data(data) is data
    with pytest.raises(UserError, match="data given by name have splits of their own"):
        resolve_data(data, test=data)


def test_any_data_but_ready_made_ones_are_augmented_as_asked_for():
    pairs = TensorDataset(torch.rand(20, 1, 8, 8), torch.arange(20) % 2)
    for data, usual in (("digits", str(resolve_data("digits").augmentation)), (pairs, "none")):
        for share in (None, 0.5):
            assert str(resolve_data(data, validation=share, augment="crop:1,flip").augmentation) == "crop:1,flip"
            assert str(resolve_data(data, validation=share).augmentation) == usual
    with_loader = resolve_data(pairs, test=DataLoader(pairs, batch_size=5), augment="crop:1")
    assert (str(with_loader.augmentation), with_loader.augmentation_chosen) == ("crop:1", True)
    assert resolve_data(pairs, augment="none", validation=0.5).augmentation_chosen
    assert not resolve_data(pairs, validation=0.5).augmentation_chosen
    with pytest.raises(UserError, match="load_data"):
        resolve_data(toy_data(), augment="flip")
    with pytest.raises(UserError, match="DataLoader does its own augmentation"):
        resolve_data(DataLoader(pairs, batch_size=5), augment="flip")
