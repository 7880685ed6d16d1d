"""The first stage of discovery. That it sees known classes alone is tested with its methods."""

import torch

from tutelage.core.method import Progress
from tutelage.methods.parts.known_classes import KnownClasses, Snapshot
from tutelage.methods.parts.prototypes import attach_prototypes, head_of
from tutelage.testing.kinds import KINDS
from tutelage.testing.toys import ToyNetwork, toy_data


def network():
    torch.manual_seed(0)
    found = ToyNetwork()
    attach_prototypes(found, toy_data().example(2), classes=4, temperature=0.1)
    return found


def test_labelled_samples_alone_count_and_prototypes_keep_their_length():
    method, batch = KnownClasses(network()).train(), KINDS["discovery"].batch()
    steps = method.step(batch, Progress())
    loss = next(steps).losses["ce"]
    logits = method.student.model(batch.inputs)
    has_label = batch.targets >= 0
    expected = torch.nn.functional.cross_entropy(logits[has_label], batch.targets[has_label])
    torch.testing.assert_close(loss, expected)
    with torch.no_grad():
        head_of(method.student.model)[1].known.weight.mul_(2)
    list(steps)
    torch.testing.assert_close(head_of(method.student.model)[1].known.weight.norm(dim=1), torch.ones(4))


def test_a_snapshot_is_frozen_and_may_have_fewer_classes():
    snapshot, data = Snapshot(network()), KINDS["discovery"].data()
    snapshot.check_answers(data)
    assert snapshot(KINDS["discovery"].batch()).logits.shape == (12, 4)
    assert not any(parameter.requires_grad for parameter in snapshot.parameters())
    assert not snapshot.train().training
