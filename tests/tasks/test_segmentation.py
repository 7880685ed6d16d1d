"""Segmentation against slow loops and known answers."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data.augment import Augmentation
from tutelage.data.task import task_named
from tutelage.errors import UserError
from tutelage.models.answers import at_size

TASK = task_named("segmentation")


def slow_cross_entropy(answer, masks):
    """The mean over the pixels that have a class, one pixel after the other."""
    total, count = 0.0, 0
    for sample in range(len(masks)):
        for row in range(masks.shape[1]):
            for column in range(masks.shape[2]):
                wanted = int(masks[sample, row, column])
                if wanted < 0:
                    continue
                scores = [float(value) for value in answer[sample, :, row, column]]
                total += math.log(sum(math.exp(value) for value in scores)) - scores[wanted]
                count += 1
    return total / count


def slow_ious(predicted, masks, classes):
    found = []
    for number in range(classes):
        inter = union = 0
        for guess, wanted in zip(predicted.flatten().tolist(), masks.flatten().tolist(), strict=True):
            if wanted < 0:
                continue
            inter += guess == number and wanted == number
            union += number in (guess, wanted)
        found.append(inter / union if union else None)
    return found


def drawn(samples=3, classes=4, size=(5, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    answer = torch.randn(samples, classes, *size, generator=generator, dtype=torch.float64)
    masks = torch.randint(-1, classes - 1, (samples, *size), generator=generator)
    return answer, masks


def test_the_loss_is_the_mean_over_the_pixels_that_have_a_class():
    answer, masks = drawn()
    answer.requires_grad_()
    loss = TASK.criterion.loss(answer, masks)
    assert loss.item() == pytest.approx(slow_cross_entropy(answer.detach(), masks), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, answer)
    one_hot = torch.nn.functional.one_hot(masks.clamp(min=0), 4).permute(0, 3, 1, 2)
    expected = (answer.detach().softmax(1) - one_hot) * (masks >= 0)[:, None] / (masks >= 0).sum()
    torch.testing.assert_close(gradient, expected)


def test_masks_without_a_class_teach_nothing():
    answer = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = TASK.criterion.loss(answer, torch.full((2, 4, 4), -1, dtype=torch.int16))
    loss.backward()
    assert loss.item() == 0
    assert not answer.grad.any()


def test_coarse_answers_are_brought_to_the_masks():
    answer, masks = drawn(size=(8, 8))
    coarse = answer[:, :, ::2, ::2]
    whole = TASK.criterion.loss(at_size(coarse, (8, 8)), masks)
    assert TASK.criterion.loss(coarse, masks) == whole
    one, other = TASK.meter(), TASK.meter()
    one.update(coarse, masks)
    other.update(at_size(coarse, (8, 8)), masks)
    assert one.compute() == other.compute()


def test_iou_is_that_of_all_pixels_whatever_the_sizes_and_batches():
    parts = [drawn(3, size=(5, 6)), drawn(2, size=(9, 4), seed=1), drawn(1, size=(2, 3), seed=2)]
    meter = TASK.meter()
    for answer, masks in parts:
        meter.update(answer.float(), masks)
    predicted = torch.cat([answer.argmax(1).flatten() for answer, _ in parts])
    wanted = torch.cat([masks.flatten() for _, masks in parts])
    ious = slow_ious(predicted, wanted, 4)
    # The last class is in no mask, but is answered: it counts as found nowhere.
    assert ious[3] == 0.0
    found = meter.compute()
    assert found["miou"] == pytest.approx(sum(ious) / 4)
    known = wanted >= 0
    assert found["pixel_accuracy"] == pytest.approx((predicted == wanted)[known].double().mean().item())
    assert meter.pictures()["iou"] == pytest.approx(ious)


def test_merged_meters_of_the_parts_are_the_meter_of_all():
    parts = [drawn(3), drawn(5, seed=1)]
    whole, first, later = TASK.meter(), TASK.meter(), TASK.meter()
    for answer, masks in parts:
        whole.update(answer.float(), masks)
    first.update(parts[0][0].float(), parts[0][1])
    later.update(parts[1][0].float(), parts[1][1])
    first.merge(later)
    first.merge(TASK.meter())
    assert first.compute() == whole.compute()
    assert first.pictures()["iou"] == whole.pictures()["iou"]
    empty = TASK.meter()
    empty.merge(first)
    assert empty.compute() == whole.compute()
    assert set(empty.pictures()["maps"]) <= set(whole.pictures()["maps"])


def test_a_class_that_is_nowhere_has_no_iou():
    meter = TASK.meter()
    answer = torch.zeros(1, 3, 2, 2)
    answer[:, 0] = 1
    meter.update(answer, torch.tensor([[[0, 0], [0, 1]]]))
    assert meter.compute()["miou"] == pytest.approx((0.75 + 0.0) / 2)
    assert meter.pictures()["iou"] == [0.75, 0.0, None]


def test_without_a_pixel_nothing_is_measured():
    meter = TASK.meter()
    assert meter.compute() == {}
    assert meter.pictures() == {}
    meter.update(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), -1))
    assert meter.compute() == {}


def test_half_precision_and_narrow_masks_measure_the_same():
    answer, masks = drawn()
    one, other = TASK.meter(), TASK.meter()
    one.update(answer, masks)
    other.update(answer.bfloat16().double(), masks.to(torch.int8))
    assert one.compute()["miou"] == pytest.approx(other.compute()["miou"], abs=0.05)


def test_masks_as_users_give_them():
    arrays = [np.array([[0, 255], [1, 2]], dtype=np.uint8), np.array([[2, 2], [0, 1]], dtype=np.uint8)]
    expected = torch.tensor([[[0, -1], [1, 2]], [[2, 2], [0, 1]]], dtype=torch.int16)
    assert torch.equal(TASK.read_targets(arrays, where="x"), expected)
    assert torch.equal(TASK.read_targets([Image.fromarray(array) for array in arrays], where="x"), expected)
    assert torch.equal(TASK.read_targets(torch.from_numpy(np.stack(arrays))[:, None], where="x"), expected)
    assert TASK.count_outputs(expected) == 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2], r"takes a mask of whole numbers \[height, width\] a sample"),
        (torch.rand(2, 3, 3), "takes a mask of whole numbers"),
        (torch.full((1, 2, 2), -2), "hold -2: number the classes from 0"),
        (torch.full((1, 2, 2), 700), "hold 700"),
        ([np.zeros((2, 2)), np.zeros((3, 3))], "differ in length|each of one size"),
    ],
)
def test_what_is_no_mask_is_refused(values, said):
    with pytest.raises(UserError, match=said):
        TASK.read_targets(values, where="x")


def test_networks_that_classify_whole_images_are_refused():
    TASK.check_answer((2, 5, 3, 4), 2, 5, who="student", data="toys")
    for shape in ((2, 5), (2, 4, 3, 4)):
        with pytest.raises(UserError, match="have 5 classes: it should be"):
            TASK.check_answer(shape, 2, 5, who="student", data="toys")


def test_masks_move_with_their_images_and_are_ignored_outside():
    augmentation = Augmentation.parse(TASK.augmentation)
    masks = torch.randint(0, 3, (6, 8, 10)).to(torch.int16)
    view = augmentation.sample(torch.Generator().manual_seed(0), 6, (8, 10))
    moved = TASK.under_view(masks, augmentation, view)
    assert moved.dtype == torch.int16
    assert set(moved.unique().tolist()) <= {-1, 0, 1, 2}
    assert torch.equal(moved, augmentation.apply_to_maps(masks, view, outside=-1))
    assert (moved == -1).any()


def test_a_few_answers_are_kept_to_be_drawn():
    meter = TASK.meter()
    for _ in range(5):
        meter.update(torch.randn(3, 4, 6, 8), torch.zeros(3, 6, 8, dtype=torch.long))
    assert list(meter.pictures()["maps"]) == ["1", "2", "4", "8"]
    watched = TASK.meter(detail="watched")
    watched.update(torch.randn(3, 4, 6, 8), torch.zeros(3, 6, 8, dtype=torch.long))
    assert "maps" not in watched.pictures()
