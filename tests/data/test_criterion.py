"""How answers are judged where no task says otherwise."""

import pytest
import torch
import torch.nn.functional as F

from tutelage.data.criterion import CROSS_ENTROPY
from tutelage.errors import UserError
from tutelage.losses import kd_loss, log_mean_probability


def test_labels_are_indices_or_probabilities():
    logits = torch.randn(5, 4)
    labels = torch.tensor([0, 3, 1, 2, 2])
    torch.testing.assert_close(CROSS_ENTROPY.loss(logits, labels), F.cross_entropy(logits, labels))
    soft = torch.rand(5, 4).softmax(1)
    torch.testing.assert_close(CROSS_ENTROPY.loss(logits, soft), F.cross_entropy(logits, soft))


def test_every_place_counts_the_same_and_one_without_a_label_does_not():
    logits, labels = torch.randn(2, 4, 3, 3), torch.randint(0, 4, (2, 3, 3))
    labels[0, 0] = -1
    flat, wanted = logits.permute(0, 2, 3, 1).reshape(-1, 4), labels.flatten()
    expected = F.cross_entropy(flat[wanted >= 0], wanted[wanted >= 0])
    torch.testing.assert_close(CROSS_ENTROPY.loss(logits, labels), expected)


def test_fractions_are_no_labels():
    with pytest.raises(UserError, match="whole numbers.*'regression'"):
        CROSS_ENTROPY.loss(torch.randn(5, 4), torch.rand(5))


def test_answers_are_compared_and_averaged_by_their_probabilities():
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    found = CROSS_ENTROPY.divergence(student, teacher, 2.0, t_squared=False, reduction="mean")
    assert found == kd_loss(student, teacher, 2.0, t_squared=False, reduction="mean")
    members = torch.randn(3, 5, 4)
    assert torch.equal(CROSS_ENTROPY.mean(members), log_mean_probability(members))
    torch.testing.assert_close(CROSS_ENTROPY.mean(members).exp(), members.softmax(2).mean(0))
