"""Weights of pixels against slow loops."""

import math

import pytest
import torch

from tutelage.data.pixel_weights import PixelWeighing, median_frequency_weights, weighed_cross_entropy
from tutelage.data.task import task_named
from tutelage.data.wrap import as_data
from tutelage.errors import UserError

WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64)


def drawn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 3, 5, generator=generator, dtype=torch.float64)
    return logits, torch.randint(-1, 4, (3, 3, 5), generator=generator)


def slow(logits, targets, weights, kept):
    """Return the loss and its gradient, one pixel after the other."""
    pixels = []
    for sample, row, column in torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.arange(5)).tolist():
        wanted = int(targets[sample, row, column])
        if wanted < 0:
            continue
        scores = logits[sample, :, row, column].tolist()
        whole = sum(map(math.exp, scores))
        pixels.append(
            (math.log(whole) - scores[wanted], wanted, (sample, row, column), [math.exp(s) / whole for s in scores])
        )
    pixels = sorted(pixels, key=lambda pixel: -pixel[0])[: math.ceil(kept * len(pixels))]
    total = sum(float(weights[wanted]) for _, wanted, _, _ in pixels)
    gradient = torch.zeros_like(logits)
    for _, wanted, (sample, row, column), shares in pixels:
        for number, share in enumerate(shares):
            gradient[sample, number, row, column] = float(weights[wanted]) * (share - (number == wanted)) / total
    return sum(float(weights[wanted]) * loss for loss, wanted, _, _ in pixels) / total, gradient


@pytest.mark.parametrize("kept", [1.0, 0.3, 0.01])
@pytest.mark.parametrize("weights", [None, WEIGHTS + 0.1])
def test_the_loss_is_that_of_the_slow_loop(weights, kept):
    logits, targets = drawn()
    logits.requires_grad_()
    loss = weighed_cross_entropy(logits, targets, weights=weights, kept=kept)
    value, gradient = slow(logits.detach(), targets, torch.ones(4) if weights is None else weights, kept)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], gradient)


def test_without_labels_or_with_weights_of_zero_nothing_is_learned():
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    for targets in (torch.full((2, 3, 3), -1), torch.full((2, 3, 3), 3)):
        loss = weighed_cross_entropy(logits, targets, weights=WEIGHTS, kept=0.5)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == 0
        assert not gradient.any()


def test_median_frequencies():
    masks = torch.tensor([[[0, 0, 0, 1]], [[0, 0, -1, 2]], [[2, 2, 2, 2]]])
    # 5 of 7, 1 of 4, and 5 of 7 labelled pixels of the images that show the class; the last one is nowhere.
    assert median_frequency_weights(iter([masks]), 4) == pytest.approx((1.0, (5 / 7) / 0.25, 1.0, 1.0))
    two = median_frequency_weights(iter([masks[:1]]), 2)
    assert two == pytest.approx((0.5 / 0.75, 0.5 / 0.25)), "of two, the mean of both is the median"


def test_the_task_takes_them_as_options_from_its_own_masks():
    images, masks = torch.rand(6, 3, 4, 4), torch.zeros(6, 4, 4, dtype=torch.long)
    masks[:, 0] = 1
    data = as_data(
        list(zip(images, masks, strict=True)), task="segmentation,class_weights=balanced,ohem=0.5", hold_out=0
    )
    logits = torch.randn(6, 2, 4, 4)
    weights = torch.tensor([0.5 / 0.75, 0.5 / 0.25])
    expected = weighed_cross_entropy(logits, masks, weights=weights, kept=0.5)
    assert next(iter(data.loader("train", train=False, batch_size=6).epoch(0))).loss(logits) == pytest.approx(expected)
    plain = as_data(list(zip(images, masks, strict=True)), task="segmentation", hold_out=0)
    assert plain.fingerprint != data.fingerprint
    assert task_named("segmentation,ohem=1").salt == plain.task.salt
    with pytest.raises(UserError, match="3 class_weights for 2 classes"):
        as_data(list(zip(images, masks, strict=True)), task="segmentation,class_weights=1+2+3")
    with pytest.raises(UserError, match="come from a DataLoader or are none"):
        task_named("segmentation,class_weights=balanced").criterion.loss(logits, masks)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ohem": "0"}, "above 0 and at most 1"),
        ({"ohem": "half"}, "above 0 and at most 1"),
        ({"class_weights": "1+x"}, "write balanced, or a number"),
        ({"class_weights": "0+0"}, "write balanced, or a number"),
        ({"class_weight": "1"}, "Did you mean 'class_weights'"),
    ],
)
def test_other_options_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        PixelWeighing.parse(options)
