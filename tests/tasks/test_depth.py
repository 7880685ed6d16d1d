"""Depth against slow loops and known answers."""

import math
import pickle

import numpy as np
import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.data.task import task_named
from tutelage.errors import Notice, UserError
from tutelage.evaluation.depth_pictures import depths_of
from tutelage.models.answers import at_size
from tutelage.tasks.depth import berhu_loss, scale_invariant_loss

TASK = task_named("depth")


def drawn(samples=3, size=(5, 6), seed=0):
    """Return logarithms, and depths of which some are missing in every way that counts as missing."""
    generator = torch.Generator().manual_seed(seed)
    answer = torch.randn(samples, *size, generator=generator, dtype=torch.float64)
    depths = 0.3 + 4 * torch.rand(samples, *size, generator=generator, dtype=torch.float64)
    depths[:, 0, :2] = torch.tensor([0.0, -1.0], dtype=torch.float64)
    return answer, depths


def slow_scale_invariant(answer, depths, invariance):
    """Eq. 4 of Eigen et al., one pixel after the other, and its gradient by hand."""
    losses, gradient = [], torch.zeros_like(answer)
    for sample in range(len(answer)):
        places = [place for place in np.ndindex(*answer.shape[1:]) if depths[sample][place] > 0]
        if not places:
            continue
        gaps = {place: float(answer[sample][place]) - math.log(float(depths[sample][place])) for place in places}
        n, total = len(gaps), sum(gaps.values())
        losses.append(sum(gap**2 for gap in gaps.values()) / n - invariance * total**2 / n**2)
        for place, gap in gaps.items():
            gradient[sample][place] = 2 * gap / n - 2 * invariance * total / n**2
    return sum(losses) / len(losses), gradient / len(losses)


def slow_berhu(answer, depths):
    """Eq. 1 of Laina et al., one pixel after the other, and its gradient by hand."""
    places = [place for place in np.ndindex(*answer.shape) if depths[place] > 0]
    errors = {place: math.exp(float(answer[place])) - float(depths[place]) for place in places}
    bend = max(map(abs, errors.values())) / 5
    total, gradient = 0.0, torch.zeros_like(answer)
    for place, error in errors.items():
        near = abs(error) <= bend
        total += abs(error) if near else (error**2 + bend**2) / (2 * bend)
        gradient[place] = (math.copysign(1, error) if near else error / bend) * math.exp(float(answer[place]))
    return total / len(places), gradient / len(places)


@pytest.mark.parametrize("invariance", [0.0, 0.5, 1.0])
def test_the_scale_invariant_loss_is_that_of_the_slow_loop(invariance):
    answer, depths = drawn()
    depths[1] = 0
    answer.requires_grad_()
    loss = scale_invariant_loss(answer, depths, invariance)
    value, gradient = slow_scale_invariant(answer.detach(), depths, invariance)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, answer)[0], gradient)


def test_the_berhu_loss_is_that_of_the_slow_loop():
    answer, depths = drawn()
    answer.requires_grad_()
    loss = berhu_loss(answer, depths)
    value, gradient = slow_berhu(answer.detach(), depths)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, answer)[0], gradient)


def test_known_answers():
    depths = torch.tensor([[[1.0, 2.0, 4.0]]], dtype=torch.float64)
    doubled = (2 * depths).log()
    assert scale_invariant_loss(doubled, depths, 1.0).item() == pytest.approx(0.0, abs=1e-12), "a factor is not seen"
    assert scale_invariant_loss(doubled, depths).item() == pytest.approx(math.log(2) ** 2 / 2)
    # Errors 1, 2 and 4, bend 0.8: (1 + .64 + 4 + .64 + 16 + .64) / 1.6 / 3.
    assert berhu_loss(doubled, depths).item() == pytest.approx(22.92 / 4.8)
    assert berhu_loss(depths.log(), depths).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("loss", [scale_invariant_loss, berhu_loss])
def test_maps_without_a_depth_teach_nothing_and_missing_places_do_not_matter(loss):
    answer = torch.randn(2, 4, 4, requires_grad=True)
    found = loss(answer, torch.zeros(2, 4, 4))
    found.backward()
    assert found.item() == 0
    assert not answer.grad.any()
    answer, depths = drawn()
    wild = answer.clone()
    # Even where the exponential overflows.
    wild[depths <= 0] = 1e6
    wild.requires_grad_()
    one = loss(wild, depths)
    assert one == loss(answer, depths)
    gradient = torch.autograd.grad(one, wild)[0]
    assert torch.isfinite(gradient).all()
    assert not gradient[depths <= 0].any()


def slow_metrics(parts):
    pairs = [
        (min(max(math.exp(found), 1e-3), 1e4), wanted)
        for answer, depths in parts
        for found, wanted in zip(answer.flatten().tolist(), depths.flatten().tolist(), strict=True)
        if wanted > 0
    ]
    n = len(pairs)
    ratios = [max(found / wanted, wanted / found) for found, wanted in pairs]
    return {
        "abs_rel": sum(abs(found - wanted) / wanted for found, wanted in pairs) / n,
        "rmse": math.sqrt(sum((found - wanted) ** 2 for found, wanted in pairs) / n),
        "log10": sum(abs(math.log10(found) - math.log10(wanted)) for found, wanted in pairs) / n,
        **{f"delta{power}": sum(ratio < 1.25**power for ratio in ratios) / n for power in (1, 2, 3)},
    }


