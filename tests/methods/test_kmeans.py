"""k-means on the features of the known classes' network."""

import pytest
import torch
import torch.nn.functional as F

from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice
from tutelage.methods.kmeans import centres, nearest_centre_loss, unlabelled_features
from tutelage.methods.parts.prototypes import head_of
from tutelage.testing.kinds import KINDS
from tutelage.testing.toys import TRAINING, met
from tutelage.training.run import Run

KIND = KINDS["discovery"]


def test_the_loss_is_that_of_a_slow_loop():
    features, middles = torch.randn(7, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    slow = sum(min(float(((one - middle) ** 2).sum()) for middle in middles) for one in features)
    assert nearest_centre_loss(features, middles).item() == pytest.approx(slow)


def test_centres_of_two_clear_groups():
    groups = torch.cat([torch.randn(20, 2) * 0.01 + torch.tensor([1.0, 0.0]), torch.randn(20, 2) * 0.01])
    found = centres(groups, 2, seed=0)
    assert sorted(round(float(one[0])) for one in found) == [0, 1]
    assert nearest_centre_loss(groups, found) < nearest_centre_loss(groups, found + 0.1)


def test_features_are_those_of_the_unlabelled_samples():
    network = met(catalogue.get("kmeans"), KIND.experiment()).methods["known"].export().eval()
    layer = f"{head_of(network)[0]}:in"
    found = unlabelled_features(network, layer, KIND.data(), device="cpu")
    train = KIND.data().train
    inputs = train.images[train.targets == -1].float() / 255
    with torch.no_grad():
        maps = network.layer2(network.layer1(inputs)).mean((2, 3))
    torch.testing.assert_close(found, F.normalize(maps, dim=1))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_nothing_is_trained_after_the_clusters(tmp_path):
    run = Run(tmp_path, TRAINING)
    network = KIND.experiment().execute(Choice(catalogue.get("kmeans"), {}), run)
    assert [(stage.name, stage.epochs) for stage in run.fitted] == [("known", 2), ("distill", 0)]
    assert {"test_novel_accuracy", "test-training_novel_accuracy"} <= set(run.fitted[-1].scores["best"])
    head = head_of(network)[1]
    torch.testing.assert_close(head.novel[0].prototypes.weight.norm(dim=1), torch.ones(2))
    again = KIND.experiment().execute(Choice(catalogue.get("kmeans"), {}), Run(tmp_path, TRAINING))
    pairs = zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
