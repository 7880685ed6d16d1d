import copy
import pickle
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import nn

from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, NoisyTeacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.features.anatomy import EMBEDDING
from tutelage.features.ending import ABSENT, AbsentLogits, Ending, ReachedError
from tutelage.features.extractor import FeatureExtractor
from tutelage.models import CATALOGUE, Normalized

IMAGES = (3, 3, 32, 32)


def tiny():
    return CATALOGUE["tiny_cnn"](5)


def vit():
    return timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=32, patch_size=8, depth=3, embed_dim=24, num_classes=7
    )


def torchvision_resnet():
    return torchvision.models.resnet18(num_classes=5)


def both(network, layers, images):
    """Return what is read of a network as a whole, and of the same network as far as it is read."""
    whole = FeatureExtractor(network, layers, example=images[:2]).eval()
    ended = FeatureExtractor(network, layers, example=images[:2], logits=False).eval()
    with torch.no_grad():
        return whole(images), ended(images)


def ran(network, layers, images):
    """Return the names of the innermost modules that have run when layers are read without logits."""
    extractor = FeatureExtractor(network, layers, example=images[:2], logits=False).eval()
    names = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: names.append(name))
        for name, module in network.named_modules()
        if not any(module.children())
    ]
    with torch.no_grad():
        extractor(images)
    for handle in handles:
        handle.remove()
    return names


# Where it ends.


@pytest.mark.parametrize(
    ("make", "layers", "runs", "waits"),
    [
        (tiny, ["layer1"], ["stem", "layer1"], ["layer2", "layer3", "classifier"]),
        (tiny, ["layer2:in"], ["stem", "layer1"], ["layer2", "layer3", "classifier"]),
        (tiny, ["layer2", "stem"], ["stem", "layer1", "layer2"], ["layer3", "classifier"]),
        (tiny, [EMBEDDING], ["stem", "layer1", "layer2", "layer3"], ["classifier"]),
        (tiny, [EMBEDDING, "classifier:in", "layer1"], ["stem", "layer1", "layer2", "layer3"], ["classifier"]),
        (vit, ["blocks.1"], ["patch_embed", "blocks.0", "blocks.1"], ["blocks.2", "norm", "head"]),
        (vit, ["blocks.1:in"], ["patch_embed", "blocks.0"], ["blocks.1", "blocks.2", "norm", "head"]),
        (vit, [EMBEDDING], ["blocks.2", "norm"], ["head"]),
        (torchvision_resnet, ["layer2", "layer1.0.bn1"], ["layer1", "layer2"], ["layer3", "layer4", "fc"]),
    ],
)
def test_what_lies_behind_does_not_run_and_what_is_read_is_the_same(make, layers, runs, waits):
    network, images = make().eval(), torch.randn(IMAGES)
    whole, ended = both(network, layers, images)
    assert list(ended.features) == list(whole.features) == layers
    assert all(torch.equal(ended.features[layer], whole.features[layer]) for layer in layers)
    assert isinstance(ended.logits, AbsentLogits)
    names = ran(network, layers, images)
    assert all(any(f"{name}.".startswith(f"{part}.") for name in names) for part in runs)
    assert not any(f"{name}.".startswith(f"{part}.") for name in names for part in waits)


class Twice(nn.Module):
    """Calls one layer twice, and changes what it read in place."""

    def __init__(self):
        super().__init__()
        self.layer, self.relu, self.head = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(self.relu(self.layer(self.relu(self.layer(inputs)))))


@pytest.mark.parametrize("layers", [["layer"], ["relu"], ["relu:in", "layer"], ["layer:in"]])
def test_of_several_calls_the_last_counts(layers):
    whole, ended = both(Twice().eval(), layers, torch.randn(5, 4))
    assert all(torch.equal(ended.features[layer], whole.features[layer]) for layer in layers)
    assert ran(Twice().eval(), layers, torch.randn(5, 4))[-1] != "head"


def test_a_normalised_network_and_a_mapping_of_inputs():
    network, images = Normalized(tiny(), [0.5], [0.25]).eval(), torch.randn(IMAGES)
    whole, ended = both(network, ["layer1"], images)
    assert torch.equal(ended.features["layer1"], whole.features["layer1"])

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, values):
            return self.head(self.layer(values))

    network, values = Named(), torch.randn(3, 4)
    extractor = FeatureExtractor(network, ["layer"], example={"values": values}, logits=False).eval()
    assert torch.equal(extractor({"values": values}).features["layer"], network.layer(values))


def test_without_an_example_it_is_not_known_where_to_end():
    network, calls = tiny().eval(), []
    network.classifier.register_forward_hook(lambda *_: calls.append(1))
    output = FeatureExtractor(network, ["layer1"], logits=False).eval()(torch.randn(IMAGES))
    assert calls
    assert isinstance(output.logits, AbsentLogits)


