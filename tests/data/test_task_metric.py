"""How a metric is written."""

import math

import pytest

from tutelage.data.task import Metric


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.39823], "0.3982"),
        ([0.039823], "0.03982"),
        ([39.823], "39.82"),
        ([39823.4], "39823"),
        ([1.0], "1.000"),
        ([9.99999], "10.000"),
        ([-0.5], "-0.5000"),
        ([0.0], "0.0000"),
        ([math.inf, math.nan], "inf"),
    ],
)
def test_significant_digits_fit_the_size_of_a_value(values, text):
    metric = Metric(title="error", significant=True)
    assert metric.text(values[0]) == text


def test_values_that_are_shown_together_have_the_digits_of_the_smallest():
    fitted = Metric(title="error", significant=True).fitted([250.0, 0.0, 0.025, math.nan])
    assert fitted.text(250.0) == "250.00000"
    assert fitted.text(0.025) == "0.02500"


def test_other_digits_are_as_given():
    share = Metric(title="accuracy", unit="share", digits=2)
    assert share.fitted([0.00001]) == share
    assert share.text(0.9512) == "95.12 %"


def test_it_is_made_again_from_plain_values():
    metric = Metric(title="error", unit="metres", higher_is_better=False, significant=True)
    assert Metric(**metric.to_json()) == metric
