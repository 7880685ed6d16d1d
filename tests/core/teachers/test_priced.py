"""What every teacher with a price has in common: keys of samples, and what is asked of what is asked for."""

import pytest
import torch

from tutelage.core.teachers.answer_store import AnswerStore
from tutelage.core.teachers.priced import PricedTeacher, device_of, keys_of, rows_at
from tutelage.errors import UserError

IMAGES = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def test_a_key_is_that_of_the_content_alone():
    keys = keys_of(IMAGES, 4, salt="m")
    assert len(set(keys)) == 4
    assert keys_of(IMAGES.flip(0), 4, salt="m") == keys[::-1]
    # However the images lie in memory, and whatever lies around them.
    assert keys_of(IMAGES.contiguous(memory_format=torch.channels_last), 4, salt="m") == keys
    assert keys_of(torch.cat([IMAGES, IMAGES])[4:], 4, salt="m") == keys
    for other in (IMAGES + 1e-6, IMAGES.double(), IMAGES.reshape(4, 12)):
        assert not set(keys_of(other, 4, salt="m")) & set(keys)
    assert not set(keys_of(IMAGES, 4, salt="n")) & set(keys)


def test_samples_of_several_inputs_are_known_by_all_of_them():
    tokens = {"ids": torch.arange(6).view(3, 2), "mask": torch.ones(3, 2, dtype=torch.bool)}
    other = tokens | {"mask": torch.tensor([[True, True], [True, False], [True, True]])}
    same = [one == two for one, two in zip(keys_of(tokens, 3, salt=""), keys_of(other, 3, salt=""))]
    assert same == [True, False, True]
    assert rows_at(tokens, [2, 0])["ids"].tolist() == [[4, 5], [0, 1]]
    assert device_of(tokens) == device_of(IMAGES) == torch.device("cpu")


@pytest.mark.parametrize("stored", [True, False])
def test_only_what_is_new_is_asked_in_parts_and_each_once(stored, tmp_path):
    teacher = PricedTeacher(AnswerStore(tmp_path / "a.sqlite") if stored else None)
    asked = []

    def ask(places):
        asked.append(places)
        return torch.tensor([[10.0 * place] for place in places])

    found = teacher.look_up([b"a", b"b", b"a", b"c", b"d"], ask, at_once=3)
    assert asked == [[0, 1, 3], [4]]
    assert found.flatten().tolist() == [0, 10, 0, 30, 40]
    again = teacher.look_up([b"d", b"e"], ask, at_once=3)
    assert asked[2:] == ([[1]] if stored else [[0, 1]])
    assert again.flatten().tolist() == ([40, 10] if stored else [0, 10])


def test_what_came_before_a_failure_is_kept(tmp_path):
    teacher = PricedTeacher(AnswerStore(tmp_path / "a.sqlite"))

    def fails(places):
        if 2 in places:
            raise ConnectionError
        return torch.zeros(len(places), 1)

    with pytest.raises(ConnectionError):
        teacher.look_up([b"a", b"b", b"c"], fails, at_once=2)
    asked = []
    teacher.look_up([b"a", b"b", b"c"], lambda places: asked.append(places) or torch.ones(1, 1), at_once=2)
    assert asked == [[2]]


def test_a_budget_refuses_before_anything_is_asked():
    teacher = PricedTeacher()
    teacher.limit(3)
    teacher.count(2)
    with pytest.raises(UserError, match="budget of 3 queries does not suffice: 2 are spent, and 2 more"):
        teacher.look_up([b"a", b"b"], lambda places: 1 / 0, at_once=1)
    teacher.uncount(2)
    assert teacher.spent == teacher.queries == 0
