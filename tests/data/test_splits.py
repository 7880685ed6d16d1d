import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.splits import hold_out, thin_out
from tutelage.errors import UserError

TARGETS = np.repeat(np.arange(5), [100, 50, 30, 15, 5])


def test_each_class_keeps_its_share():
    kept, held = hold_out(TARGETS, 0.2, seed=0, what="validation")
    assert np.bincount(TARGETS[held]).tolist() == [20, 10, 6, 3, 1]
    assert np.bincount(TARGETS[kept]).tolist() == [80, 40, 24, 12, 4]
    assert sorted([*kept, *held]) == list(range(200))


def test_the_seed_alone_decides():
    first, again, other = (hold_out(TARGETS, 0.2, seed=seed, what="test")[1] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_split_is_whole_and_fair(sizes, fraction, seed):
    targets = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    try:
        kept, held = hold_out(targets, fraction, seed=seed, what="validation")
    except UserError:
        return
    assert sorted([*kept, *held]) == list(range(len(targets)))
    assert len(held) == round(len(targets) * fraction)
    assert set(targets[kept]) == set(targets)
    assert (np.diff(held) > 0).all()
    counts = np.bincount(targets[held], minlength=len(sizes))
    assert all(count >= 1 for count, size in zip(counts, sizes) if size > 1)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 100))
def test_a_subset_has_every_class(sizes, count):
    targets = np.repeat(np.arange(len(sizes)), sizes)
    if not len(sizes) <= count <= len(targets):
        with pytest.raises(UserError, match="subset"):
            thin_out(targets, count, seed=0)
        return
    chosen = thin_out(targets, count, seed=0)
    assert len(set(chosen)) == count
    assert set(targets[chosen]) == set(targets)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2.0])
def test_senseless_fractions_are_refused(fraction):
    with pytest.raises(UserError, match="between 0 and 1"):
        hold_out(TARGETS, fraction, seed=0, what="validation")


def test_too_few_samples_for_the_classes_name_a_fraction_that_works():
    with pytest.raises(UserError, match=r"between 0\.03 and 0\.97"):
        hold_out(TARGETS, 0.01, seed=0, what="validation")
    hold_out(TARGETS, 0.03, seed=0, what="validation")
    with pytest.raises(UserError, match="more images"):
        hold_out(np.arange(6), 0.5, seed=0, what="test")
