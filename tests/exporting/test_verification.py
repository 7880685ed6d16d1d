"""A file that answers otherwise than its network is not kept."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tutelage.api import export
from tutelage.data.task import task_named
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.exporting.pt2 import Pt2
from tutelage.exporting.verification import _agreement, some_of


def test_a_file_that_says_something_else_is_not_kept(data, network, tmp_path, monkeypatch):

    class Twisted(nn.Module):
        def forward(self, images):
            return network(images).flip(1)

    (tmp_path / "model.pt2").write_text("an earlier one")
    monkeypatch.setattr(Pt2, "load", lambda self, place: Twisted())
    with pytest.raises(UserError, match="The exported pt2 answers otherwise"):
        export(network, to="pt2", data=data, out=tmp_path, progress=False)
    # What was there before stays.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt2"]


def test_few_samples_come_again_until_a_batch_is_full(pairs):
    images, labels = pairs.tensors
    few = as_data(pairs, test=TensorDataset(images[:5], labels[:5]))
    assert len(some_of(few, "test", 32)) == 32
    assert torch.equal(some_of(few, "test", 32)[5:10], images[:5])


@pytest.mark.parametrize(
    ("task", "answers", "share"),
    [
        # The same class wins; the same classes are there; the numbers are near.
        ("classification", ([[1.0, 2.0], [2.0, 1.0]], [[0.0, 9.0], [0.0, 9.0]]), 0.5),
        ("multi-label", ([[1.0, 2.0], [-2.0, 1.0]], [[0.5, 9.0], [0.5, 9.0]]), 0.75),
        ("regression", ([[1.0], [100.0]], [[1.0], [100.2]]), 0.5),
    ],
)
def test_equal_answers_are_what_the_task_decides(task, answers, share):
    ours, theirs = map(torch.tensor, answers)
    assert _agreement([(ours, theirs)], task_named(task)) == share
