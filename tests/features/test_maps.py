import math

import pytest
import torch
import torch.nn.functional as F

from tutelage.errors import UserError
from tutelage.features.maps import MapLayout, pool_to_smaller, resize


def layout_of(*shape, size=(32, 32)):
    return MapLayout.of(shape, size)


@pytest.mark.parametrize(
    ("shape", "size", "kind"),
    [
        ((2, 64, 8, 8), (32, 32), "map"),
        ((2, 8, 8, 8), (32, 32), "map"),
        ((2, 8, 8, 64), (32, 32), "channels-last"),
        ((2, 7, 6, 96), (224, 192), "channels-last"),
        ((2, 96, 7, 6), (224, 192), "map"),
        ((2, 16, 6, 4), (48, 32), "map"),
        ((2, 64), (32, 32), "vector"),
        ((2, 17, 24), (32, 32), "tokens"),
        ((2, 64, 1, 9), None, "map"),
    ],
)
def test_kind_follows_from_the_shape_and_the_image(shape, size, kind):
    assert MapLayout.of(shape, size).kind == kind


@pytest.mark.parametrize(
    ("tokens", "size", "prefix", "grid"),
    [
        (16, (32, 32), 0, (4, 4)),
        (17, (32, 32), 1, (4, 4)),
        (18, (32, 32), 2, (4, 4)),
        (5, (32, 32), 1, (2, 2)),
        (197, (224, 224), 1, (14, 14)),
        (201, (224, 224), 5, (14, 14)),
        (24, (32, 48), 0, (4, 6)),
        (25, (32, 48), 1, (4, 6)),
        (13, (12, 16), 1, (3, 4)),
        (24, (33, 50), 0, (4, 6)),
        (25, (33, 50), 1, (4, 6)),
        (1, (32, 32), 0, (1, 1)),
    ],
)
def test_tokens_before_the_patches_are_told_apart(tokens, size, prefix, grid):
    layout = layout_of(2, tokens, 3, size=size)
    assert layout.prefix == prefix
    assert layout.to_map(torch.zeros(2, tokens, 3)).shape == (2, 3, *grid)


def test_every_token_is_at_its_place():
    height, width = 2, 3
    tokens = torch.arange(2 * 7 * 4).view(2, 7, 4).float()
    found = layout_of(2, 7, 4, size=(20, 30)).to_map(tokens)
    for row in range(height):
        for column in range(width):
            assert torch.equal(found[:, :, row, column], tokens[:, 1 + row * width + column])


def test_a_sequence_becomes_one_row_whatever_its_length():
    layout = MapLayout.of((2, 9, 4), None)
    assert layout.to_map(torch.zeros(2, 9, 4)).shape == (2, 4, 1, 9)
    assert layout.to_map(torch.zeros(3, 12, 4)).shape == (3, 4, 1, 12)


def test_another_image_size_gives_another_grid():
    layout = layout_of(2, 17, 4)
    assert layout.to_map(torch.zeros(2, 65, 4)).shape == (2, 4, 8, 8)


def test_channels_behind_and_vectors():
    feature = torch.randn(2, 3, 5, 7)
    assert torch.equal(layout_of(2, 3, 5, 7, size=(30, 50)).to_map(feature), feature.permute(0, 3, 1, 2))
    assert torch.equal(layout_of(2, 6).to_map(torch.ones(2, 6)), torch.ones(2, 6, 1, 1))


def test_what_is_no_map_is_refused():
    with pytest.raises(UserError, match=r"\[2, 3, 4, 5, 6\] is neither a map"):
        layout_of(2, 3, 4, 5, 6)


def test_both_maps_come_at_the_smaller_height_and_width():
    one, other = pool_to_smaller(torch.randn(2, 3, 8, 4), torch.randn(2, 5, 4, 6))
    assert one.shape == (2, 3, 4, 4)
    assert other.shape == (2, 5, 4, 4)


def test_pooling_is_the_mean_of_the_places():
    maps = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    found = resize(maps, (2, 3))
    for row in range(2):
        for column in range(3):
            block = maps[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(found[:, :, row, column], block.sum((2, 3)) / 4)


def test_a_smaller_map_is_interpolated():
    maps = torch.randn(2, 3, 4, 4)
    assert torch.equal(resize(maps, (8, 6)), F.interpolate(maps, (8, 6), mode="bilinear", align_corners=False))
    assert resize(maps, (4, 4)) is maps
    assert resize(maps, (8, 2)).shape == (2, 3, 8, 2)
    assert math.isclose(resize(torch.ones(1, 1, 2, 5), (3, 3)).sum().item(), 9, rel_tol=1e-6)
