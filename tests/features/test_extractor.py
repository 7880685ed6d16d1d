import copy
import io
import pickle

import pytest
import timm
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.features.anatomy import EMBEDDING, classifier, stages
from tutelage.features.extractor import FeatureExtractor
from tutelage.models import CATALOGUE, Normalized
from tutelage.models.answers import logits_of
from tutelage.models.modes import evaluating

IMAGES = (2, 3, 32, 32)


class Body(nn.Module):
    """Answers with a tuple whose second part is of no interest."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, inputs):
        return self.layer(inputs), "attention"


class Text(nn.Module):
    """Takes words by name, and answers with an object."""

    def __init__(self):
        super().__init__()
        self.words, self.body, self.head, self.spare = nn.Embedding(9, 4), Body(), nn.Linear(6, 3), nn.Linear(2, 2)

    def forward(self, ids, mask=None):
        hidden, _ = self.body(self.words(ids).mean(1))

        class Answer:
            logits = self.head(hidden)

        return Answer()


class ByKeyword(nn.Module):
    """Hands its input on by keyword."""

    def __init__(self):
        super().__init__()
        self.first, self.head = Body(), nn.Linear(6, 3)

    def forward(self, inputs):
        return self.head(input=self.first(inputs=inputs)[0])


def hooks_of(module):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def tiny():
    return CATALOGUE["tiny_cnn"](5)


def vit():
    return timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=32, patch_size=8, depth=2, embed_dim=24, num_classes=7
    )


# What is read.


def test_outputs_inputs_and_the_embedding():
    model = tiny().eval()
    extractor = FeatureExtractor(model, ["layer1", "layer2:in", EMBEDDING], example=torch.zeros(IMAGES)).eval()
    images = torch.randn(4, 3, 32, 32)
    output = extractor(images)
    first = model.layer1(model.stem(images))
    embedding = model.layer3(model.layer2(first)).mean((2, 3))
    assert torch.equal(output.logits, model(images))
    assert torch.equal(output.features["layer1"], first)
    assert torch.equal(output.features["layer2:in"], first)
    assert torch.allclose(output.features[EMBEDDING], embedding, atol=1e-6)
    assert list(output.features) == ["layer1", "layer2:in", EMBEDDING]


def test_shapes_are_known_at_construction():
    extractor = FeatureExtractor(tiny(), ["layer1", "layer3", EMBEDDING], example=torch.zeros(IMAGES))
    assert dict(extractor.shapes) == {"layer1": (2, 12, 32, 32), "layer3": (2, 48, 8, 8), EMBEDDING: (2, 48)}
    assert dict(FeatureExtractor(tiny(), ["layer1"]).shapes) == {}


def test_construction_leaves_the_network_as_it_was():
    model = tiny().train()
    model.layer2.eval()
    before = copy.deepcopy(model.state_dict())
    FeatureExtractor(model, ["layer1", EMBEDDING], example=torch.randn(IMAGES))
    assert model.training
    assert model.layer1.training
    assert not model.layer2.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_features_carry_gradients():
    extractor = FeatureExtractor(tiny(), ["layer1"])
    extractor(torch.randn(IMAGES)).features["layer1"].mean().backward()
    assert extractor.model.stem[0].weight.grad.abs().sum() > 0
    assert extractor.model.layer3[0].weight.grad is None


def test_no_layers_means_no_hooks():
    extractor = FeatureExtractor(tiny())
    assert extractor(torch.randn(IMAGES)).features == {}
    assert hooks_of(extractor.model) == 0


def test_a_tuple_gives_its_first_part():
    extractor = FeatureExtractor(Text(), ["body", "body:in"])
    output = extractor({"ids": torch.tensor([[1, 2], [3, 4]])})
    assert output.features["body"].shape == (2, 6)
    assert output.features["body:in"].shape == (2, 4)


def test_a_mapping_is_taken_apart_and_logits_are_found_in_an_object():
    ids = torch.tensor([[1, 2], [3, 4]])
    extractor = FeatureExtractor(Text(), [EMBEDDING], example={"ids": ids, "mask": None})
    output = extractor({"ids": ids, "mask": None})
    assert extractor.shapes[EMBEDDING] == (2, 6)
    assert torch.equal(output.logits, extractor.model.head(output.features[EMBEDDING]))
    assert logits_of(output.logits) is output.logits


def test_inputs_by_keyword_are_read_as_well():
    model = ByKeyword()
    output = FeatureExtractor(model, ["head:in", "first:in", EMBEDDING], example=torch.randn(2, 4))(torch.ones(2, 4))
    assert torch.equal(output.features["first:in"], torch.ones(2, 4))
    assert torch.equal(output.features["head:in"], model.first(torch.ones(2, 4))[0])
    assert torch.equal(output.features[EMBEDDING], output.features["head:in"])


def test_layers_are_named_inside_the_normalised_network():
    extractor = FeatureExtractor(Normalized(tiny(), [0.5], [0.25]), ["layer1"], example=torch.zeros(IMAGES))
    assert extractor.shapes["layer1"] == (2, 12, 32, 32)
    assert extractor(torch.zeros(IMAGES)).features["layer1"].shape == (2, 12, 32, 32)


def test_a_network_may_be_read_by_several():
    model, images = tiny().eval(), torch.randn(IMAGES)
    first, second = FeatureExtractor(model, ["layer1"]).eval(), FeatureExtractor(model, ["layer3"]).eval()
    assert list(first(images).features) == ["layer1"]
    assert list(second(images).features) == ["layer3"]
    first(images)
    assert second._captured == {}
    first.release()
    assert list(second(images).features) == ["layer3"]


def test_a_copy_of_a_network_that_is_read_holds_nothing():
    model = tiny()
    extractor = FeatureExtractor(model, ["layer1"], example=torch.zeros(IMAGES))
    extractor(torch.randn(IMAGES))
    twin = copy.deepcopy(model)
    twin(torch.randn(IMAGES))
    again = copy.deepcopy(twin)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert list(FeatureExtractor(again, ["layer2"])(torch.randn(IMAGES)).features) == ["layer2"]


# What cannot be read.


def test_a_wrong_name_with_the_nearest():
    with pytest.raises(UserError, match="no layer named 'layer9'. Did you mean 'layer"):
        FeatureExtractor(tiny(), ["layer9"])


@pytest.mark.parametrize("layer", ["layer1:out", "layer1:"])
def test_a_place_is_an_output_or_an_input(layer):
    with pytest.raises(UserError, match="'layer1:.*' is not a place to read.*'layer1:in' for the input"):
        FeatureExtractor(tiny(), [layer])


def test_a_layer_that_is_never_reached_is_an_error():
    ids = {"ids": torch.tensor([[1, 2], [3, 4]])}
    message = r"without reaching the layers \['spare'\] of Text"
    with pytest.raises(UserError, match=message):
        FeatureExtractor(Text(), ["body", "spare"], example=ids)
    extractor = FeatureExtractor(Text(), ["spare"])
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            extractor(ids)


def test_a_layer_that_is_reached_once_is_not_remembered():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.side, self.head, self.on = nn.Linear(4, 4), nn.Linear(4, 3), True

        def forward(self, inputs):
            return self.head(self.side(inputs) if self.on else inputs)

    model = Sometimes()
    extractor = FeatureExtractor(model, ["side"], example=torch.ones(2, 4))
    extractor(torch.ones(2, 4))
    model.on = False
    with pytest.raises(UserError, match=r"\['side'\]"):
        extractor(torch.ones(2, 4))


# Leaving no trace.


def test_release_leaves_no_hooks_and_the_next_pass_attaches_them_again():
    model = tiny()
    extractor = FeatureExtractor(model, ["layer1", "layer2:in"], example=torch.zeros(IMAGES))
    extractor(torch.randn(IMAGES))
    assert hooks_of(model) == 2
    assert extractor.release() is model
    assert hooks_of(model) == 0
    assert list(extractor(torch.randn(IMAGES)).features) == ["layer1", "layer2:in"]
    assert hooks_of(model) == 2


def test_nothing_is_held_after_a_pass():
    extractor = FeatureExtractor(tiny(), ["layer1"])
    extractor(torch.randn(IMAGES))
    assert extractor._captured == {}


def test_weights_are_the_networks_own():
    model = tiny()
    extractor = FeatureExtractor(model, ["layer1"], example=torch.zeros(IMAGES))
    assert {key.removeprefix("model.") for key in extractor.state_dict()} == set(model.state_dict())
    file = io.BytesIO()
    torch.save(extractor.state_dict(), file)
    file.seek(0)
    twin = FeatureExtractor(tiny(), ["layer2"])
    twin.load_state_dict(torch.load(file, weights_only=True))
    images = torch.randn(IMAGES)
    assert torch.equal(twin.eval()(images).logits, extractor.eval()(images).logits)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda extractor: pickle.loads(pickle.dumps(extractor))])
def test_a_copy_reads_its_own_network(how):
    extractor = FeatureExtractor(tiny(), ["layer1"], example=torch.zeros(IMAGES)).eval()
    images = torch.randn(IMAGES)
    before = extractor(images)
    twin = how(extractor)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(images).features["layer1"].abs().sum() == 0
    after = extractor(images)
    assert torch.equal(after.features["layer1"], before.features["layer1"])
    assert twin.shapes == extractor.shapes
    assert hooks_of(twin.model) == hooks_of(extractor.model) == 1


@pytest.mark.parametrize("layers", [[], ["layer1", "layer2:in", EMBEDDING]])
def test_compiled_network_says_the_same(layers):
    extractor = FeatureExtractor(tiny(), layers, example=torch.zeros(IMAGES)).eval()
    images = torch.randn(IMAGES)
    plain = extractor(images)
    extractor.compile(backend="eager")
    for _ in range(2):
        found = extractor(images)
        assert torch.allclose(found.logits, plain.logits)
        assert found.features.keys() == plain.features.keys()
        assert all(torch.allclose(found.features[name], plain.features[name]) for name in layers)
    extractor.train()
    assert list(extractor(images).features) == layers
    twin = copy.deepcopy(extractor).eval()
    assert list(twin(images).features) == layers
    assert list(extractor.eval()(images).features) == layers
    assert hooks_of(extractor.release()) == 0


def test_compiled_networks_of_one_architecture_do_not_mix_up_their_features():
    extractors = [FeatureExtractor(tiny(), layers).eval() for layers in ([], ["layer1"], ["layer1"], ["layer2"])]
    images = torch.randn(IMAGES)
    plain = [extractor(images) for extractor in extractors]
    for extractor in extractors:
        extractor.compile(backend="eager")
    for _ in range(2):
        for extractor, expected in zip(extractors, plain, strict=True):
            found = extractor(images)
            assert found.features.keys() == expected.features.keys()
            assert all(torch.allclose(found.features[name], expected.features[name]) for name in found.features)


def test_a_network_that_its_user_compiled_is_read():
    model = tiny().eval()
    compiled = torch.compile(model, backend="eager")
    images = torch.randn(IMAGES)
    compiled(images)
    extractor = FeatureExtractor(compiled, ["layer1", EMBEDDING], example=images).eval()
    assert torch.equal(extractor(images).features["layer1"], model.layer1(model.stem(images)))
    assert classifier(compiled, images) == "classifier"
    assert [tap.layer for tap in stages(compiled, images)] == ["layer1", "layer2", "layer3"]
    assert FeatureExtractor(compiled).model is compiled


# Modes.


def test_evaluating_returns_every_module_to_its_mode():
    model, other = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)), nn.Linear(1, 1).eval()
    model[0].eval()
    with evaluating(model, other):
        assert not any(module.training for module in [*model.modules(), other])
    assert [model.training, model[0].training, model[1].training, other.training] == [True, False, True, False]
    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        raise RuntimeError("stop")
    assert model[1].training


class InPlace(nn.Module):
    """Its ReLUs change what they are given."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.relu = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 5)

    def forward(self, inputs):
        return self.head(self.relu(self.norm(self.body(inputs))).mean((2, 3)))


