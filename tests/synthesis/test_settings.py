"""Schemes and their settings."""

import pytest

from tutelage.errors import UserError
from tutelage.synthesis.settings import SCHEMES, Settings, read_weights


def test_a_scheme_has_its_own_values_and_those_that_are_given():
    found = Settings.of("deepinversion", lr=None, iterations=10, weights={"variation": 1e-3, "competition": 2.0})
    assert (found.lr, found.iterations, found.jitter) == (0.05, 10, 2)
    assert dict(found.weights) == {"ce": 1, "competition": 2, "features": 10, "length": 0, "variation": 1e-3}
    assert "competition" not in SCHEMES["deepinversion"].weights
    assert Settings.of("bn-statistics").needs_statistics
    assert not Settings.of("bn-statistics").has_classes
    assert not Settings.of("inception").needs_statistics
    assert Settings.of("inception").has_classes
    assert Settings.of("gaussian").iterations == 0
    assert Settings.of("inception", snapshots=(5, 3, 5)).snapshots == (3, 5)


@pytest.mark.parametrize(
    ("scheme", "given", "words"),
    [
        ("bn-statistic", {}, "Did you mean 'bn-statistics"),
        ("inception", {"weights": {"statistics": 1}}, "no loss 'statistics'. It has: class, smoothness"),
        ("gaussian", {"weights": {"class": 1}}, "plain noise"),
        ("inception", {"weights": {"class": -1}}, "zero or more"),
        ("inception", {"lr": 0}, "above zero"),
        ("inception", {"iteration": 5}, "Did you mean 'iterations'"),
        ("inception", {"iterations": -1}, "iterations=-1 must be 0 or more"),
        ("inception", {"batch_size": 1}, "batch_size=1 must be 2 or more"),
        ("inception", {"optimizer": "adamw"}, "Did you mean 'adam'"),
        ("inception", {"direction": "codes"}, "Did you mean 'code'"),
        ("inception", {"snapshots": (1000,)}, "choose numbers from 1 to 999"),
        ("inception", {"augment": "flop"}, "flip"),
    ],
)
def test_what_cannot_be_is_told(scheme, given, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        Settings.of(scheme, **given)


def test_weights_are_read_from_text():
    assert read_weights("class=0.5, smoothness=20") == {"class": 0.5, "smoothness": 20}
    assert read_weights("") == {}
    with pytest.raises(UserError, match="write NAME=NUMBER"):
        read_weights("class")
