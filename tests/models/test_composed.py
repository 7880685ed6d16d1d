"""Networks that methods put together: any marked factory of a method builds them again, and nothing else does."""

import pytest

from tutelage.errors import UserError
from tutelage.methods import simkd, token
from tutelage.methods.parts import exits
from tutelage.models.composed import NAMED, composed_factory, is_composed, place_of
from tutelage.models.loading import load_network
from tutelage.models.spec import NetworkSpec


def test_places_lead_back_to_their_factories():
    for factory in (token.two_headed, simkd.deployed, exits.shallow):
        assert is_composed(place_of(factory))
        assert composed_factory(place_of(factory)) is factory


def test_names_of_saved_runs_still_lead_to_their_factories():
    assert {name: composed_factory(name) for name in NAMED} == {"exit": exits.shallow, "simkd": simkd.deployed}


@pytest.mark.parametrize("target", ["tutelage.methods.token:graft", "tutelage.methods.kd:KD"])
def test_what_is_not_marked_is_not_called(target):
    # The spec of a saved network may be a stranger's: it must reach no other function of the package.
    with pytest.raises(UserError, match="no network that a method has put together"):
        load_network(f"{target},student=tiny_cnn", num_classes=3)


def test_other_places_are_a_users_code():
    assert NetworkSpec.parse("tutelage.system.files:write_json").kind == "import"
    assert NetworkSpec.parse("mine.methods.token:two_headed").kind == "import"
