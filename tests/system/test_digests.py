"""Digests of content, and seeds from names."""

import torch

from tutelage.system import digests


def test_tensors_differ_by_name_shape_type_and_bits():
    base = {"a": torch.zeros(2, 3)}
    others = [
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32)},
        {"a": -torch.zeros(2, 3)},
    ]
    found = {digests.of_tensors(tensors) for tensors in [base, *others]}
    assert len(found) == 5
    assert digests.of_tensors({"a": torch.zeros(3, 2).T}) == digests.of_tensors(base)


def test_seeds_depend_on_seed_and_name_alone():
    assert digests.seed_of(0, "distill") == digests.seed_of(0, "distill")
    found = {digests.seed_of(seed, name) for seed in (0, 1) for name in ("distill", "teacher")}
    assert len(found) == 4
