"""Padding is no place: means, batch norms and convolutions of padded maps are those of maps cut to their length."""

import copy

import pytest
import torch
from torch import nn

from tutelage.core.pairing import LayerPair
from tutelage.data.batch import Output
from tutelage.errors import UserError
from tutelage.features.anatomy import EMBEDDING, Tap, classified, stages
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.maps import MapLayout
from tutelage.features.padding import (
    image_size,
    mean_of_squares,
    mean_over_places,
    places,
    through,
    valid_tokens,
    without_padding,
)
from tutelage.models.zoo.resnet import Residual
from tutelage.models.zoo.units import conv_norm

LENGTHS = (5, 3, 1)


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def mask_of(lengths=LENGTHS, tokens=5):
    return (torch.arange(tokens) < torch.tensor(lengths)[:, None])[:, None, None, :]


def cut(maps, lengths=LENGTHS):
    """Return each sample without its padding, `[1, channel, 1, length]`."""
    return [one[None, :, :, :length] for one, length in zip(maps, lengths, strict=True)]


@pytest.fixture
def maps():
    # What stands where padding is must not matter, not even where it is no number.
    maps = torch.randn(3, 4, 1, 5)
    return maps.masked_fill(~mask_of(), torch.nan).requires_grad_()


def test_the_mean_is_over_the_places_of_each_sample(maps):
    found = mean_over_places(maps, mask_of())
    torch.testing.assert_close(found, torch.cat([one.mean((2, 3)) for one in cut(maps)]))
    (gradient,) = torch.autograd.grad(found.sum(), maps)
    expected = torch.where(mask_of(), 1 / torch.tensor(LENGTHS).view(3, 1, 1, 1), 0.0).expand_as(maps)
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(mean_over_places(torch.ones(2, 3, 4, 5), None), torch.ones(2, 3))
    half = mean_over_places(maps.detach().to(torch.bfloat16), mask_of())
    assert half.dtype == torch.bfloat16


def test_the_mean_of_squares_weighs_each_sample_the_same(maps):
    expected = torch.stack([one.square().mean((0, 2, 3)) for one in cut(maps)]).mean(0)
    torch.testing.assert_close(mean_of_squares(maps, mask_of()), expected)


def test_a_sample_without_a_place_has_a_mean_of_zero():
    mask = mask_of((2, 0))
    assert places(mask).tolist() == [2, 1]
    assert mean_over_places(torch.ones(2, 3, 1, 5), mask)[1].tolist() == [0, 0, 0]
    assert without_padding(torch.ones(2, 1, 1, 5), mask).sum() == 2


def adapters():
    norm = nn.BatchNorm2d(4)
    block = nn.Sequential(conv_norm(4, 6, 3), conv_norm(6, 6, 3, activation=None))
    return {
        "norm": norm,
        "convolution": nn.Conv2d(4, 6, 3, padding=1),
        "wide": nn.Conv2d(4, 6, (1, 5), padding="same", dilation=(1, 2)),
        "sequence": nn.Sequential(conv_norm(4, 6, 1), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.LeakyReLU()),
        "residual": nn.Sequential(Residual(block, 4, 6, 1), nn.Identity()),
    }


def rows(maps, mask):
    return maps.movedim(1, 3)[mask[:, 0]]


@pytest.mark.parametrize("name", adapters())
@pytest.mark.parametrize("mode", [True, False])
def test_more_padding_changes_nothing_behind_an_adapter(name, mode):
    module = adapters()[name].train(mode)
    twin = copy.deepcopy(module)
    short = torch.randn(3, 4, 1, 5)
    long = torch.cat([short, torch.randn(3, 4, 1, 4)], 3)
    found = []
    for adapter, maps, mask in ((module, short, mask_of()), (twin, long, mask_of(tokens=9))):
        maps = maps.clone().requires_grad_()
        values = rows(through(adapter, maps, mask), mask)
        wanted = [maps, *adapter.parameters()]
        weights = torch.arange(values.numel()).view_as(values).cos()
        gradients = torch.autograd.grad((values * weights).sum(), wanted)
        # Whatever stands there, no gradient reaches padding.
        assert not gradients[0].masked_select(~mask).any()
        found.append([values, rows(gradients[0], mask), *gradients[1:], *adapter.buffers()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_convolution_ends_with_the_last_token_and_a_batch_norm_counts_tokens():
    maps, mask = torch.randn(3, 4, 1, 5), mask_of()
    convolution, norm = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(4)
    found = through(convolution, maps, mask)
    for one, expected in zip(cut(found), [convolution(part) for part in cut(maps)], strict=True):
        torch.testing.assert_close(one, expected)
    tokens = rows(maps, mask)
    expected = (tokens - tokens.mean(0)) / (tokens.var(0, unbiased=False) + norm.eps).sqrt()
    torch.testing.assert_close(rows(through(norm, maps, mask), mask), expected)
    torch.testing.assert_close(norm.running_mean, 0.1 * tokens.mean(0))
    # Without padding it is the batch norm itself.
    whole = torch.ones_like(mask)
    torch.testing.assert_close(through(norm.eval(), maps, whole), norm(maps))
    assert torch.equal(through(norm, maps, None), norm(maps))


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Sequential(nn.Identity(), nn.Linear(5, 5)),
    ],
    ids=repr,
)
def test_what_would_mix_places_with_padding_is_refused(module):
    with pytest.raises(UserError, match="padding cannot be left out here: a .* changes the size of its map"):
        through(module, torch.randn(3, 4, 1, 5), mask_of())


# Which inputs have padding.


