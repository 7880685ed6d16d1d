"""Several teachers as one."""

import math

import pytest
import torch

from tutelage.core.teachers import EnsembleTeacher, Teacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError


class Says(Teacher):
    """Says the same whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, batch):
        return Output(logits=self.logits, features={"a": self.logits})


def batch_of(rows=16):
    return Batch(inputs=torch.randn(rows, 4) + 1, targets=torch.randint(0, 3, (rows,)))


def test_ensemble_is_the_log_of_the_mean_probability():
    logits = torch.randn(3, 5, 4, dtype=torch.float64) * 3
    output = EnsembleTeacher([Says(member) for member in logits])(batch_of(5))
    for b in range(5):
        rows = [[math.exp(z) for z in logits[m, b].tolist()] for m in range(3)]
        mean = [sum(row[k] / sum(row) for row in rows) / 3 for k in range(4)]
        assert output.logits[b].exp().tolist() == pytest.approx(mean, rel=1e-12)
    assert torch.equal(output.members, logits)


def test_ensemble_of_one_is_its_log_probability():
    logits = torch.randn(5, 4)
    found = EnsembleTeacher([Says(logits)])(batch_of(5)).logits
    assert torch.allclose(found, logits.log_softmax(1), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_ensemble_of_confident_teachers_stays_finite(dtype):
    first, second = torch.tensor([[1e4, 0.0, -1e4]], dtype=dtype), torch.tensor([[0.0, 1e4, -1e4]], dtype=dtype)
    output = EnsembleTeacher([Says(first), Says(second)])(batch_of(1))
    assert output.logits.dtype == torch.float32
    assert output.logits.isfinite().all()
    assert output.logits[0, :2].tolist() == pytest.approx([-math.log(2)] * 2, rel=1e-5)
    assert output.logits[0, 2] < -1e4


def test_an_ensemble_needs_members_that_agree_on_the_classes():
    with pytest.raises(UserError, match="at least one teacher"):
        EnsembleTeacher([])
    with pytest.raises(UserError, match=r"agree on the classes.*\(5, 3\), \(5, 4\)"):
        EnsembleTeacher([Says(torch.zeros(5, 3)), Says(torch.zeros(5, 4))])(batch_of(5))
