import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from tutelage.data.batch import SUPERVISED, Batch, Output
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
    with pytest.raises(UserError, match="needs labels, but the data have none"):
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


@pytest.mark.parametrize(
    "carry",
    [
        lambda batch: batch,
        replace,
        lambda batch: batch.to("cpu"),
        lambda batch: batch.to("meta"),
        lambda batch: pickle.loads(pickle.dumps(batch)),
        copy.copy,
        copy.deepcopy,
        lambda batch: copy.deepcopy(batch.to("meta")),
    ],
)
def test_inputs_that_were_changed_in_place_are_no_longer_what_was_asked(carry):
    inputs = torch.zeros(2, 3).add_(1)
    batch = Batch(inputs=inputs, teacher=Output(logits=torch.zeros(2, 3)))
    assert carry(batch).asks_what_was_asked
    carried = carry(batch)
    carried.inputs.add_(1)
    assert not carried.asks_what_was_asked
    inputs.add_(1)
    assert not carry(batch).asks_what_was_asked
    assert not carry(carry(batch)).asks_what_was_asked


def test_a_gradient_of_the_inputs_does_not_change_them():
    batch = Batch(inputs=torch.zeros(2, 3), teacher=Output(logits=torch.zeros(2, 3)))
    batch.inputs.requires_grad_().sum().backward()
    assert batch.asks_what_was_asked


def test_inputs_that_count_no_changes_are_known_by_themselves():
    with torch.inference_mode():
        inputs = torch.zeros(2, 3)
    for asked in (inputs, {"ids": torch.zeros(2, 3)}, [torch.zeros(2), torch.zeros(2)]):
        batch = Batch(inputs=asked, teacher=Output(logits=torch.zeros(2, 3)))
        assert batch.asks_what_was_asked
        assert batch.to("cpu").asks_what_was_asked
        assert replace(batch, targets=torch.zeros(2)).asks_what_was_asked
        assert pickle.loads(pickle.dumps(batch)).asks_what_was_asked
        assert not replace(batch, inputs=torch.zeros(2, 3)).asks_what_was_asked


def test_the_supervised_loss_is_named_and_absent_without_targets():
    answers = torch.randn(4, 3)
    labelled = Batch(inputs=torch.zeros(4, 1), targets=torch.tensor([0, 1, 2, -1]))
    assert list(labelled.supervised(answers)) == [SUPERVISED] == ["ce"]
    assert torch.equal(labelled.supervised(answers)["ce"], labelled.loss(answers))
    assert Batch(inputs=torch.zeros(4, 1)).supervised(answers) == {}
