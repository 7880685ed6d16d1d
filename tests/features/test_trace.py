"""One forward pass, from which everything about a network is known; and that it never speaks for another network."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.features.anatomy import EMBEDDING, classified, classifier, place, reads, stages
from tutelage.features.extractor import FeatureExtractor, value_at
from tutelage.features.trace import Trace, inputs_of, tensor_at
from tutelage.models import CATALOGUE, Normalized

IMAGES = (2, 3, 8, 8)


class Twice(nn.Module):
    """Calls one layer twice, and never reaches another."""

    def __init__(self):
        super().__init__()
        self.stem, self.shared, self.spare = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(3, 3)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, inputs):
        return self.head(self.norm(self.shared(self.shared(self.stem(inputs)))).mean((2, 3)))


@pytest.fixture
def network():
    return Twice()


@pytest.fixture
def trace(network):
    return Trace.of(network, torch.randn(IMAGES))


def test_places_come_in_the_order_of_their_last_call(trace):
    places = ["stem:in", "stem", "shared:in", "shared", "norm", "head:in", "head"]
    assert sorted(sorted(places), key=trace.when) == places
    assert [trace.calls(one) for one in ("stem", "shared", "shared:in", "spare")] == [1, 2, 2, 0]
    assert trace.last("spare") is None
    with pytest.raises(ValueError, match="empty"):
        trace.when("spare")


def test_what_was_given_and_what_came_out_is_there(network, trace):
    network.eval()
    stem = network.stem(trace.example)
    assert torch.equal(trace.last("stem:in").value, trace.example)
    assert torch.equal(trace.last("stem").value, stem)
    assert torch.equal(trace.last("shared:in").value, network.shared(stem))
    assert torch.equal(trace.logits, network(trace.example))
    assert not trace.logits.requires_grad


def test_no_hook_stays_and_no_mode_changes(network):
    network.train().stem.eval()
    before = copy.deepcopy(network.state_dict())
    Trace.of(network, torch.randn(IMAGES))
    assert network.training
    assert not network.stem.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(RuntimeError):
        Trace.of(network, torch.randn(2, 4, 8, 8))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_an_example_is_needed(network):
    with pytest.raises(UserError, match="needs an example"):
        Trace.of(network, None)


def test_modules_have_their_names_in_the_bare_network(network):
    trace = Trace.of(torch.compile(Normalized(network, [0.5], [0.25]), backend="eager"), torch.rand(IMAGES))
    assert trace.network is network
    assert trace.last("stem").module is network.stem
    assert trace.last("").value is trace.logits


# One pass serves every question.


def test_every_question_is_answered_from_one_pass(network):
    count = []
    network.register_forward_hook(lambda *_: count.append(1))
    example = torch.randn(IMAGES)
    trace = Trace.of(network, example)
    assert Trace.of(network, trace) is trace
    assert classifier(network, trace) == "head"
    assert place(network, EMBEDDING, trace) == "head:in"
    assert [tap.layer for tap in stages(network, trace)] == ["norm"]
    assert classified(network, trace).layer == "norm"
    extractor = FeatureExtractor(network, ["shared", "norm:in", EMBEDDING], example=trace)
    assert torch.equal(value_at(trace, EMBEDDING), trace.last("head:in").value)
    assert len(count) == 1
    other = FeatureExtractor(network, ["shared", "norm:in", EMBEDDING], example=example)
    assert dict(extractor.shapes) == dict(other.shapes)
    assert inputs_of(trace) is example
    assert inputs_of(example) is example


def test_what_was_not_reached_and_what_is_no_tensor(network, trace):
    with pytest.raises(UserError, match=r"without reaching the layers \['spare'\] of Twice"):
        reads(network, ["stem", "spare"], trace)
    with pytest.raises(UserError, match="no layer named 'sten'. Did you mean 'stem'"):
        reads(network, ["sten"], trace)
    with pytest.raises(UserError, match="gives a str, not a tensor"):
        tensor_at("stem", "words")


# It is of the network as it was.


def exchange(network):
    network.shared = nn.Conv2d(4, 4, 1)


def rename(network):
    network.other = network.shared


def change(network):
    with torch.no_grad():
        network.head.weight.mul_(2)


def replace(network):
    network.head.bias = nn.Parameter(torch.zeros(5))


def load(network):
    network.load_state_dict(Twice().state_dict())


def remove(network):
    network.spare = None


@pytest.mark.parametrize("alter", [exchange, rename, change, replace, load, remove])
def test_a_trace_of_a_network_that_was_changed_since_is_refused(network, trace, alter):
    alter(network)
    for ask in (
        lambda: classifier(network, trace),
        lambda: stages(network, trace),
        lambda: classified(network, trace),
        lambda: FeatureExtractor(network, ["stem"], example=trace),
        lambda: reads(network, ["stem"], trace),
    ):
        with pytest.raises(ValueError, match="not of this Twice as it is now: trace it again"):
            ask()


def test_a_trace_of_another_network_is_refused(network, trace):
    for other in (copy.deepcopy(network), Twice(), Normalized(network, [0.5], [0.25])):
        with pytest.raises(ValueError, match="trace it again"):
            classifier(other, trace)


def test_what_changes_nothing_that_was_seen_leaves_a_trace_as_it_is(network, trace):
    network.train().requires_grad_(False)
    network(torch.randn(IMAGES))  # Running statistics move.
    FeatureExtractor(network, ["stem"])(torch.randn(IMAGES))
    assert classifier(network, trace) == "head"
    assert Trace.of(torch.compile(network, backend="eager"), trace) is trace


def test_nothing_of_a_trace_is_kept():
    network = CATALOGUE["tiny_cnn"](5)
    trace = Trace.of(network, torch.randn(2, 3, 16, 16))
    extractor = FeatureExtractor(network, ["layer1", EMBEDDING], example=trace)
    held = [weakref.ref(trace), weakref.ref(trace.last("layer1").value)]
    del trace
    gc.collect()
    assert [one() for one in held] == [None, None]
    assert extractor.shapes["layer1"] == (2, 12, 16, 16)


# What is changed in place afterwards is not what a layer gave.


class Altering(nn.Module):
    """Changes in place what its layers gave."""

    def __init__(self, *, logits=False, maps=False):
        super().__init__()
        self.logits, self.maps = logits, maps
        self.body, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, inputs):
        maps = self.norm(self.body(inputs))
        if self.maps:
            maps.relu_()
        logits = self.head(maps.mean((2, 3)))
        return logits.mul_(2) if self.logits else logits


def test_what_was_changed_in_place_is_not_intact():
    trace = Trace.of(Altering(maps=True), torch.randn(IMAGES))
    assert not trace.last("norm").is_intact
    assert all(trace.last(place).is_intact for place in ("body", "body:in", "norm:in", "head:in", "head", ""))


def test_logits_that_were_changed_in_place_are_not_the_classifiers():
    images = torch.randn(IMAGES)
    assert classifier(Altering(), images) == "head"
    with pytest.raises(UserError, match="no linear or 1x1-convolution layer whose output is its logits"):
        classifier(Altering(logits=True), images)


def test_a_map_that_was_changed_in_place_is_not_the_one_that_is_classified():
    images = torch.randn(IMAGES)
    assert classified(Altering(), images).layer == "norm"
    # What a hook reads there is the map before the ReLU, and its mean is no embedding.
    assert classified(Altering(maps=True), images).layer == EMBEDDING


def test_a_value_is_that_of_the_moment_at_which_it_was_read():
    network, images = Altering(maps=True).eval(), torch.randn(IMAGES)
    expected = network.norm(network.body(images))
    assert torch.equal(value_at(Trace.of(network, images), "norm"), expected)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


# Padding that torch would pack away.


class Words(nn.Module):
    """torch's own encoder, which in eval mode packs padded tokens into nested tensors."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 3), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(self.words(input_ids), src_key_padding_mask=attention_mask == 0)
        return self.head(hidden[:, 0])


@pytest.mark.parametrize("logits", [True, False])
def test_layers_of_torchs_encoder_keep_their_padding(logits):
    network = Words().eval()
    inputs = {"input_ids": torch.randint(9, (2, 5)), "attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])}
    expected = network(**inputs)
    assert [tap.layer for tap in stages(network, inputs)] == [f"encoder.layers.{number}" for number in range(3)]
    extractor = FeatureExtractor(network, ["encoder.layers.0", "encoder.layers.2"], example=inputs, logits=logits)
    for twin in (extractor.eval(), copy.deepcopy(extractor)):
        with torch.no_grad():
            output = twin(inputs)
        assert output.features["encoder.layers.2"].shape == (2, 5, 8)
        assert not output.features["encoder.layers.0"].is_nested
        if logits:
            torch.testing.assert_close(output.logits, expected)
    assert network.encoder.use_nested_tensor
