"""What can be compared of a teacher, and what cannot."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from tutelage.core.teachers import BlackBoxTeacher, EnsembleTeacher, FrozenTeacher, NoisyTeacher, Teacher
from tutelage.core.teachers.identity import incomparable


class Own(Teacher):
    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


@pytest.mark.parametrize("value", [3, 0.5, "text", None, True, (1, "a"), [1.0], {"a": [None]}])
def test_plain_settings_are_compared(value):
    assert incomparable(Own(setting=value, _private=value), apart_from=frozenset(vars(Own()))) == []
    assert Own(setting=value).known_by() is None


@pytest.mark.parametrize("value", [print, partial(print, 1), object(), torch.zeros(2), [print], {"a": torch.zeros(1)}])
def test_whatever_else_there_is_makes_it_another_teacher_each_time(value):
    one, other = Own(_hidden=value), Own(_hidden=value)
    assert incomparable(one, apart_from=frozenset(vars(Own()))) == ["_hidden"]
    assert one.known_by() is not None
    assert one.known_by() != other.known_by()
    assert one.identity() != other.identity()
    assert copy.deepcopy(one).identity() == one.identity()


def test_modules_and_buffers_are_known_by_their_weights():
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    twin, other = copy.deepcopy(network), nn.Linear(3, 2)
    assert Own(network=network).identity() == Own(network=twin).identity() != Own(network=other).identity()


def test_what_is_inside_tells_the_whole_apart():
    box, other = (BlackBoxTeacher(print, identity=name) for name in ("one", "other"))
    for wrap in (
        lambda it: NoisyTeacher(it, std=0.1),
        lambda it: EnsembleTeacher([it, FrozenTeacher(nn.Linear(3, 2))]),
    ):
        torch.manual_seed(0)
        first = wrap(box)
        torch.manual_seed(0)
        second = wrap(other)
        assert first.names_given() == ["black box one"]
        assert first.identity() != second.identity()
        assert first.identity().replace("one", "other") == second.identity()


def test_an_identity_of_its_own_takes_the_place_of_the_weights():
    teacher = FrozenTeacher(nn.Linear(3, 2))
    assert teacher.with_identity("abc") is teacher
    assert teacher.identity() == "abc"
