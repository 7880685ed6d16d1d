"""The teacher of a recording says what was recorded, knows the shapes of its layers, and names what it lacks."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch

from tutelage.core.pairing import pair
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, NoisyTeacher, UniformTeacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import NoLayersError, UserError
from tutelage.methods.at import AT
from tutelage.methods.crd import CRD
from tutelage.methods.fickle_teacher import fickle
from tutelage.methods.kd import KD
from tutelage.methods.sp import SP
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import LAYERS, SIZE, ToyNetwork, toy_data, toy_recording, toy_teacher
from tutelage.training.run import replayed

EXAMPLE = torch.zeros(2, 3, *SIZE)


@pytest.fixture(scope="module")
def layered():
    return RecordedTeacher(toy_recording("full", layers=LAYERS))


def test_it_answers_what_the_data_carry():
    output = Output(logits=torch.randn(2, 3))
    assert RecordedTeacher()(Batch(inputs=torch.zeros(2, 1), teacher=output)) is output
    with pytest.raises(UserError, match="no recorded teacher output"):
        RecordedTeacher()(Batch(inputs=torch.zeros(2, 1)))


def test_it_does_not_answer_about_inputs_that_were_made_of_the_recorded_ones():
    inputs = torch.zeros(2, 1)
    batch = Batch(inputs=inputs, teacher=Output(logits=inputs))
    with pytest.raises(UserError, match="has answers only to its own views"):
        RecordedTeacher()(replace(batch, inputs=inputs + 1))
    changed = Batch(inputs=torch.zeros(2, 1), teacher=Output(logits=inputs))
    changed.inputs.mul_(0.5)
    with pytest.raises(UserError, match="made or changed"):
        RecordedTeacher()(changed)
    # What the student sees may be disturbed, as long as the teacher is asked about the recorded view.
    noisy = replace(batch, inputs=inputs + 1, teacher_inputs=inputs)
    assert RecordedTeacher()(noisy) is batch.teacher


def test_recorded_features_of_padded_text_know_which_tokens_count():
    """Without the mask, a mean over places would take the padding for tokens, without a word."""
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    said = Output(logits=torch.randn(2, 3), features={"layer": torch.randn(2, 3, 4)})
    batch = Batch(inputs={"input_ids": torch.ones(2, 3, dtype=torch.int64), "attention_mask": mask}, teacher=said)
    found = RecordedTeacher()(batch)
    assert found.valid is mask
    assert found.features is said.features
    assert found.logits is said.logits


def test_recorded_layers_have_the_shapes_that_the_network_gives(layered):
    live = toy_teacher().reading(LAYERS, example=EXAMPLE)
    assert dict(layered.reading(LAYERS, example=EXAMPLE).shapes) == dict(live.shapes)
    assert layered.reading(["layer1"]).shapes == {}


@pytest.mark.parametrize("layers", ["auto", "layer1:layer2+layer2:layer1", "layer2"])
def test_pairs_are_those_of_the_network(layers, layered):
    pairs = pair(ToyNetwork(), layered, layers, EXAMPLE).pairs
    assert pairs == pair(ToyNetwork(), toy_teacher(), layers, EXAMPLE).pairs


@pytest.mark.parametrize("layers", [("layer2",), ("embedding", "layer2"), ("layer2", "layer1")])
def test_what_is_paired_of_itself_does_not_depend_on_what_was_recorded(layers):
    teacher = RecordedTeacher(toy_recording("full", layers=layers))
    live = pair(ToyNetwork(), toy_teacher(), "auto", EXAMPLE, take="last").pairs
    assert pair(ToyNetwork(), teacher, "auto", EXAMPLE, take="last").pairs == live
    SP(ToyNetwork(), teacher, EXAMPLE)


def test_a_stage_that_was_not_recorded_is_not_taken_for_another():
    teacher = RecordedTeacher(toy_recording("full", layers=("layer1",)))
    with pytest.raises(NoLayersError, match=r"reads layer2 .* layers layer1: record these layers .*, name pairs"):
        SP(ToyNetwork(), teacher, EXAMPLE)
    with pytest.raises(NoLayersError, match="reads layer2"):
        AT(ToyNetwork(), teacher, EXAMPLE)
    SP(ToyNetwork(), teacher, EXAMPLE, layers="layer2:layer1")
    blind = copy.copy(toy_recording("full", layers=("layer1",)))
    blind.header = replace(blind.header, stages={})
    with pytest.raises(NoLayersError, match="reads layers of .* its layers layer1: name pairs of layers"):
        SP(ToyNetwork(), RecordedTeacher(blind), EXAMPLE)


def test_only_the_layers_that_a_method_reads_are_read_from_disk(layered):
    data = replace(toy_data(), recording=layered.recording)
    for method, layers in {
        KD(ToyNetwork(), layered): (),
        SP(ToyNetwork(), layered, EXAMPLE): ("layer2",),
        AT(ToyNetwork(), layered, EXAMPLE): ("layer1", "layer2"),
    }.items():
        found = replayed(method, data).recording
        assert found.layers == layers
        assert found.fingerprint == layered.recording.fingerprint
    assert replayed(KD(ToyNetwork(), layered), toy_data()).recording is None


def test_features_are_read_where_they_were_recorded(layered):
    recording = layered.recording
    batch = next(iter(replace(toy_data(), recording=recording).loader("train", train=True, batch_size=12).epoch(0)))
    live = toy_teacher().reading(LAYERS, example=EXAMPLE)(batch)
    said = layered.reading(LAYERS, example=EXAMPLE)(batch)
    for layer in LAYERS:
        assert torch.allclose(said.features[layer], live.features[layer], atol=1e-6)
    CRD(ToyNetwork(), layered, toy_data(), EXAMPLE, batch_size=12, negatives=4)


def test_layers_that_were_not_recorded_are_named(layered):
    with pytest.raises(NoLayersError, match=r"reads layer9 .* its layers layer1, layer2, embedding: record these"):
        AT(ToyNetwork(), layered, EXAMPLE, layers="layer1:layer9")
    with pytest.raises(NoLayersError, match="reads layers of the teacher, and a recording holds only its answers: rec"):
        AT(ToyNetwork(), RecordedTeacher(toy_recording("full")), EXAMPLE)


def test_the_network_itself_is_not_in_a_recording(layered):
    with pytest.raises(NoLayersError, match="network itself, such as its classifier"):
        layered.inner_network()
    with pytest.raises(NoLayersError, match="RecordedTeacher gives only logits"):
        fickle(layered, EXAMPLE)


def test_a_recording_is_found_inside_other_teachers(layered):
    assert UniformTeacher(3).replays() is None
    assert FrozenTeacher(ToyNetwork()).replays() is None
    assert NoisyTeacher(layered, std=0.1).replays() is layered.recording
    assert EnsembleTeacher([layered, layered]).replays() is layered.recording
    with pytest.raises(UserError, match="cannot be combined with other teachers"):
        EnsembleTeacher([layered, RecordedTeacher(toy_recording("hard"))]).replays()


def test_it_travels_to_another_process_without_its_rows(layered):
    twin = pickle.loads(pickle.dumps(layered))
    assert twin.recording.fingerprint == layered.recording.fingerprint
