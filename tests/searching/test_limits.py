import pytest

from tutelage.errors import UserError
from tutelage.models.size import NetworkSize
from tutelage.searching.limits import Limits, amount


def size(parameters, multiply_adds):
    return NetworkSize(parameters=parameters, multiply_adds=multiply_adds)


def test_limits_are_numbers_with_units():
    limits = Limits.parse("params=0.5M,multiply_adds=70M")
    assert limits.ranges == {"parameters": (0, 5e5), "multiply_adds": (0, 7e7)}
    assert str(limits) == "at most 0.50 M parameters and at most 70.0 M multiply-adds"
    assert limits.broken_by(size(500_000, 70_000_000)) is None
    assert limits.broken_by(size(500_001, 1)) == "0.50 M parameters, over the limit"
    assert limits.broken_by(size(1, 71_000_000)) == "71.0 M multiply-adds, over the limit"


def test_a_limit_may_have_a_lower_end():
    limits = Limits.parse("params=100k..1e6")
    assert limits.broken_by(size(99_999, 0)) == "0.10 M parameters, under the limit"
    assert limits.broken_by(size(100_000, 0)) is None
    assert limits.broken_by(size(1_000_001, 0)) is not None


def test_no_limits_are_kept_by_all():
    assert Limits.parse(None).broken_by(size(10**12, 10**12)) is None
    assert str(Limits.parse("")) == "no limits"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params=much", "no number"),
        ("params=-1", "no number"),
        ("params=", "no number"),
        ("parms=1M", "Did you mean 'params'"),
        ("1M", "not an option"),
        ("params=2M..1M", "from a larger"),
        ("params=1M,parameters=2M", "twice"),
        ("params=1M,params=2M", "twice"),
    ],
)
def test_bad_limits_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        Limits.parse(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (15_400, "15.4 k"), (99_949, "99.9 k"), (100_000, "0.10 M"),
     (1_234_567, "1.23 M"), (70e6, "70.0 M"), (999e6, "999 M"), (1e9, "1.00 G")],
)  # fmt: skip
def test_large_numbers_are_short(number, text):
    assert amount(number) == text
