"""Replies of a black box as logits, each against the distribution that it states, and replies that are none."""

import numpy as np
import pytest
import torch

from tutelage.core.teachers.replies import KINDS, logits_of, rows_of, width_of
from tutelage.errors import UserError

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(4, 5)).astype(np.float32)
SHARES = torch.from_numpy(LOGITS).softmax(1).numpy()


def read(kind, *outputs, classes=5, samples=4):
    return logits_of(kind, rows_of(kind, outputs, classes, samples), classes)


def test_logits_are_taken_as_they_are_and_probabilities_come_back():
    assert torch.equal(read("logits", LOGITS), torch.from_numpy(LOGITS))
    assert torch.allclose(read("probabilities", SHARES).softmax(1), torch.from_numpy(SHARES), atol=1e-6)
    # In half precision they do not quite sum to one.
    half = SHARES.astype(np.float16)
    assert torch.allclose(read("probabilities", half).softmax(1).sum(1), torch.ones(4))


def test_a_label_has_all_of_the_probability_and_stays_finite():
    for labels in (np.array([0, 4, 2, 2]), np.array([[0], [4], [2], [2]], dtype=np.int32)):
        found = read("labels", labels)
        assert found.isfinite().all()
        assert torch.equal(found.softmax(1), torch.eye(5)[[0, 4, 2, 2]])


def test_of_the_top_classes_the_rest_is_spread_evenly():
    classes = np.array([[1, 3], [0, 4]])
    share = np.array([[0.5, 0.2], [0.9, 0.1]])
    found = read("top", classes, share, samples=2).softmax(1)
    assert torch.allclose(found, torch.tensor([[0.1, 0.5, 0.1, 0.2, 0.1], [0.9, 0, 0, 0, 0.1]]), atol=1e-6)
    # All classes are named: nothing is left to spread.
    every = np.tile(np.arange(5), (4, 1))
    assert torch.allclose(read("top", every, SHARES).softmax(1), torch.from_numpy(SHARES), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "outputs", "match"),
    [
        ("logits", [LOGITS[:3]], "asked about 4 samples and replied with the shapes"),
        ("logits", [LOGITS[:, :4]], r"shape \[4, 4\], and \[4, 5\] was expected of logits"),
        ("logits", [np.where(LOGITS > 1, np.nan, LOGITS)], "NaN or infinite"),
        ("probabilities", [LOGITS], "are they logits"),
        ("probabilities", [SHARES * 2], "are they logits"),
        ("labels", [np.array([0, 1, 2, 5])], "names the classes 0 to 5, and there are 5"),
        ("labels", [np.array([0, -1, 2, 3])], "names the classes -1 to 3"),
        ("labels", [np.array([0, 1.5, 2, 3])], "Classes are whole numbers"),
        ("top", [SHARES], "The top classes are two outputs"),
        ("top", [np.array([[1, 1]] * 4), SHARES[:, :2]], "the same class twice"),
        ("top", [np.array([[1, 2]] * 4), SHARES[:, :2] + 0.9], "with sums up to"),
    ],
)
def test_what_is_no_such_reply_is_refused(kind, outputs, match):
    with pytest.raises(UserError, match=match):
        read(kind, *outputs)


def test_every_kind_has_a_width():
    assert {kind: width_of(kind, 7) for kind in KINDS} == {"logits": 7, "probabilities": 7, "top": None, "labels": 1}