@pytest.mark.parametrize("backend", [None, "eager"])
def test_what_is_changed_in_place_afterwards_is_read_as_it_was(backend):
    network, images = InPlace().eval(), torch.randn(2, 3, 4, 4)
    expected = network.norm(network.body(images))
    extractor = FeatureExtractor(network, ["norm", "relu:in", "relu", "body"], example=images).eval()
    if backend:
        extractor.compile(backend=backend)
    features = extractor(images).features
    assert torch.equal(features["norm"], expected)
    assert torch.equal(features["relu:in"], expected)
    assert torch.equal(features["relu"], expected.relu())
    assert torch.equal(features["body"], network.body(images))


def test_a_network_on_which_a_layer_was_not_reached_keeps_no_hook():
    network = InPlace()
    network.spare = nn.Linear(1, 1)
    with pytest.raises(UserError, match="without reaching"):
        FeatureExtractor(network, ["norm", "spare"], example=torch.randn(2, 3, 4, 4))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("answer", "is_read"), [(dict, True), (list, True), (set, False), (lambda pairs: [None], False)]
)
def test_of_several_tensors_the_first_is_read_and_what_is_none_is_refused(answer, is_read):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, inputs):
            return self.inner({"out": inputs} if answer is dict else answer([inputs]))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.head = Wrapped(), nn.Linear(4, 5)

        def forward(self, inputs):
            self.part(inputs)
            return self.head(inputs)

    if is_read:
        assert FeatureExtractor(Network(), ["part"], example=torch.randn(2, 4)).shapes["part"] == (2, 4)
    else:
        with pytest.raises(UserError, match="The layer 'part' gives a .*, not a tensor"):
            FeatureExtractor(Network(), ["part"], example=torch.randn(2, 4))
