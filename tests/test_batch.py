from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from tutelage.batch import Batch, Output
from tutelage.errors import UserError


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        (torch.zeros(5, 3), None),
        ({"ids": torch.zeros(5, 3)}, None),
        ([torch.zeros(5, 3), torch.zeros(5, 4)], None),
        ({"views": [torch.zeros(5, 3)]}, None),
        (torch.zeros(10, 3), torch.zeros(5)),
    ],
)
def test_length_is_the_number_of_samples(inputs, targets):
    assert len(Batch(inputs=inputs, targets=targets)) == 5


def test_labels_are_the_targets_or_an_error():
    targets = torch.tensor([1, 2])
    assert Batch(inputs=targets, targets=targets).labels is targets
    with pytest.raises(UserError, match="needs labels, and the data carry none"):
        _ = Batch(inputs=targets).labels


def test_everything_moves_together():
    output = Output(logits=torch.zeros(2, 3), features={"a": torch.zeros(2)}, members=torch.zeros(4, 2, 3))
    batch = Batch(
        inputs={"ids": torch.zeros(2, 3), "views": [torch.zeros(2), torch.zeros(2)]},
        targets=torch.zeros(2),
        indices=torch.zeros(2),
        teacher=output,
        extras={"view": torch.zeros(2)},
    )
    moved = batch.to("meta", non_blocking=True)
    tensors = [
        moved.inputs["ids"],
        *moved.inputs["views"],
        moved.targets,
        moved.indices,
        moved.teacher.logits,
        moved.teacher.features["a"],
        moved.teacher.members,
        moved.extras["view"],
    ]
    assert all(tensor.is_meta for tensor in tensors)
    assert not batch.inputs["ids"].is_meta


def test_what_is_absent_stays_absent():
    moved = Batch(inputs=torch.zeros(2, 3)).to("meta")
    assert (moved.targets, moved.indices, moved.teacher, dict(moved.extras)) == (None, None, None, {})
    assert Output(logits=torch.zeros(1, 1)).to("meta").members is None


def test_what_is_no_tensor_is_left_alone():
    moved = Batch(inputs={"ids": torch.zeros(2), "text": "a word", "length": 3}).to("meta")
    assert (moved.inputs["text"], moved.inputs["length"]) == ("a word", 3)


@pytest.mark.parametrize("carrier", [Batch(inputs=torch.zeros(1)), Output(logits=torch.zeros(1, 1))])
def test_carriers_do_not_change(carrier):
    with pytest.raises(FrozenInstanceError):
        carrier.inputs = None


def test_features_are_not_shared_between_outputs():
    first, second = Output(logits=torch.zeros(1)), Output(logits=torch.zeros(1))
    assert first.features is not second.features


def test_a_recorded_answer_remembers_which_inputs_it_answers():
    inputs = torch.zeros(2, 3)
    batch = Batch(inputs=inputs, teacher=Output(logits=inputs))
    assert batch.asked is inputs
    assert replace(batch, inputs=inputs + 1).asked is inputs


def test_moving_a_batch_keeps_what_was_asked_the_inputs_themselves():
    clean = torch.zeros(2, 3)
    batch = Batch(inputs=clean, teacher=Output(logits=clean)).to("meta")
    assert batch.inputs.device.type == "meta"
    assert batch.asked is batch.inputs
    noisy = replace(Batch(inputs=clean, teacher=Output(logits=clean)), inputs=clean + 1, teacher_inputs=clean)
    moved = noisy.to("meta")
    assert moved.teacher_inputs is moved.asked
    assert moved.inputs is not moved.asked
