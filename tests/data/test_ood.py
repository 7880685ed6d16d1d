"""Foreign images take the form of the data's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from tutelage.data.images import ResidentImages
from tutelage.data.ood import fit_images, foreign_data
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.testing.toys import toy_data


def batch_of(data, source):
    found = replace(data, foreign=foreign_data(source, data))
    return next(iter(found.loader("foreign", train=False, batch_size=5).epoch(0))).inputs, found


def test_colours_become_their_brightness_as_in_pil():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
    found = fit_images(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None], 1, (7, 9))
    assert found.dtype == torch.uint8
    assert abs(found[0, 0].numpy().astype(int) - expected).max() <= 1


def test_grey_is_repeated_and_the_size_is_the_datas():
    images = torch.rand(2, 1, 8, 8)
    found = fit_images(images, 3, (8, 8))
    assert torch.equal(found, images.expand(2, 3, 8, 8))
    assert fit_images(images, 3, (12, 16)).shape == (2, 3, 12, 16)
    constant = fit_images(torch.full((1, 3, 5, 5), 100, dtype=torch.uint8), 1, (9, 3))
    assert (constant == 100).all()
    assert torch.equal(fit_images(found, 3, (8, 8)), found)
    with pytest.raises(UserError, match="2 channels"):
        fit_images(torch.rand(1, 2, 4, 4), 3, (4, 4))


def test_data_by_name_give_their_test_split():
    data = toy_data()
    inputs, found = batch_of(data, "digits")
    assert inputs.shape == (5, 3, 12, 16)
    assert 0 <= inputs.min() < inputs.max() <= 1
    assert found.foreign.name == "digits"
    assert found.count("foreign") == load_data("digits").count("test")
    assert found.foreign.fingerprint != data.fingerprint


def test_a_dataset_is_taken_whole_and_keeps_its_form_where_that_fits():
    data = toy_data()
    whole = TensorDataset(torch.rand(9, 3, 12, 16), torch.zeros(9, dtype=torch.long))
    inputs, found = batch_of(data, whole)
    assert torch.equal(inputs, whole.tensors[0][:5])
    assert found.count("foreign") == 9
    grey = TensorDataset(torch.rand(4, 1, 6, 6), torch.arange(4) + 50)
    inputs, found = batch_of(data, grey)
    assert inputs.shape == (4, 3, 12, 16)
    assert found.count("foreign") == 4


def test_a_loader_is_used_as_it_is():
    images = torch.rand(6, 3, 12, 16)
    inputs, found = batch_of(toy_data(), DataLoader(TensorDataset(images, torch.zeros(6).long()), batch_size=3))
    assert torch.equal(inputs, images[:3])
    assert found.count("foreign") == 6


def test_data_without_a_test_split_are_refused():
    with pytest.raises(UserError, match="no test split"):
        foreign_data(toy_data().with_splits(test=None), toy_data())


def test_normalised_images_are_not_measured_against_images_that_are_not():
    images = TensorDataset(3 * torch.randn(20, 1, 8, 8), torch.arange(20) % 2)
    normalised, unit = as_data(images), as_data(TensorDataset(torch.rand(20, 1, 8, 8), torch.arange(20) % 2))
    with pytest.raises(UserError, match="normalised"):
        foreign_data("digits", normalised)
    assert foreign_data("digits", unit).images.channels == 1
    assert len(foreign_data(images, normalised).images) == 20


def test_streamed_images_are_decoded_to_the_form(tmp_path):
    for split, label in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
        folder = tmp_path / split / label
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = np.full((40, 40, 3), 80 * number, dtype=np.uint8)
            pixels[0, 0] = 255
            Image.fromarray(pixels).save(folder / f"{number}.png")
    streamed = load_data(str(tmp_path), validation=0, resident_limit_mib=0)
    assert not isinstance(streamed.test, ResidentImages)
    inputs, found = batch_of(replace(toy_data(), in_channels=1), streamed)
    assert inputs.shape == (5, 1, 12, 16)
    assert inputs[1, :, 4:].unique().tolist() == pytest.approx([80 / 255])
    assert found.count("foreign") == 6


def test_foreign_images_change_neither_the_data_nor_their_fingerprint():
    found = replace(toy_data(), foreign=foreign_data("digits", toy_data()))
    assert found.fingerprint == toy_data().fingerprint
    assert toy_data().count("foreign") == 0
    with pytest.raises(UserError, match="no foreign split"):
        toy_data().loader("foreign", train=False, batch_size=2)