def test_the_metrics_are_those_of_all_pixels_whatever_the_sizes_and_the_order():
    parts = [drawn(3), drawn(2, size=(9, 4), seed=1), drawn(1, size=(2, 3), seed=2)]
    parts[1][0][0, 0, 3] = 50.0
    whole, first, later = TASK.meter(), TASK.meter(), TASK.meter()
    for answer, depths in parts:
        whole.update(answer[:, None], depths)
    assert whole.compute() == pytest.approx(slow_metrics(parts), rel=1e-12)
    assert list(whole.compute()) == list(TASK.metrics)
    first.update(parts[0][0][:, None], parts[0][1])
    for answer, depths in parts[1:]:
        later.update(answer[:, None], depths)
    first.merge(later)
    first.merge(TASK.meter())
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
    assert not TASK.metrics["abs_rel"].higher_is_better


def test_coarse_answers_are_brought_to_the_maps():
    answer, depths = drawn(size=(8, 8))
    coarse = answer[:, None, ::2, ::2]
    whole = at_size(coarse, (8, 8))
    assert TASK.criterion.loss(coarse, depths) == TASK.criterion.loss(whole, depths)
    one, other = TASK.meter(), TASK.meter()
    one.update(coarse, depths)
    other.update(whole, depths)
    assert one.compute() == other.compute()


def test_without_a_depth_nothing_is_measured():
    meter = TASK.meter()
    meter.update(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2))
    assert meter.compute() == {}


def test_a_few_answers_are_kept_in_metres():
    meter = TASK.meter()
    meter.update(torch.full((3, 1, 6, 8), math.log(2.0)), torch.ones(3, 6, 8))
    assert list(meter.pictures()["maps"]) == ["0", "1", "2"]
    assert depths_of(meter.pictures()["maps"]["2"]) == pytest.approx(np.full((6, 8), 2.0), rel=6e-3)
    assert "maps" not in TASK.meter(detail="watched").pictures()


def test_two_networks_differ_by_their_logarithms_and_several_agree_on_the_geometric_mean():
    one, other = torch.full((2, 1, 3, 4), math.log(2.0)), torch.full((2, 1, 3, 4), math.log(8.0))
    assert TASK.criterion.divergence(one, other, 4.0).item() == pytest.approx(math.log(4) ** 2)
    assert TASK.criterion.mean(torch.stack([one, other])).exp() == pytest.approx(torch.full((2, 1, 3, 4), 4.0))
    with pytest.raises(ValueError, match="shape"):
        TASK.criterion.divergence(one, other[:1])


def test_what_is_enlarged_is_nearer():
    """With the same lens, a thing looks twice as large at half the distance (Eigen et al., section 3.3)."""
    depths = torch.full((3, 8, 8), 2.0)
    depths[:, :, 0] = 0
    augmentation = Augmentation.parse("scale:1:2,flip,colour")
    view = augmentation.sample(torch.Generator().manual_seed(0), 3, (8, 8))
    zoom = 1 / view[:, 2]
    assert torch.equal(augmentation.zoom(view), zoom)
    moved = TASK.under_view(depths, augmentation, view)
    for sample in range(3):
        assert set(moved[sample].unique().tolist()) <= {0.0, (2 / zoom[sample]).item()}
    still = Augmentation.parse("crop:1,flip,rotate:20")
    view = still.sample(torch.Generator().manual_seed(0), 3, (8, 8))
    assert set(TASK.under_view(depths, still, view).unique().tolist()) == {0.0, 2.0}


def test_depths_as_users_give_them():
    values = [np.array([[1.5, np.nan], [-1.0, np.inf]]), np.array([[0.0, 2.0], [3.0, 4.0]])]
    expected = torch.tensor([[[1.5, 0], [0, 0]], [[0, 2], [3, 4]]])
    assert torch.equal(TASK.read_targets(values, where="x"), expected)
    assert torch.equal(TASK.read_targets(np.stack(values)[:, None], where="x"), expected)
    assert torch.equal(TASK.read_targets(torch.from_numpy(np.stack(values))[..., None], where="x"), expected)
    assert TASK.count_outputs(expected) == 1
    with pytest.warns(Notice, match="a median of 2,000 metres, so their unit may be another one: give metres"):
        TASK.count_outputs(expected * 1000)
    with pytest.raises(UserError, match="hold no depth: all numbers are 0"):
        TASK.count_outputs(torch.zeros(2, 2, 2))


@pytest.mark.parametrize("values", [torch.ones(2, 3, 3, dtype=torch.int32), torch.ones(4), torch.ones(2, 3, 3, 3)])
def test_what_is_no_depth_is_refused(values):
    with pytest.raises(UserError, match=r"takes a map of fractions \[height, width\] a sample, in metres"):
        TASK.read_targets(values, where="x")


def test_networks_of_other_answers_are_refused():
    TASK.check_answer((2, 1, 3, 4), 2, 1, who="student", data="toys")
    for shape in ((2, 1), (2, 3, 3, 4)):
        with pytest.raises(UserError, match="has one depth for each pixel: it should be"):
            TASK.check_answer(shape, 2, 1, who="student", data="toys")


def test_the_loss_is_an_option_and_makes_it_another_training():
    other = task_named("depth,loss=berhu")
    answer, depths = drawn()
    assert other.criterion.loss(answer[:, None], depths) == berhu_loss(answer, depths)
    assert TASK.criterion.loss(answer[:, None], depths) == scale_invariant_loss(answer, depths)
    assert other.salt != TASK.salt
    again = pickle.loads(pickle.dumps(other))
    assert again.criterion.loss(answer[:, None], depths) == berhu_loss(answer, depths)
    with pytest.raises(UserError, match="no loss of the task depth named 'huber'. Did you mean 'berhu'"):
        task_named("depth,loss=huber")
    with pytest.raises(UserError, match="no option of the task depth named 'los'"):
        task_named("depth,los=berhu")
    with pytest.raises(UserError, match="The task regression has no options: leave out loss"):
        task_named("regression,loss=mae")
