import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.models.dropout import ActiveDropout, kind_of_dropout, steady
from tutelage.models.modes import evaluating

SHAPES = {
    "Dropout": (8, 6),
    "Dropout1d": (8, 6, 5),
    "Dropout2d": (8, 6, 5, 5),
    "Dropout3d": (8, 6, 4, 4, 4),
    "AlphaDropout": (8, 6),
    "FeatureAlphaDropout": (8, 6, 5),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_it_drops_in_eval_mode_as_the_layer_does_in_train_mode(kind):
    inputs = torch.randn(SHAPES[kind])
    layer, active = getattr(nn, kind)(0.4), ActiveDropout(0.4, kind).eval()
    torch.manual_seed(7)
    expected = layer.train()(inputs)
    torch.manual_seed(7)
    assert torch.equal(active(inputs), expected)
    assert not torch.equal(active(inputs), expected), "from a fresh mask"
    assert not active.training
    assert kind_of_dropout(layer) == kind


def test_the_mean_over_masks_is_the_input():
    inputs, layer = torch.randn(1, 50), ActiveDropout(0.4).eval()
    answers = layer(inputs.expand(20_000, 50))
    kept = answers != 0
    assert torch.allclose(answers[kept], (inputs / 0.6).expand_as(answers)[kept])
    # The standard error of a mean is |x| sqrt(0.4 / 0.6 / 20000); five of them.
    bound = 5 * inputs.abs() * (0.4 / 0.6 / 20_000) ** 0.5
    assert ((answers.mean(0) - inputs).abs() <= bound).all()


def test_what_drops_nothing_is_no_dropout():
    layers = [nn.Dropout(0.0), nn.Linear(2, 2), nn.Identity(), ActiveDropout(0.5)]
    assert [kind_of_dropout(layer) for layer in layers] == [None] * 4


def test_a_look_at_a_network_draws_no_chance():
    network = nn.Sequential(ActiveDropout(0.5), nn.Sequential(ActiveDropout(0.2)))
    inputs, state = torch.ones(4, 9), torch.get_rng_state()
    with evaluating(network):
        assert torch.equal(network(inputs), inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(network(inputs), inputs)


def test_after_an_error_it_drops_again():
    layer = ActiveDropout(0.5)
    with steady(layer):
        with pytest.raises(KeyError), steady(layer):
            raise KeyError
        assert torch.equal(layer(torch.ones(99)), torch.ones(99)), "an inner block ends no outer one"
    assert not torch.equal(layer(torch.ones(99)), F.relu(torch.ones(99)))
