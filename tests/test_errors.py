import pytest

from tutelage.errors import UserError, unknown


def test_nearest_names_are_offered():
    error = unknown("method", "kdd", ["supervised", "kd", "tf-kd-reg"])
    assert str(error) == "There is no method named 'kdd'. Did you mean 'kd'?"


def test_several_near_names_are_offered():
    message = str(unknown("layer", "layer9", ["layer1", "layer2", "stem"]))
    assert "Did you mean 'layer" in message
    assert "' or '" in message
    assert "stem" not in message


def test_all_names_are_told_when_none_is_near():
    assert str(unknown("split", "zzz", ["train", "test"])).endswith("Known: test, train.")


def test_names_may_come_from_any_iterable():
    assert "'kd'" in str(unknown("method", "kdd", (name for name in ("kd",))))


def test_a_user_error_is_a_value_error():
    with pytest.raises(ValueError, match="^mend it$"):
        raise UserError("mend it")
