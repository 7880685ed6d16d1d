import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tutelage.errors import UserError
from tutelage.methods.parts.crops import (
    Mixture,
    check_crops,
    draw_shares,
    first_single_epoch,
    in_crops,
    soft_label_losses,
)


def data(samples=24):
    return TensorDataset(torch.randn(samples, 3), torch.arange(samples))


# Batches.


def test_batches_have_a_section_and_a_view_for_each_crop():
    transfer = in_crops(data(), crops=4, batch_size=8, single_from=None)
    assert (transfer.sections, transfer.views, len(transfer.batches)) == (4, 4, 3)
    (first, *_) = transfer.batches.epoch(0, torch.Generator().manual_seed(0))
    assert (first.view(4, 2) == first[:2]).all()


def test_one_crop_is_an_ordinary_batch_of_any_data():
    loader = DataLoader(data(), batch_size=4)
    transfer = in_crops(loader, crops=1, batch_size=7, single_from=None)
    assert transfer.dataset is loader
    assert transfer.batches is None
    with pytest.raises(UserError, match="pass the dataset instead of a DataLoader, or take crops=1"):
        in_crops(loader, crops=2, batch_size=8, single_from=None)


@pytest.mark.parametrize(("processes", "batch_size", "multiple"), [(1, 10, 4), (3, 16, 12), (2, 4, 8)])
def test_a_batch_that_is_not_shared_equally_is_refused(processes, batch_size, multiple, monkeypatch):
    monkeypatch.setattr("tutelage.system.processes.count", lambda: processes)
    with pytest.raises(UserError, match=f"batch of {batch_size}.* cannot hold 4 crops .* a multiple of {multiple},"):
        in_crops(data(), crops=4, batch_size=batch_size, single_from=None)


def test_several_processes_leave_out_a_smaller_last_batch(monkeypatch):
    assert len(in_crops(data(28), crops=4, batch_size=8, single_from=None).batches) == 4
    monkeypatch.setattr("tutelage.system.processes.count", lambda: 2)
    assert len(in_crops(data(28), crops=4, batch_size=8, single_from=None).batches) == 3


@pytest.mark.parametrize(
    ("epochs", "crops", "first"), [(300, 4, 296), (8, 4, 4), (7, 4, 4), (2, 4, 1), (1, 4, 1), (None, 4, None)]
)
def test_the_last_epochs_show_one_crop(epochs, crops, first):
    assert first_single_epoch(epochs, crops) == first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"crops": 0}, "crops=0 must be one or more"),
        ({"temperature": 0.0}, "temperature=0.0 must be above zero"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"mixup": -1.0}, "mixup=-1.0 must be a parameter of the Beta distribution, or 0 for none"),
        ({"cutmix": math.inf}, "cutmix=inf"),
        ({"cutmix": math.nan}, "cutmix=nan"),
    ],
)
def test_what_cannot_be_is_refused(changed, message):
    options = {"crops": 4, "temperature": 1.0, "mixup": 0.0, "cutmix": 0.0}
    check_crops(**options)
    with pytest.raises(UserError, match=message):
        check_crops(**(options | changed))


# The loss.


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_losses_against_loops(temperature, double, slow):
    logits, targets = torch.randn(5, 4) * 3, torch.randn(5, 4).softmax(1)
    expected = [
        slow.cross_entropy(q, slow.softmax(z, temperature))
        for q, z in zip(targets.tolist(), logits.tolist(), strict=True)
    ]
    assert soft_label_losses(logits, targets, temperature).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_losses_stay_finite_and_wide(dtype):
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    losses = soft_label_losses(logits, torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.3, 0.5]]), 1.0)
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx([2e4, math.log(3)], rel=1e-2)


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match="same classes"):
        soft_label_losses(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)


# Mixtures.


def mixture(partners, shares):
    return Mixture(partners=torch.tensor(partners), shares=shares)


def test_images_and_labels_against_loops():
    images, labels = torch.rand(3, 2, 4, 5), torch.rand(3, 6).softmax(1)
    shares, partners = torch.rand(4, 5), [2, 1, 0]
    found = mixture(partners, shares)
    mean = sum(shares.flatten().tolist()) / 20
    for b, partner in enumerate(partners):
        for row in range(4):
            for column in range(5):
                s = shares[row, column].item()
                expected = (1 - s) * images[b, :, row, column] + s * images[partner, :, row, column]
                assert torch.allclose(found.of_images(images)[b, :, row, column], expected, atol=1e-6)
        expected = (1 - mean) * labels[b] + mean * labels[partner]
        assert torch.allclose(found.of_labels(labels)[b], expected, atol=1e-6)


def test_no_share_or_the_same_image_changes_nothing():
    images, labels = torch.rand(4, 2, 4, 5), torch.rand(4, 6)
    for same in (mixture([3, 2, 1, 0], torch.zeros(4, 5)), mixture([0, 1, 2, 3], torch.rand(4, 5))):
        assert torch.equal(same.of_images(images), images)
        assert torch.equal(same.of_labels(labels), labels)
    twins = images[[0, 0, 1, 1]]
    assert torch.equal(mixture([1, 0, 3, 2], torch.rand(4, 5)).of_images(twins), twins)