def test_padding_is_what_the_attention_mask_says_and_images_have_none():
    mask, ids, images = torch.ones(2, 5), torch.ones(2, 5, dtype=torch.long), torch.ones(2, 3, 4, 6)
    assert valid_tokens({"input_ids": ids, "attention_mask": mask}) is mask
    assert valid_tokens({"input_ids": ids}) is None
    assert valid_tokens({"input_ids": ids, "attention_mask": None}) is None
    assert valid_tokens({"pixel_values": images, "attention_mask": mask}) is None
    assert valid_tokens(images) is None
    assert image_size({"pixel_values": images}) == (4, 6)
    assert image_size({"input_ids": ids, "attention_mask": torch.ones(2, 1, 5, 5)}) is None


def test_a_map_of_tokens_has_a_mask_and_a_vector_none():
    valid = torch.tensor([[1, 1, 0], [0, 1, 1]])
    tokens = MapLayout.of((2, 3, 8), None)
    found = tokens.mask(torch.zeros(2, 3, 8), valid)
    assert found.dtype == torch.bool
    assert found.shape == (2, 1, 1, 3)
    assert found[:, 0, 0].tolist() == [[True, True, False], [False, True, True]]
    assert tokens.mask(torch.zeros(2, 3, 8), None) is None
    assert MapLayout.of((2, 8), None).mask(torch.zeros(2, 8), valid) is None


@pytest.mark.parametrize(("shape", "mask"), [((2, 4, 8), (2, 3)), ((2, 4, 3, 3), (2, 3)), ((2, 3, 8), (2, 1, 3, 3))])
def test_an_output_with_other_places_than_tokens_is_refused(shape, mask):
    with pytest.raises(UserError, match="does not have one place for each token"):
        MapLayout.of(shape, None).mask(torch.zeros(shape), torch.ones(mask))


class Words(nn.Module):
    """Attends within the tokens, shortens them, and classifies their mean."""

    def __init__(self):
        super().__init__()
        self.words, self.mix, self.norm = nn.Embedding(9, 8), nn.Linear(8, 8), nn.LayerNorm(8)
        self.weights, self.shorten, self.head = nn.Identity(), nn.Conv1d(8, 8, 2, stride=2), nn.Linear(8, 3)
        self.scores = nn.Conv2d(1, 1, 1)

    def forward(self, input_ids, attention_mask):
        hidden = self.norm(self.mix(self.words(input_ids)))
        self.scores((hidden @ hidden.mT)[:, None])
        self.shorten(hidden.mT)
        mask = attention_mask[:, :, None]
        return self.head((hidden * mask).sum(1) / mask.sum(1))


def words(lengths=LENGTHS):
    mask = mask_of(lengths)[:, 0, 0].long()
    return {"input_ids": torch.randint(9, mask.shape) * mask, "attention_mask": mask}


def test_of_a_padded_text_only_layers_with_a_place_for_each_token_are_stages():
    found = stages(Words(), words())
    assert [tap.layer for tap in found] == ["norm"]
    with pytest.raises(UserError, match="'shorten' cannot be compared with another. These inputs are padded"):
        Tap.of("shorten", torch.zeros(3, 8, 2), words())


def test_the_classified_map_is_the_one_whose_mean_over_tokens_is_classified():
    network, example = Words(), words()
    tap = classified(network, example)
    assert tap.layer == "norm"
    output = FeatureExtractor(network, ["norm", EMBEDDING], example=example)(example)
    mask = tap.mask(output)
    torch.testing.assert_close(mean_over_places(tap.map(output), mask), output.features[EMBEDDING])
    # It is not the mean over all places.
    assert not torch.allclose(tap.map(output).mean((2, 3)), output.features[EMBEDDING])


def test_tokens_beside_images_may_be_either():
    example = {"pixel_values": torch.zeros(2, 3, 32, 32), "attention_mask": torch.ones(2, 16)}
    assert Tap.of("patches", torch.zeros(2, 64, 8), example).size == (8, 8)
    with pytest.raises(UserError, match="tokens may belong to either"):
        Tap.of("tokens", torch.zeros(2, 16, 8), example)


# Two networks at the same places.


def pair_of(one, other, example):
    return LayerPair(Tap.of("one", one, example), Tap.of("other", other, example))


def test_maps_are_compared_at_the_places_of_both():
    example, one, other = words(), torch.randn(3, 5, 8), torch.randn(3, 5, 4)
    pair = pair_of(one, other, example)
    outputs = [
        Output(logits=torch.zeros(3, 2), features={"one": one, "other": other}, valid=valid)
        for valid in (example["attention_mask"], example["attention_mask"].roll(1, 0))
    ]
    found = pair.compared(*outputs)
    assert found.student.shape == (3, 8, 1, 5)
    assert torch.equal(found.mask, mask_of() & mask_of().roll(1, 0))
    whole = [Output(logits=out.logits, features=out.features) for out in outputs]
    assert pair.compared(*whole).mask is None
    with pytest.raises(UserError, match="have different places"):
        pair.compared(outputs[0], whole[1])


def test_beside_a_vector_tokens_become_their_mean():
    example, one, other = words(), torch.randn(3, 5, 8), torch.randn(3, 8)
    output = Output(logits=torch.zeros(3, 2), features={"one": one, "other": other}, valid=example["attention_mask"])
    found = pair_of(one, other, example).compared(output, output)
    assert found.mask is None
    expected = mean_over_places(one.mT[:, :, None], mask_of())
    torch.testing.assert_close(found.student, expected[:, :, None, None])
    assert torch.equal(found.teacher, other[:, :, None, None])
