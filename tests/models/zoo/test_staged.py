import pytest
import torch

from tutelage.models.catalogue import CATALOGUE

DEEP = {"tfkd_resnet101", "tfkd_densenet121", "resnet110", "vgg19", "tfkd_resnext29", "resnet32x4", "wrn_40_2"}
FAST = sorted(set(CATALOGUE) - DEEP)
CONV_BEFORE_CLASSIFIER = {"mobilenetv2", "shufflev2", "tfkd_mobilenetv2", "tfkd_shufflenetv2"}
NORM_AFTER_LAST_MAP = {"wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2", "tfkd_densenet121"}
OTHER_POOL = {"tfkd_cnn", "tfkd_alexnet", "tfkd_googlenet"}


def read(network, inputs):
    """Return logits, maps by stage name, and the embedding."""
    seen = {}
    handles = [
        network.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, o))
        for name in network.stage_names
    ]
    handles.append(network.classifier.register_forward_pre_hook(lambda m, i: seen.__setitem__("embedding", i[0])))
    before = {}
    for name in network.stage_names:
        network.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: before.__setitem__(name, o.clone())
        )
    logits = network(inputs)
    for name, value in before.items():
        assert torch.equal(seen[name], value), f"{name} was changed in place after it was read"
    return logits, seen


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_size_of_image_on_the_meta_device(name):
    with torch.device("meta"):
        network = CATALOGUE[name](7, in_channels=1).train()
        for side in (28, 32, 64):
            assert network(torch.empty(2, 1, side, side)).shape == (2, 7)
        if name != "tfkd_alexnet":
            assert network(torch.empty(2, 1, 8, 8)).shape == (2, 7)
        assert network(torch.empty(2, 1, 32, 64)).shape == (2, 7)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_last_submodule_is_the_classifier(name):
    with torch.device("meta"):
        network = CATALOGUE[name](10)
    assert [key for key, _ in network.named_children()][-1] == "classifier"
    assert network.classifier.out_features == 10


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_classifies_last_map_only_where_nothing_lies_between(name):
    with torch.device("meta"):
        network = CATALOGUE[name](10)
    between = CONV_BEFORE_CLASSIFIER | NORM_AFTER_LAST_MAP | OTHER_POOL
    assert network.classifies_last_map == (name not in between)


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet50_cifar", "vgg8", "shufflev1", "wrn_16_1", "shufflev2", "mobilenetv2"]
)
def test_embedding_is_the_pooled_last_map_where_the_facts_say_so(name):
    network = CATALOGUE[name](10).eval()
    with torch.no_grad():
        logits, seen = read(network, torch.rand(2, 3, 32, 32))
    pooled = seen[network.stage_names[-1]].mean((2, 3))
    same = pooled.shape == seen["embedding"].shape and torch.allclose(pooled, seen["embedding"], atol=1e-6)
    assert same == network.classifies_last_map
    assert torch.allclose(network.classifier(seen["embedding"]), logits)


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_resnet", "resnet8", "wrn_16_1", "vgg8", "shufflev1", "shufflev2"])
def test_no_map_is_changed_after_it_was_read(name):
    read(CATALOGUE[name](10), torch.rand(2, 3, 16, 16))


@pytest.mark.parametrize("name", ["tiny_cnn", "resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "shufflev1", "tfkd_cnn"])
def test_every_parameter_gets_a_gradient(name):
    network = CATALOGUE[name](10)
    network(torch.rand(4, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_network_rests_on_its_seed():
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(CATALOGUE["resnet8"](10))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[key], second[key]) for key in first)