def test_mixed_labels_sum_to_one():
    labels = torch.rand(50, 6, dtype=torch.float64).softmax(1)
    mixed = Mixture(partners=torch.randperm(50), shares=torch.rand(4, 5)).of_labels(labels)
    assert torch.allclose(mixed.sum(1), torch.ones(50, dtype=torch.float64))
    assert (mixed >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_keep_their_dtype_and_layout(dtype):
    images = torch.rand(6, 3, 4, 5, dtype=dtype).contiguous(memory_format=torch.channels_last)
    mixed = mixture([1, 0, 3, 2, 5, 4], torch.rand(4, 5)).of_images(images)
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=torch.channels_last)


IMAGES = torch.zeros(2, 3, 10, 14)


def draws(count, **options):
    torch.manual_seed(0)
    return torch.stack([draw_shares(IMAGES, **options) for _ in range(count)])


@pytest.mark.parametrize("parameter", [0.8, 1.0, 5.0])
def test_mixup_has_one_beta_share_everywhere(parameter):
    shares = draws(4000, mixup=parameter, cutmix=0.0)
    assert (shares == shares[:, :1, :1]).all()
    share = shares[:, 0, 0]
    assert share.mean().item() == pytest.approx(0.5, abs=0.02)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * parameter + 1)), rel=0.1)


def test_cutmix_has_a_box_inside_the_image():
    shares = draws(3000, mixup=0.0, cutmix=1.0)
    assert set(shares.unique().tolist()) == {0.0, 1.0}
    rows, columns = shares.amax(2), shares.amax(1)
    # A box is the product of an interval of rows and one of columns.
    assert torch.equal(shares, rows[:, :, None] * columns[:, None, :])
    for line in (rows, columns):
        assert (line.diff(dim=1).abs().sum(1) <= 2).all()
        assert not (line.diff(dim=1) < 0).any(1).logical_and((line[:, 0] == 0) & (line[:, -1] == 1)).any()
    # Every pixel is covered as often as its mirror image.
    covered = shares.mean(0)
    assert torch.allclose(covered, covered.flip(0, 1), atol=0.04)
    assert covered[5, 7] > covered[0, 0] > 0.05


def test_the_box_has_the_area_that_lambda_says_where_it_fits(monkeypatch):
    monkeypatch.setattr("tutelage.methods.parts.crops._beta", lambda parameter, device: torch.tensor(0.75))
    areas = draws(400, mixup=0.0, cutmix=1.0).mean((1, 2))
    # A quarter of the pixels: 5 rows of 10, 7 columns of 14; less where the border cuts it.
    assert areas.max().item() == pytest.approx(0.25)
    assert (areas > 0.24).float().mean() > 0.2
    monkeypatch.setattr("tutelage.methods.parts.crops._beta", lambda parameter, device: torch.tensor(1.0))
    assert not draws(50, mixup=0.0, cutmix=1.0).any()
    assert not draws(5, mixup=1.0, cutmix=0.0).any()


def test_of_both_each_batch_takes_one():
    shares = draws(1000, mixup=1.0, cutmix=1.0)
    boxes = ((shares == 0) | (shares == 1)).all(2).all(1)
    assert boxes.float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert (shares[~boxes] == shares[~boxes][:, :1, :1]).all()


@pytest.mark.parametrize(
    "inputs", [torch.zeros(2, 3), torch.zeros(2, 3, 4, 4, dtype=torch.uint8), {"ids": torch.zeros(2, 3)}]
)
def test_only_images_are_mixed(inputs):
    with pytest.raises(UserError, match="Mixup and CutMix need images: for other inputs, use mixup=0 and cutmix=0"):
        draw_shares(inputs, mixup=1.0, cutmix=0.0)


def test_drawing_waits_for_nothing(waits):
    assert waits(lambda: draw_shares(IMAGES, mixup=0.8, cutmix=1.0)) == []
    labels = torch.rand(2, 4)
    pair = mixture([1, 0], torch.rand(10, 14))
    assert waits(lambda: (pair.of_images(IMAGES), pair.of_labels(labels))) == []


def test_labels_of_places_are_mixed_where_the_images_are():
    shares = torch.zeros(4, 6)
    shares[:2, :3] = 1
    mixture = Mixture(partners=torch.tensor([1, 0]), shares=shares)
    labels = torch.rand(2, 3, 4, 6)
    found = mixture.of_labels(labels)
    assert torch.equal(found[0, :, :2, :3], labels[1, :, :2, :3])
    assert torch.equal(found[0, :, 2:], labels[0, :, 2:])
    # At half the size of the images a place has the share of its pixels.
    shares[0, 3] = 1
    halved = mixture.of_labels(labels[:, :, :2, :3])
    assert torch.allclose(halved[0, :, 0, 1], labels[0, :, 0, 1] * 0.25 + labels[1, :, 0, 1] * 0.75)
