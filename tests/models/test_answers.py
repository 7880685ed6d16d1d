"""The logits in whatever networks return."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models.answers import logits_of, uncompiled


def test_a_tensor_or_what_holds_logits_is_understood():
    logits = torch.zeros(2, 3)
    assert logits_of(logits) is logits
    assert logits_of(SimpleNamespace(logits=logits)) is logits


def test_other_answers_are_refused():
    with pytest.raises(UserError, match="answers with a tuple"):
        logits_of((torch.zeros(2, 3),))


def test_a_network_comes_out_of_its_compiled_form():
    network = nn.Linear(2, 2)
    assert uncompiled(torch.compile(network)) is network
    assert uncompiled(network) is network
