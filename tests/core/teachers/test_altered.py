"""Teachers that alter what another one says."""

import pytest
import torch

from tutelage.core.teachers import NoisyTeacher, ShuffledTeacher, Teacher
from tutelage.data.batch import Batch, Output


class Says(Teacher):
    """Says the same whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, batch):
        return Output(logits=self.logits, features={"a": self.logits})


def batch_of(rows=16):
    return Batch(inputs=torch.randn(rows, 4) + 1, targets=torch.randint(0, 3, (rows,)))


def test_noise_is_relative_and_fresh():
    logits = torch.tensor([[10.0, -1.0, 0.0]]).repeat(20_000, 1)
    teacher = NoisyTeacher(Says(logits), std=0.2)
    first, second = teacher(batch_of(1)), teacher(batch_of(1))
    assert first.logits.mean(0).tolist() == pytest.approx([10.0, -1.0, 0.0], rel=0.01)
    assert first.logits.std(0).tolist() == pytest.approx([2.0, 0.2, 0.0], rel=0.03)
    assert not torch.equal(first.logits, second.logits)
    assert torch.equal(first.features["a"], logits)


def test_no_noise_changes_nothing():
    logits = torch.randn(4, 3)
    assert torch.equal(NoisyTeacher(Says(logits), std=0.0)(batch_of(4)).logits, logits)


@pytest.mark.parametrize("rows", [2, 3, 16])
def test_shuffling_gives_every_sample_the_answer_of_another(rows):
    logits = torch.arange(rows * 3.0).view(rows, 3)
    teacher, orders = ShuffledTeacher(Says(logits)), set()
    for _ in range(50):
        output = teacher(batch_of(rows))
        order = (output.logits[:, 0] / 3).long()
        assert torch.equal(output.logits, logits[order])
        assert sorted(order.tolist()) == list(range(rows))
        assert not (order == torch.arange(rows)).any()
        assert output.features == {}
        orders.add(tuple(order.tolist()))
    assert len(orders) == {2: 1, 3: 2, 16: 50}[rows]


def test_a_sample_alone_keeps_its_answer():
    assert torch.equal(ShuffledTeacher(Says(torch.ones(1, 3)))(batch_of(1)).logits, torch.ones(1, 3))