def test_others_run_the_same_network_to_its_end():
    network, images = tiny().eval(), torch.randn(IMAGES)
    ended = FeatureExtractor(network, ["layer1"], example=images, logits=False).eval()
    whole = FeatureExtractor(network, ["layer1", "layer3"], example=images).eval()
    expected = network(images)
    for _ in range(2):
        assert list(ended(images).features) == ["layer1"]
        assert torch.equal(whole(images).logits, expected)
        assert torch.equal(network(images), expected)
    twin = copy.deepcopy(ended)
    assert torch.equal(twin(images).features["layer1"], ended(images).features["layer1"])
    assert isinstance(twin(images).logits, AbsentLogits)


def test_the_user_s_network_is_left_as_it_was():
    network = tiny()
    before = copy.deepcopy(network.state_dict())
    extractor = FeatureExtractor(network, ["layer1"], example=torch.randn(IMAGES), logits=False).eval()
    extractor(torch.randn(IMAGES))
    extractor.release()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_gradients_flow_as_before():
    network, images = tiny().eval(), torch.randn(IMAGES)
    gradients = []
    for logits in (True, False):
        extractor = FeatureExtractor(network, ["layer2"], example=images, logits=logits).eval()
        feature = extractor(images).features["layer2"]
        gradients.append(torch.autograd.grad(feature.square().sum(), network.stem[0].weight)[0])
    assert torch.equal(*gradients)


def test_an_error_within_the_network_is_not_taken_for_its_end():
    ending, value = Ending({"layer": 1}), torch.ones(2)

    def broken():
        raise ZeroDivisionError

    def another_ends():
        raise ReachedError(Ending({}), value)

    def goes_on():
        ending.note("layer", value)
        pytest.fail("It went on.")

    with pytest.raises(ReachedError):
        ending.run(lambda: Ending({"layer": 1}).run(another_ends))
    with pytest.raises(ZeroDivisionError):
        ending.run(broken)
    ending.note("layer", value)  # Nothing runs: nothing ends.
    assert ending.run(goes_on) is value
    assert ending.run(lambda: None) is None


def test_an_ending_within_another_ends_its_own_pass():
    outer, inner, values = Ending({"a": 2}), Ending({"b": 1}), torch.ones(2).unbind()

    def within():
        inner.note("b", values[1])
        pytest.fail("It went on.")

    def around():
        outer.note("a", values[0])
        assert inner.run(within) is values[1]
        outer.note("a", values[0])
        pytest.fail("It went on.")

    assert outer.run(around) is values[0]


def test_compiled_it_reads_the_same():
    network, images = tiny().eval().requires_grad_(False), torch.randn(IMAGES)
    extractor = FeatureExtractor(network, ["layer1", "layer2:in"], example=images, logits=False).eval()
    expected = extractor(images).features
    extractor.compile(backend="eager")
    with torch.no_grad():
        output = extractor(images)
    assert all(torch.equal(output.features[name], feature) for name, feature in expected.items())
    assert isinstance(output.logits, AbsentLogits)


def test_neither_logits_nor_layers_is_an_error():
    with pytest.raises(UserError, match="Neither logits nor layers"):
        FeatureExtractor(tiny(), logits=False)


# The logits that are not there.


@pytest.mark.parametrize(
    "use",
    [
        lambda logits: logits + 1,
        lambda logits: logits.shape,
        len,
        lambda logits: logits.float(),
        lambda logits: logits.softmax(1),
        lambda logits: logits[0],
        lambda logits: torch.stack([logits, logits]),
        lambda logits: torch.zeros(2, 3) * logits,
        lambda logits: nn.functional.cross_entropy(logits, torch.zeros(2, dtype=torch.long)),
        float,
    ],
)
def test_to_use_them_is_an_error_that_says_what_to_do(use):
    with pytest.raises(UserError, match=r"not computed.*reading\(layers, logits=True\)"):
        use(ABSENT)


def test_the_output_around_them_is_moved_copied_and_shown():
    output = Output(logits=ABSENT, features={"layer1": torch.ones(2)})
    assert output.to("cpu").logits is ABSENT
    assert replace(output, features={}).logits is ABSENT
    assert copy.deepcopy(output).logits is ABSENT
    assert copy.copy(ABSENT) is ABSENT
    assert pickle.loads(pickle.dumps(output)).logits is ABSENT
    assert "AbsentLogits()" in repr(output)
    assert f"{ABSENT}" == "AbsentLogits()"
    assert isinstance(ABSENT, torch.Tensor)


def test_wrappers_that_need_logits_say_so():
    example = torch.randn(IMAGES)
    ended = FrozenTeacher(tiny()).reading(["layer1"], example=example, logits=False)
    assert isinstance(ended(Batch(inputs=example)).logits, AbsentLogits)
    for wrapper in (EnsembleTeacher([ended]), NoisyTeacher(ended, std=0.1)):
        with pytest.raises(UserError, match="not computed"):
            wrapper(Batch(inputs=example))
    whole = FrozenTeacher(ended.inner_network())
    assert torch.equal(EnsembleTeacher([whole])(Batch(inputs=example)).members[0], whole(Batch(inputs=example)).logits)
