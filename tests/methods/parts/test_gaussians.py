import pytest
import torch

from tutelage.errors import UserError
from tutelage.methods.parts.gaussians import cells, projected_by, wkd_feature_loss

OURS = torch.tensor([[[[1, 2], [3, 4]], [[0, 0], [0, 4]]]], dtype=torch.float64)
THEIRS = torch.tensor([[[[2, 2], [2, 2]], [[1, 3], [1, 3]]]], dtype=torch.float64)


def slow_loss(ours, theirs, mean_weight, grid, ddof, eps=1e-5):
    """One sample, cell and channel at a time, the cells by the windows of adaptive pooling."""
    total, count = 0.0, 0
    for b in range(len(ours)):
        for y in range(grid):
            for x in range(grid):
                count += 1
                for c in range(ours.shape[1]):
                    stats = []
                    for maps in (ours, theirs):
                        h, w = maps.shape[2:]
                        down = range(y * h // grid, -(-(y + 1) * h // grid))
                        across = range(x * w // grid, -(-(x + 1) * w // grid))
                        values = [maps[b, c, i, j].item() for i in down for j in across]
                        mean = sum(values) / len(values)
                        variance = sum((v - mean) ** 2 for v in values) / max(1, len(values) - ddof)
                        stats.append((mean, (variance + eps) ** 0.5))
                    (m, s), (other_m, other_s) = stats
                    total += mean_weight * (m - other_m) ** 2 + (s - other_s) ** 2
    return total / count


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"mean_weight": 1, "ddof": 1}, 1.25 + 2.3730497622),
        ({"mean_weight": 0, "ddof": 1}, 2.3730497622),
        ({"mean_weight": 2, "ddof": 1}, 4.8730497622),
        ({"mean_weight": 0, "ddof": 0, "eps": 0.0}, 1.7858983849),
    ],
)
def test_known_answers(options, value):
    assert wkd_feature_loss(OURS, THEIRS, **options).item() == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(("size", "other", "grid"), [((4, 6), (4, 6), 2), ((5, 7), (4, 4), 3), ((4, 4), (8, 8), 1)])
def test_value_and_gradient_are_the_slow_loops(ddof, size, other, grid):
    torch.manual_seed(0)
    ours = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    theirs = torch.randn(2, 3, *other, dtype=torch.float64, requires_grad=True)
    loss = wkd_feature_loss(ours, theirs, 2.5, grid, ddof=ddof)
    assert loss.item() == pytest.approx(slow_loss(ours, theirs, 2.5, grid, ddof), rel=1e-12)
    gradient, none = torch.autograd.grad(loss, [ours, theirs], allow_unused=True)
    assert none is None
    for place in [(0, 0, 0, 0), (1, 2, 3, 3), (0, 1, 2, 1)]:
        sides = []
        for sign in (1, -1):
            moved = ours.detach().clone()
            moved[place] += sign * 1e-6
            sides.append(slow_loss(moved, theirs, 2.5, grid, ddof))
        assert gradient[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(("size", "grid"), [((1, 1), 1), ((1, 1), 4), ((4, 4), 4), ((2, 2), 8)])
def test_cells_of_one_place_have_no_deviation(ddof, size, grid):
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 3, *size, requires_grad=True), torch.randn(2, 3, *size)
    loss = wkd_feature_loss(ours, theirs, 1.0, grid, ddof=ddof)
    # Only the means are left, cell by cell.
    torch.testing.assert_close(loss, (ours - theirs).square().sum(1).mean())
    assert torch.autograd.grad(loss, ours)[0].isfinite().all()


def test_places_of_a_cell_may_change_places_and_equal_maps_cost_nothing():
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    order = torch.randperm(16)
    moved = ours.flatten(2)[:, :, order].view_as(ours)
    torch.testing.assert_close(wkd_feature_loss(moved, theirs), wkd_feature_loss(ours, theirs))
    assert wkd_feature_loss(moved, theirs, grid=2) != wkd_feature_loss(ours, theirs, grid=2)
    assert wkd_feature_loss(ours, ours, grid=4).item() == 0


def test_cells_are_the_windows_of_adaptive_pooling():
    maps = torch.randn(2, 3, 7, 5)
    means = torch.stack([cell.mean((2, 3)) for cell in cells(maps, 4, 2)], 2)
    torch.testing.assert_close(means, torch.nn.functional.adaptive_avg_pool2d(maps, (4, 2)).flatten(2))


def test_padding_takes_no_part():
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 3, 1, 7), torch.randn(2, 3, 1, 7)
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, :, :, 4:] = False
    parts = [wkd_feature_loss(ours[:1], theirs[:1]), wkd_feature_loss(ours[1:, :, :, :4], theirs[1:, :, :, :4])]
    torch.testing.assert_close(wkd_feature_loss(ours, theirs, mask=mask), sum(parts) / 2)
    with pytest.raises(UserError, match="grid=1"):
        wkd_feature_loss(ours, theirs, grid=2, mask=mask)


@pytest.mark.parametrize(("kind", "channels", "parameters"), [("conv", 256, 66_304), ("bottleneck", 512, 854_016)])
def test_projectors_have_the_published_parameters(kind, channels, parameters):
    projector = projected_by(kind, channels, channels, final_relu=True)
    assert sum(parameter.numel() for parameter in projector.parameters()) == parameters
    assert isinstance(projector[-1], torch.nn.ReLU)
    assert not isinstance(projected_by(kind, 4, 5, final_relu=False)[-1], torch.nn.ReLU)
