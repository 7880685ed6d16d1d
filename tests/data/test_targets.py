"""Targets as users give them: right, or a sentence."""

import numpy as np
import pytest
import torch

from tutelage.data.targets import class_indices, class_sets, labelled, numbers
from tutelage.errors import UserError


@pytest.mark.parametrize(
    "values",
    [
        [2, 0, 1],
        (2, 0, 1),
        torch.tensor([2, 0, 1]),
        torch.tensor([2.0, 0.0, 1.0]),
        np.array([2, 0, 1], dtype=np.uint8),
        [[2], [0], [1]],
        torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
        [torch.tensor(2), torch.tensor(0), torch.tensor(1)],
        [np.int64(2), np.int64(0), np.int64(1)],
    ],
)
def test_one_class_a_sample_in_any_form(values):
    found = class_indices(values, where="it")
    assert found.tolist() == [2, 0, 1]
    assert found.dtype == torch.int64


def test_minus_one_is_a_sample_without_label():
    found = class_indices([0, -1, 3], where="it")
    assert found.tolist() == [0, -1, 3]
    assert labelled(found).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (["cat", "dog"], "not numbers, but 'cat', 'dog'"),
        ([0.5, 1.0], "0.5, which are not class indices.*--task regression"),
        ([float("nan"), 1.0], "nan, which are not class indices"),
        ([[0.5, 0.5], [1.0, 0.0]], "not rows with a single 1.*multi-label"),
        ([[1, 1], [1, 0]], "not rows with a single 1.*multi-label"),
        ([-2, 0], "contain -2: number the classes from 0"),
        ([4006381333931, 1], "go up to 4006381333931"),
        (torch.zeros(2, 3, 3), r"shape \[2, 3, 3\]"),
        ([[1, 2], [3]], "differ in length"),
        ([None, None], "not numbers, but None, None"),
    ],
)
def test_what_is_no_class_is_refused_with_what_it_may_be(values, match):
    with pytest.raises(UserError, match=match):
        class_indices(values, where="it")


def test_sets_of_classes_and_numbers():
    assert class_sets([[0, 1], [-1, 0]], where="it").tolist() == [[0, 1], [-1, 0]]
    assert class_sets(torch.tensor([[True, False]]), where="it").dtype == torch.float32
    assert numbers([1, 2.5], where="it").tolist() == [[1], [2.5]]
    assert numbers(torch.ones(3, 2), where="it").shape == (3, 2)
