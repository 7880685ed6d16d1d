import math

import pytest

from tutelage.core.method import Progress
from tutelage.core.schedules import constant, cosine, linear, ramp, steps
from tutelage.errors import UserError

SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]


def at(schedule, share):
    return schedule(Progress(step=int(share * 100), total_steps=100))


def test_constant():
    assert [at(constant(0.3), share) for share in SHARES] == [0.3] * 5


@pytest.mark.parametrize(
    ("until", "expected"),
    [(1.0, [1.0, 2.0, 3.0, 4.0, 5.0]), (0.5, [1.0, 3.0, 5.0, 5.0, 5.0]), (0.25, [1.0, 5.0, 5.0, 5.0, 5.0])],
)
def test_linear(until, expected):
    assert [at(linear(1.0, 5.0, until=until), share) for share in SHARES] == pytest.approx(expected, rel=1e-12)


def test_linear_falls_as_well():
    assert at(linear(5.0, 1.0), 0.75) == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("until", [1.0, 0.5])
def test_cosine(until):
    for share in SHARES:
        done = min(1.0, share / until)
        expected = 2.0 + (6.0 - 2.0) * (1 + math.cos(math.pi * done)) / 2
        assert at(cosine(6.0, 2.0, until=until), share) == pytest.approx(expected, rel=1e-12)
    ends = at(cosine(6.0, 2.0, until=until), 0.0), at(cosine(6.0, 2.0, until=until), 1.0)
    assert ends == pytest.approx((6.0, 2.0), rel=1e-12)
    assert at(cosine(6.0, 2.0, until=until), until / 2) == pytest.approx(4.0, rel=1e-12)


def test_steps():
    schedule = steps(0.8, milestones=[0.25, 0.5], gamma=0.1)
    assert [at(schedule, share) for share in (0.0, 0.24, 0.25, 0.49, 0.5, 1.0)] == pytest.approx(
        [0.8, 0.8, 0.08, 0.08, 0.008, 0.008], rel=1e-12
    )
    assert at(steps(0.8, milestones=[], gamma=0.1), 1.0) == 0.8


@pytest.mark.parametrize("milestones", [[0.5, 0.25], [0.0, 0.5], [0.5, 1.0], [math.nan]])
def test_milestones_are_rising_shares(milestones):
    with pytest.raises(UserError, match="must be rising shares of the run"):
        steps(1.0, milestones=milestones, gamma=0.1)


def test_ramp():
    values = [ramp(0.8, epochs=4)(Progress(epoch=epoch)) for epoch in range(6)]
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rel=1e-12)


@pytest.mark.parametrize("schedule", [linear, cosine])
@pytest.mark.parametrize("until", [0.0, -0.5, 1.5, math.nan])
def test_until_is_a_share(schedule, until):
    with pytest.raises(UserError, match="until=.*must be a share of the run"):
        schedule(0.0, 1.0, until=until)


def test_ramp_takes_an_epoch():
    with pytest.raises(UserError, match="at least one epoch, not 0"):
        ramp(1.0, epochs=0)
