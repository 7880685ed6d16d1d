import pytest
import torch

from tutelage.errors import UserError
from tutelage.methods.parts.labels import all_labelled


def test_labels_of_all_samples_are_what_they_were():
    targets = torch.tensor([0, 2, 1])
    assert all_labelled(targets, "crd") is targets


def test_samples_without_a_label_are_counted():
    with pytest.raises(UserError, match=r"crd .* 2 of the 4 training samples have no label"):
        all_labelled(torch.tensor([0, -1, 1, -1]), "crd")
