import math

import pytest
from scipy import stats

from tutelage.experiments.statistics import paired_difference, summary

METHOD, BASELINE = [0.71, 0.74, 0.72, 0.75, 0.70], [0.69, 0.71, 0.72, 0.70, 0.68]


def test_summary_by_hand():
    mean = sum(METHOD) / 5
    std = math.sqrt(sum((value - mean) ** 2 for value in METHOD) / 4)
    assert summary(METHOD) == {"mean": pytest.approx(mean), "std": pytest.approx(std), "n": 5}


def test_one_value_has_no_spread():
    assert summary([0.5]) == {"mean": 0.5, "std": None, "n": 1}
    assert paired_difference([0.5], [0.25]) == {"mean": 0.25, "low": None, "high": None, "n": 1}


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_interval_is_that_of_scipys_paired_test(level, count):
    values, base = METHOD[:count], BASELINE[:count]
    found = paired_difference(values, base, level=level)
    expected = stats.ttest_rel(values, base).confidence_interval(level)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found["mean"] == pytest.approx((found["low"] + found["high"]) / 2, rel=1e-9)
    assert found["n"] == count


def test_default_level_is_95_percent():
    assert paired_difference(METHOD, BASELINE) == paired_difference(METHOD, BASELINE, level=0.95)


def test_pairs_matter():
    in_step = paired_difference([1.0, 2.0, 3.0], [0.9, 1.9, 2.9])
    out_of_step = paired_difference([1.0, 2.0, 3.0], [2.9, 0.9, 1.9])
    assert in_step["mean"] == pytest.approx(out_of_step["mean"])
    assert in_step["high"] - in_step["low"] < 1e-12 < out_of_step["high"] - out_of_step["low"]


def test_the_direction_is_values_minus_baseline():
    assert paired_difference([2.0, 2.0], [1.0, 1.5])["mean"] == 0.75


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        paired_difference([1.0, 2.0], [1.0])
