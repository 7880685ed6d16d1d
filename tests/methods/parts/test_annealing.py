import math

import pytest

from tutelage.core.method import Progress
from tutelage.errors import UserError
from tutelage.methods.parts.annealing import Annealing


def course(annealing, steps):
    return [annealing(Progress(step=step, total_steps=steps)) for step in range(steps)]


def test_it_stays_falls_in_a_straight_line_and_stays():
    found = course(Annealing(temperature=10, hold=1 / 3, fall=1 / 3), 9)
    assert found == pytest.approx([10, 10, 10, 10, 7, 4, 1, 1, 1])


def test_it_may_fall_at_once_or_never_stay():
    assert course(Annealing(temperature=5, hold=0.5, fall=0), 4) == [5, 5, 1, 1]
    assert course(Annealing(temperature=5, hold=0, fall=1), 4) == [5, 4, 3, 2]
    assert course(Annealing(temperature=5, hold=0, fall=0), 4) == [1] * 4
    assert course(Annealing(temperature=5, hold=1, fall=0), 4) == [5] * 4


@pytest.mark.parametrize("temperature", [0.5, 0.0, -1.0, math.nan])
def test_the_temperature_is_one_or_above(temperature):
    with pytest.raises(UserError, match=r"temperature=.*1 or above"):
        Annealing(temperature=temperature, hold=0.5, fall=0.5)


@pytest.mark.parametrize(("hold", "fall"), [(-0.1, 0.5), (0.5, -0.1), (0.6, 0.5), (math.nan, 0.5)])
def test_shares_are_shares(hold, fall):
    with pytest.raises(UserError, match="shares of the run"):
        Annealing(temperature=2, hold=hold, fall=fall)
