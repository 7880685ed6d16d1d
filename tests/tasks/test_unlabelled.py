"""Unlabelled data: the vote of the nearest neighbours, against a slow loop."""

import math

import pytest
import torch

from tutelage.data.task import task_named
from tutelage.tasks import unlabelled

TASK = task_named("unlabelled")


@pytest.mark.parametrize("samples", [5, 60])
def test_neighbours_vote_with_weights_and_nobody_for_himself(samples, monkeypatch):
    monkeypatch.setattr(unlabelled, "_AT_ONCE", 7)
    torch.manual_seed(0)
    embeddings, labels = torch.randn(samples, 3), torch.randint(0, 4, (samples,))
    meter = TASK.meter()
    for rows in torch.arange(samples).split(9):
        meter.update(embeddings[rows], labels[rows])
    right = 0
    rows = (embeddings / embeddings.norm(dim=1, keepdim=True)).tolist()
    for place, row in enumerate(rows):
        others = [(other, int(labels[n])) for n, other in enumerate(rows) if n != place]
        alike = [(sum(a * b for a, b in zip(row, other, strict=True)), label) for other, label in others]
        near = sorted(alike, reverse=True)[:20]
        votes = [sum(math.exp(s / 0.07) for s, label in near if label == k) for k in range(4)]
        right += votes.index(max(votes)) == int(labels[place])
    assert meter.compute()["knn_accuracy"] == right / samples


def test_alike_samples_find_each_other_and_the_unlabelled_do_not_count():
    embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.5, 0.5]])
    meter = TASK.meter()
    meter.update(embeddings, torch.tensor([0, 0, 1, 1, -1]))
    assert meter.compute() == {"knn_accuracy": 1.0}
    assert TASK.meter().compute() == {}


def test_it_offers_no_labels():
    assert not TASK.offers & {"targets", "labels", "sample-labels"}
    assert TASK.hides_targets
    TASK.check_answer((2, 9), 2, 4, who="student", data="toys")


def test_merged_meters_of_the_parts_are_the_meter_of_all():
    torch.manual_seed(0)
    embeddings, labels = torch.randn(30, 3), torch.randint(0, 4, (30,))
    whole, first, later = TASK.meter(), TASK.meter(), TASK.meter()
    whole.update(embeddings, labels)
    first.update(embeddings[:11], labels[:11])
    later.update(embeddings[11:], labels[11:])
    first.merge(later)
    assert first.compute() == whole.compute()
