import pytest

from tutelage.errors import UserError
from tutelage.models.catalogue import CATALOGUE, factory, names


def test_names_build():
    assert "resnet20" in names()
    assert factory("tiny_cnn") is CATALOGUE["tiny_cnn"]


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(UserError, match="resnet20"):
        factory("resnet21")
