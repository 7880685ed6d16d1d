"""Adapters are of the type and on the device of what they adapt."""

import pytest
import torch
from torch import nn

from tutelage.features.adapting import adapting, in_one_type, number_type, taken_by, wide_type


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_an_adapter_takes_the_type_of_its_network(dtype):
    network = nn.Linear(3, 2).to(dtype)
    assert adapting(nn.Linear(2, 4), network).weight.dtype == dtype
    assert number_type(network) == dtype
    assert taken_by(network, torch.rand(5, 3, dtype=torch.float64)).dtype == dtype


def test_what_is_widened_is_adapted_in_its_wider_type():
    half, double = nn.Linear(3, 2).bfloat16(), nn.Linear(3, 2).double()
    assert adapting(nn.Linear(2, 4), half, wide=True).weight.dtype == torch.float32
    assert adapting(nn.Linear(2, 4), double, wide=True).weight.dtype == torch.float64
    assert wide_type(torch.float16) == torch.float32


@pytest.mark.parametrize(
    ("student", "teacher", "wanted"),
    [
        (torch.float32, torch.float64, torch.float64),
        (torch.float64, torch.bfloat16, torch.float64),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float32, torch.float32),
    ],
)
def test_what_two_networks_give_is_compared_in_the_wider_type(student, teacher, wanted):
    one, other = torch.rand(3).to(student).requires_grad_(), torch.rand(3).to(teacher)
    ours, theirs = in_one_type(one, other)
    assert (ours.dtype, theirs.dtype) == (wanted, wanted)
    nn.functional.mse_loss(ours, theirs).backward()
    assert one.grad is not None
    assert one.grad.dtype == student


def test_a_network_without_numbers_changes_nothing():
    adapter = nn.Linear(2, 4)
    assert adapting(adapter, nn.Flatten()).weight.dtype == torch.float32
    assert number_type(nn.Flatten()) == torch.get_default_dtype()
