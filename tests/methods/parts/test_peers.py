import math

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.methods.parts.peers import Peers, gather, trained
from tutelage.models.blueprint import part_of


def networks(count, start=0):
    found = []
    for seed in range(start, start + count):
        torch.manual_seed(seed)
        found.append(nn.Linear(4, 3))
    return found


def test_as_many_as_are_named_but_at_least_two(make):
    three = networks(3)
    assert gather(three, make, None) == three
    assert make.parts == []
    assert gather(three[:1], make, None) == [three[0], make.networks[0]]
    assert make.parts == ["student-2"]


def test_more_are_made_and_fewer_are_the_first(make):
    two = networks(2)
    found = gather(two, make, 4)
    assert found[:2] == two
    assert found[2:] == make.networks
    assert make.parts == ["student-3", "student-4"]
    three = networks(3)
    assert gather(three, make, 2) == three[:2]
    assert gather(two, None, 2) == two


@pytest.mark.parametrize("count", [1, 0, -2])
def test_one_network_has_nobody_to_learn_from(count, make):
    with pytest.raises(UserError, match=f"networks={count} must be 2 or more"):
        gather(networks(2), make, count)


def test_what_nothing_makes_is_missing():
    with pytest.raises(UserError, match="networks=3, and only 2 were given"):
        gather(networks(2), None, 3)
    with pytest.raises(UserError, match="must be two or more, and got 1"):
        Peers(networks(1))


def test_names_are_the_predictions_and_the_members():
    peers = Peers(networks(3))
    inputs = torch.randn(5, 4)
    predictions = peers.predictions(inputs)
    assert list(predictions) == ["student", "student-2", "student-3", "ensemble"]
    assert [part_of("student", position) for position in range(3)] == list(predictions)[:3]
    assert list(peers.others()) == ["student-2", "student-3"]
    assert torch.equal(peers.first()(inputs), predictions["student"])
    for name, network in peers.others().items():
        assert type(network) is nn.Linear
        assert torch.equal(network(inputs), predictions[name])


def test_the_ensemble_is_the_mean_probability(double, slow):
    inputs = torch.randn(5, 4)
    *members, ensemble = Peers([network.double() for network in networks(3)]).predictions(inputs).values()
    for row in range(5):
        answers = [slow.softmax(member[row].tolist()) for member in members]
        expected = [math.log(slow.mean(column)) for column in zip(*answers, strict=True)]
        assert ensemble[row].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_ensemble_of_confident_networks_is_finite():
    peers = Peers(networks(2))
    with torch.no_grad():
        for network in peers.extractors.values():
            network.model.weight.mul_(1e5)
    assert peers.predictions(torch.randn(5, 4))["ensemble"].isfinite().all()


def test_each_network_has_its_own_optimizer_and_scales():
    found = networks(3)
    found[1].bias.requires_grad_(False)
    peers = Peers(found, lr_scales=[1, 0.5, 0.1], weight_decay_scales=[2])
    specs = peers.optimizers()
    assert list(specs) == ["student", "student-2", "student-3"]
    assert [spec.lr_scale for spec in specs.values()] == [1, 0.5, 0.1]
    assert [spec.weight_decay_scale for spec in specs.values()] == [2, 2, 2]
    for network, spec in zip(found, specs.values(), strict=True):
        assert [id(parameter) for parameter in spec.params] == [id(parameter) for parameter in trained(network)]
    assert len(specs["student-2"].params) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_scales": [1, 2]}, "must be one number for all 3 networks, or one for each"),
        ({"weight_decay_scales": []}, "must be one number for all 3 networks, or one for each"),
        ({"lr_scales": [1, 0, 1]}, "must be above zero"),
        ({"lr_scales": [-1]}, "must not be negative"),
        ({"weight_decay_scales": [math.nan]}, "must not be negative"),
    ],
)
def test_scales_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        Peers(networks(3), **options)


def test_weight_decay_may_be_off_for_one():
    assert Peers(networks(2), weight_decay_scales=[0, 1]).weight_decay_scales == (0, 1)


def test_networks_that_start_alike_are_refused():
    one, other = networks(2)
    with pytest.raises(UserError, match="student and student-3 start from the same weights"):
        Peers([one, other, *networks(1)])
    # Only all weights together make a twin.
    half = networks(1)[0]
    with torch.no_grad():
        half.bias.add_(1)
    Peers([one, half])
