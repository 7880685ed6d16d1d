import pytest
import torch

from tutelage.errors import UserError
from tutelage.models.wrn import wrn, wrn_16_1

COUNTS = {"wrn_16_1": 180_916, "wrn_16_2": 703_284, "wrn_40_1": 569_780, "wrn_40_2": 2_255_156}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameters(name, count, parameters):
    assert parameters(name, 100) == count


def test_maps(maps):
    assert maps("wrn_16_1") == ([(16, 32), (16, 32), (32, 16), (64, 8)], 64)
    assert maps("wrn_40_2") == ([(16, 32), (32, 32), (64, 16), (128, 8)], 128)


def test_maps_are_raw_and_the_classifier_sees_them_normalised():
    network = wrn_16_1(10).eval()
    seen = []
    network.layer3.register_forward_hook(lambda m, i, o: seen.append(o))
    network.classifier.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    with torch.no_grad():
        network(torch.rand(2, 3, 32, 32))
    last, embedding = seen
    assert last.min() < 0
    assert torch.allclose(network.tail(last).mean((2, 3)), embedding, atol=1e-6)


def test_a_wrong_depth_is_refused():
    with pytest.raises(UserError, match="6n\\+4"):
        wrn(10, depth=17)
