"""What schemes ask of images."""

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models.normalization import Normalized
from tutelage.synthesis.objective import Objective, Statistics
from tutelage.synthesis.settings import SCHEMES, Settings
from tutelage.synthesis.subject import subject_of


def slow(network, pixels):
    """The authors' loss, one channel of one layer after the other, the normalised image first."""
    net = network.model
    image = (pixels - 0.5) / 0.25
    one = net.conv1(image)
    two = net.conv2(net.bn1(one).relu())
    layers = [(image, torch.zeros(3), torch.ones(3), 1e-5)]
    layers += [(maps, bn.running_mean, bn.running_var, bn.eps) for maps, bn in ((one, net.bn1), (two, net.bn2))]
    means = []
    for maps, mean, variance, floor in layers:
        terms = []
        for channel in range(maps.shape[1]):
            values = maps[:, channel].flatten()
            here = values.var() + floor
            there = variance[channel] + floor
            distance = (values.mean() - mean[channel]) ** 2
            terms.append(-0.5 - 0.5 * torch.log(here / there) + (here + distance) / there / 2)
        means.append(sum(terms) / len(terms))
    return sum(means) / len(means)


def test_the_statistics_of_a_network_are_those_of_a_slow_loop(network, subject):
    pixels = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    objective = Objective(subject, Settings.of("bn-statistics"))
    found = objective(subject.normalized(pixels), pixels, torch.zeros(5, dtype=torch.long))
    expected = slow(network, pixels)
    assert list(found) == ["statistics"]
    torch.testing.assert_close(found["statistics"], expected)
    ours, theirs = (torch.autograd.grad(loss, pixels, retain_graph=True)[0] for loss in (found["statistics"], expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    assert ours.abs().max() > 0


def test_folded_statistics_give_the_same(subject, network):
    import copy

    folded = copy.deepcopy(network)
    for conv, bn in ((folded.model.conv1, folded.model.bn1), (folded.model.conv2, folded.model.bn2)):
        std = bn.running_var.sqrt()
        conv.bias = nn.Parameter(-bn.running_mean / std)
        conv.weight.data /= std[:, None, None, None]
        bn.running_mean.zero_()
        bn.running_var.fill_(1)
    pixels = torch.rand(5, 3, 8, 8)
    values = []
    for it in (subject, subject_of(folded, image_size=8)):
        values.append(Objective(it, Settings.of("bn-statistics"))(pixels, pixels, torch.zeros(5))["statistics"])
    torch.testing.assert_close(*values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "gaussian"])
def test_the_losses_are_those_of_the_weights(scheme, subject):
    settings = Settings.of(scheme)
    images = torch.randn(4, 3, 8, 8)
    objective = Objective(subject, settings)
    found = objective(images, subject.pixels(images).clamp(0, 1), torch.arange(4))
    assert found.keys() == settings.weights.keys()
    total = sum(settings.weights[name] * loss.item() for name, loss in found.items())
    assert objective.total(found).item() == pytest.approx(total, rel=1e-5)


def test_the_input_is_a_layer_only_where_its_statistics_are_known(subject, network):
    _, pairs = Statistics(subject)(torch.rand(4, 3, 8, 8))
    assert [name for name, _, _ in pairs] == ["input", "bn1", "bn2"]
    with pytest.warns(UserWarning, match="does not tell the mean"):
        bare = subject_of(network.model, image_size=8)
    _, pairs = Statistics(bare)(torch.rand(4, 3, 8, 8))
    assert [name for name, _, _ in pairs] == ["bn1", "bn2"]


def test_a_rival_adds_the_competition(subject):
    settings = Settings.of("deepinversion", weights={"competition": 1.0})
    with pytest.raises(UserError, match="name it with --rival"):
        Objective(subject, settings)
    with pytest.raises(UserError, match="give it a weight"):
        Objective(subject, Settings.of("deepinversion"), subject.network)
    images = torch.rand(4, 3, 8, 8)
    found = Objective(subject, settings, subject.network)(images, images, torch.arange(4))
    # A student that agrees with the network has the highest value.
    assert found["competition"].item() == pytest.approx(1)


def test_a_network_without_batch_norms_is_refused_with_what_to_take():
    plain = Normalized(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), (0.5,), (0.25,))
    subject = subject_of(plain, image_size=8)
    with pytest.raises(UserError, match="no batch norm with running statistics.*Take --scheme inception or gaussian"):
        Objective(subject, Settings.of("bn-statistics"))
    assert Objective(subject, Settings.of("inception"))
