"""Cosine prototypes, and networks that end in them."""

import pytest
import torch

from tutelage.methods.parts.prototypes import (
    NovelHead,
    OpenHead,
    Prototypes,
    attach_prototypes,
    head_of,
    put_head,
)
from tutelage.models.loading import load_network
from tutelage.models.spec import NetworkSpec


def test_scores_are_cosines():
    prototypes = Prototypes(4, 3)
    features = torch.randn(5, 4)
    slow = [[float(f @ w / (f.norm() * w.norm())) for w in prototypes.weight.detach()] for f in features]
    torch.testing.assert_close(prototypes(features), torch.tensor(slow))
    torch.testing.assert_close(prototypes(7 * features), prototypes(features))


def test_features_of_no_length_have_no_direction_and_no_gradient():
    head = OpenHead(Prototypes(4, 3), [NovelHead(4, 8, 2, 2)], 0.1).eval()
    features = torch.zeros(2, 4, requires_grad=True)
    head(features).sum().backward()
    assert torch.equal(features.grad, torch.zeros(2, 4))


def test_known_and_novel_logits_stand_side_by_side():
    head = OpenHead(Prototypes(4, 3), [NovelHead(4, 8, 2, 2), NovelHead(4, 0, 0, 2)], 0.5).eval()
    features = torch.randn(5, 4, 1, 1)
    known, novel = head.cosines(features)
    assert novel.shape == (2, 5, 2)
    torch.testing.assert_close(head(features), torch.cat([known, novel[0]], dim=1) / 0.5)
    head.note(torch.tensor([3.0, 1.0]), anew=True)
    head.note(torch.tensor([1.0, 2.0]), anew=False)
    assert head.losses.tolist() == [4.0, 3.0]
    torch.testing.assert_close(head(features), torch.cat([known, novel[1]], dim=1) / 0.5)
    torch.testing.assert_close(head.shipped()(features), head(features))
    head.note(torch.tensor([0.5, 2.0]), anew=True)
    assert head.losses.tolist() == [0.5, 2.0]
    assert head.best == 0


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_network_by_name_is_built_again_by_its_spec(hidden):
    network = load_network("tiny_cnn,width=4", num_classes=5, in_channels=3)
    example = torch.rand(2, 3, 8, 8)
    attach_prototypes(network, example, classes=3, temperature=0.1)
    known = load_network(network.spec, num_classes=3, in_channels=3)
    known.load_state_dict(network.state_dict())
    torch.testing.assert_close(known.eval()(example), network.eval()(example))
    features = head_of(network)[1].known.weight.shape[1]
    put_head(network, OpenHead(head_of(network)[1].known, [NovelHead(features, hidden, 6, 2)], 0.1))
    again = load_network(network.spec, num_classes=5, in_channels=3)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again.eval()(example), network.eval()(example))
    assert NetworkSpec.parse(network.spec).kind == "composed"
    assert again(example).shape == (2, 5)
