"""One batch: reproducible, stopped and continued at any iteration, in 8 bits."""

import pytest
import torch

from tutelage.synthesis.objective import Objective
from tutelage.synthesis.optimizing import in_bytes, optimize, started
from tutelage.synthesis.settings import Settings


def settings_of(**given):
    usual = {"iterations": 6, "copies": 2, "batch_size": 4}
    return Settings.of("bn-statistics+inception", **{**usual, **given})


def run(subject, settings, state=None, heed=lambda state: None):
    state = started(subject, settings, 1, 4) if state is None else state
    targets = torch.arange(4)
    return optimize(state, Objective(subject, settings), subject, settings, batch=1, targets=targets, heed=heed)


class Stop(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_batch_that_was_stopped_ends_as_one_that_was_not(subject, optimizer):
    settings = settings_of(optimizer=optimizer, snapshots=(2, 5))
    whole = run(subject, settings)
    kept = []

    def heed(state):
        if state.iteration == 3:
            kept.append(state)
            raise Stop

    with pytest.raises(Stop):
        run(subject, settings, heed=heed)
    resumed = run(subject, settings, state=kept[0])
    assert torch.equal(whole.images, resumed.images)
    assert whole.curve == resumed.curve
    assert whole.snapshots.keys() == resumed.snapshots.keys() == {2, 5}
    assert torch.equal(whole.snapshots[5], resumed.snapshots[5])
    assert not torch.equal(whole.snapshots[2], whole.snapshots[5])


def test_the_losses_fall_and_every_loss_has_a_curve(subject):
    settings = settings_of(iterations=40, copies=1, augment="none")
    curve = run(subject, settings).curve
    assert curve[0].keys() == {"iteration", "loss", "statistics", "class", "smoothness"}
    assert [curve[0]["iteration"], curve[-1]["iteration"]] == [1, 40]
    for name in ("loss", "statistics", "smoothness"):
        assert curve[-1][name] < 0.8 * curve[0][name]


def test_batches_and_seeds_differ_and_the_network_does_not_move(subject):
    settings = settings_of()
    before = {name: value.clone() for name, value in subject.network.state_dict().items()}
    one, same = run(subject, settings), run(subject, settings)
    assert torch.equal(one.images, same.images)
    assert not torch.equal(started(subject, settings, 0, 4).images, started(subject, settings, 1, 4).images)
    assert not torch.equal(one.images, run(subject, settings_of(seed=1)).images)
    assert not torch.equal(one.images, run(subject, settings_of(jitter=2)).images)
    after = subject.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_images_stay_among_the_colours_that_there_are(subject):
    settings = settings_of(lr=5.0)
    pixels = subject.pixels(run(subject, settings).images)
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    # What is stored is what the network would see.
    stored = in_bytes(subject, subject.normalized(pixels))
    assert (stored.float() / 255 - pixels).abs().max() <= 0.5 / 255 + 1e-6


def test_noise_has_the_statistics_of_the_networks_images(subject):
    noise = started(subject, Settings.of("gaussian"), 0, 400).images
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    # A little less than 1: what is below black or above white is clamped.
    assert noise.std().item() == pytest.approx(0.96, abs=0.03)


def test_the_network_sees_256_levels_and_the_gradient_passes(subject):
    seen = []

    class Listening(Objective):
        def __call__(self, images, views, targets):
            seen.append(views.detach())
            return super().__call__(images, views, targets)

    for rounding in (True, False):
        settings = settings_of(iterations=1, copies=1, augment="none", rounding=rounding)
        state = started(subject, settings, 0, 4)
        before = state.images.clone()
        targets, objective = torch.arange(4), Listening(subject, settings)
        state = optimize(state, objective, subject, settings, batch=0, targets=targets, heed=lambda state: None)
        assert not torch.equal(state.images, before)
    levels = [(255 * views - (255 * views).round()).abs().max().item() for views in seen]
    assert levels[0] < 1e-3
    assert levels[1] > 0.4
