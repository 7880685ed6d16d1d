"""Maps of depths as small files."""

import numpy as np
import pytest
import torch

from tutelage.evaluation.depth_pictures import depth_png, depths_of


def test_depths_come_back_within_one_per_cent_whatever_their_size():
    depths = torch.logspace(-3, 4, 60).view(6, 10)
    found = depths_of(depth_png(depths))
    assert found == pytest.approx(depths.numpy(), rel=5.1e-3)


def test_places_without_a_depth_have_none():
    found = depths_of(depth_png(torch.tensor([[0.0, -1.0, float("nan"), float("inf"), 1e-9, 2.0]])))
    assert np.isnan(found[0, :4]).all()
    assert found[0, 4] == pytest.approx(1e-4), "nearer than the first step"
    assert found[0, 5] == pytest.approx(2.0, rel=6e-3)


def test_large_maps_are_thinned():
    assert depths_of(depth_png(torch.ones(1000, 500))).shape == (250, 125)
