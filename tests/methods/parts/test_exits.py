import copy
import gc

import pytest
import timm
import torch
import torchvision
from torch import nn

from tutelage.errors import UserError
from tutelage.losses import log_mean_probability
from tutelage.methods.parts.exits import ShallowExit, attach
from tutelage.models import CATALOGUE, Normalized, load_network, save_network
from tutelage.models.size import describe
from tutelage.testing.toys import toy_transformer

IMAGES = (4, 3, 32, 32)
NETWORKS = {
    "resnet20": lambda: CATALOGUE["resnet20"](5),
    "vgg8": lambda: CATALOGUE["vgg8"](5),
    "wrn_16_1": lambda: CATALOGUE["wrn_16_1"](5),
    "mobilenetv2": lambda: CATALOGUE["mobilenetv2"](5),
    "timm:resnet18": lambda: timm.create_model("resnet18", num_classes=5),
    "timm:efficientnet_b0": lambda: timm.create_model("efficientnet_b0", num_classes=5),
    "timm:vit_tiny": toy_transformer,
    "torchvision:resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "torchvision:vit": lambda: torchvision.models.VisionTransformer(32, 8, 4, 2, 24, 48, num_classes=5),
}
# The residual branches of networks of few or of separable convolutions are the larger part.
CHEAP = {
    "bottleneck": ("resnet20", "vgg8", "wrn_16_1", "timm:resnet18", "torchvision:resnet18"),
    "residual": ("resnet20",),
}


class Repeating(nn.Module):
    """One block, called three times, then another resolution; tokens are the output's second part."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = (
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)),
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)),
        )
        self.down, self.head = nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.Linear(12, 5)

    def forward(self, inputs):
        maps = self.stem(inputs)
        for _ in range(3):
            maps = self.block(maps).relu_()
        return self.head(self.down(maps).relu().mean((2, 3)))


def attached(network, kind="bottleneck", size=IMAGES[1:], **options):
    torch.manual_seed(0)
    student, exits = attach(network, torch.randn(2, *size), kind=kind, **options)
    return student.eval(), exits.eval()


def answers(student, exits, images):
    with torch.no_grad():
        return exits.predictions(student(images))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def hooks_of(module):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


@pytest.mark.parametrize("kind", ["bottleneck", "residual"])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_backbone_gets_exits_that_ship(name, kind):
    network = NETWORKS[name]().eval()
    untouched = copy.deepcopy(network)
    student, exits = attached(network, kind)
    images = torch.randn(IMAGES)
    predictions = answers(student, exits, images)
    shipped, members = student.release(), exits.members(student.release())
    assert list(predictions) == ["student", *members, "ensemble"]
    assert list(members) == [f"exit-{number}" for number in range(1, len(members) + 1)]
    with torch.no_grad():
        assert torch.equal(shipped(images), predictions["student"])
        assert torch.equal(untouched(images), predictions["student"])
        for key, member in members.items():
            assert torch.equal(member(images), predictions[key])
            assert hooks_of(member) == 0
    assert [len(place.unused) > 0 for place in exits.places] == [True] * len(members)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shallow_exit_holds_and_computes_nothing_beyond_it(name):
    student, exits = attached(NETWORKS[name]())
    members = exits.members(student.release())
    shallow = list(members.values())
    # What a gradient reaches is all that there is.
    for member in shallow:
        member(torch.randn(IMAGES)).sum().backward()
        idle = [key for key, parameter in member.named_parameters() if parameter.grad is None]
        assert not idle
    bodies = [describe(member).multiply_adds - _branch_cost(member) for member in shallow]
    assert bodies == sorted(bodies)
    assert bodies[-1] < describe(student.release()).multiply_adds


def _branch_cost(member):
    """Multiply-adds of the branch alone, by a network that feeds it a map of the same size."""
    sizes = []
    handle = member.branch.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1:]))
    with torch.no_grad():
        member(torch.randn(IMAGES))
    handle.remove()

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = member.branch

        def forward(self, maps):
            return self.branch(maps).logits

    return describe(Alone(), input_shape=tuple(sizes[0])).multiply_adds


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in CHEAP.items() for name in names])
def test_shallow_exits_cost_less_than_the_whole(kind, name):
    student, exits = attached(NETWORKS[name](), kind)
    whole = describe(student.release())
    costs = [describe(member).multiply_adds for member in exits.members(student.release()).values()]
    assert costs == sorted(costs)
    assert costs[-1] < whole.multiply_adds


def test_separable_exits_of_a_mobile_network_cost_less_than_the_whole():
    for kind in ("bottleneck", "residual"):
        student, exits = attached(CATALOGUE["mobilenetv2"](5), kind, separable=True)
        whole = describe(student.release()).multiply_adds
        assert all(describe(member).multiply_adds < whole for member in exits.members(student.release()).values())


def test_cost_and_parameters_are_those_of_the_parts():
    student, exits = attached(CATALOGUE["resnet20"](5))
    first, second = exits.members(student.release()).values()
    network = student.release()
    assert count(first) == count(network.stem) + count(network.layer1) + count(exits.branches[0])
    assert count(second) == count(first) - count(exits.branches[0]) + count(network.layer2) + count(exits.branches[1])
    body = nn.Sequential(network.stem, network.layer1)
    assert describe(first).multiply_adds - _branch_cost(first) == describe(body).multiply_adds


def test_a_stem_has_no_exit_and_stages_are_in_order():
    _, exits = attached(NETWORKS["torchvision:resnet18"](), size=(3, 64, 64))
    assert [place.layer for place in exits.places] == ["layer1", "layer2", "layer3"]
    assert exits.plans[0].path == ((64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2))


def test_exits_are_named_by_hand_in_any_order():
    student, exits = attached(CATALOGUE["resnet20"](5), "residual", exits="layer2+layer1.0")
    assert [place.layer for place in exits.places] == ["layer1.0", "layer2"]
    assert [len(plan.path) for plan in exits.plans] == [4, 2]
    assert student.layers == ("layer1.0", "layer2", "embedding")
    images = torch.randn(IMAGES)
    predictions = answers(student, exits, images)
    for name, member in exits.members(student.release()).items():
        assert torch.equal(member.eval()(images), predictions[name])


def test_an_exit_at_a_layers_input():
    student, exits = attached(CATALOGUE["resnet20"](5), exits="layer2:in")
    _, other = attached(CATALOGUE["resnet20"](5), exits="layer1")
    (member,) = exits.members(student.release()).values()
    images = torch.randn(IMAGES)
    assert torch.equal(member.eval()(images), answers(student, exits, images)["exit-1"])
    assert count(member.network) == count(other.members(student.release())["exit-1"].network)


@pytest.mark.parametrize("layer", ["block", "block:in"])
def test_a_layer_that_is_called_again_is_left_at_its_last_call(layer):
    student, exits = attached(Repeating(), exits=layer)
    (member,) = exits.members(student.release()).values()
    images = torch.randn(IMAGES)
    expected = answers(student, exits, images)["exit-1"]
    assert torch.equal(member(images), expected)
    # And once more: what was counted is forgotten, even behind a pass that broke off.
    with pytest.raises(RuntimeError):
        member(torch.randn(4, 2, 32, 32))
    assert torch.equal(member(images), expected)


@pytest.mark.parametrize("layer", ["one", "one:in", "down"])
def test_a_module_of_two_names_is_left_at_its_last_call_by_either(layer):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.one = nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
            self.row = nn.Sequential(nn.ReLU(), self.one)
            self.down, self.head = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2)), nn.Linear(12, 5)

        def forward(self, inputs):
            return self.head(self.down(self.row(self.one(self.stem(inputs)))).mean((2, 3)))

    student, exits = attached(Tied(), exits=layer)
    (member,) = exits.members(student.release()).values()
    images = torch.randn(IMAGES)
    for _ in range(2):
        assert torch.equal(member(images), answers(student, exits, images)["exit-1"])


def test_the_ensemble_is_the_log_of_the_mean_probability():
    student, exits = attached(CATALOGUE["resnet8"](5))
    predictions = answers(student, exits, torch.randn(IMAGES))
    parts = [logits.softmax(1) for name, logits in predictions.items() if name != "ensemble"]
    torch.testing.assert_close(predictions["ensemble"].exp(), sum(parts) / len(parts))
    assert predictions["ensemble"].shape == log_mean_probability(torch.stack(parts)).shape


def test_members_share_nothing_and_survive_copies_and_states():
    student, exits = attached(CATALOGUE["resnet8"](5))
    members = exits.members(student.release())
    held = [{id(p) for p in module.parameters()} for module in (student, exits, *members.values())]
    assert sum(map(len, held)) == len(set.union(*held))
    images = torch.randn(IMAGES)
    for number, member in enumerate(members.values()):
        twin = copy.deepcopy(member)
        assert torch.equal(twin(images), member(images))
        fresh = list(attached(CATALOGUE["resnet8"](5))[1].members(CATALOGUE["resnet8"](5).eval()).values())[number]
        fresh.load_state_dict(member.state_dict())
        assert torch.equal(fresh(images), member(images))


def test_a_normalised_student_ships_normalised_exits_and_a_compiled_one_too():
    network = load_network("resnet8,normalize=cifar10", num_classes=5)
    student, exits = attached(torch.compile(network, backend="eager"))
    member = exits.members(student.release())["exit-1"]
    assert isinstance(member, Normalized)
    assert member.normalization == network.normalization
    assert isinstance(member.model, ShallowExit)
    assert network.spec == "resnet8,normalize=cifar10"
    anonymous = Normalized(CATALOGUE["resnet8"](5), (0.5,), (0.5,))
    student, exits = attached(anonymous)
    assert exits.members(student.release())["exit-1"].spec is None


@pytest.mark.parametrize("kind", ["bottleneck", "residual"])
@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("resnet8,normalize=cifar10", {}),
        ("mobilenetv2,width=0.25", {"separable": True}),
        ("timm:resnet18,pretrained=false", {"exits": "layer1.0.conv2:in+layer2"}),
        ("timm:vit_tiny_patch16_224,img_size=32,patch_size=8,depth=4,pretrained=false", {}),
    ],
)
def test_a_shallow_exit_is_saved_and_built_again_by_its_name(tmp_path, spec, kind, options):
    student, exits = attached(load_network(spec, num_classes=5), kind, **options)
    images = torch.rand(IMAGES)
    for name, member in exits.members(student.release()).items():
        assert member.spec.startswith("exit,student=")
        save_network(tmp_path / name, member, spec=member.spec, num_classes=5, in_channels=3)
        again = load_network(str(tmp_path / name), num_classes=5).eval()
        with torch.no_grad():
            torch.testing.assert_close(again(images), member(images))
        assert count(again) == count(member)


def test_an_exit_of_an_exit():
    student, exits = attached(CATALOGUE["resnet20"](5))
    shallow = exits.members(student.release())["exit-2"]
    inner, again = attached(shallow, exits="network.layer1")
    images = torch.randn(IMAGES)
    member = again.members(inner.release())["exit-1"]
    assert torch.equal(member(images), answers(inner, again, images)["exit-1"])


def test_what_is_needed_without_being_called_is_kept():
    class Peeking(nn.Module):
        """Looks at a later layer before it calls the first."""

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1)), nn.Conv2d(6, 8, 3, 2, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, inputs):
            scale = self.two.weight.mean()
            return self.head(self.two(self.one(inputs * scale)).relu().mean((2, 3)))

    student, exits = attached(Peeking(), exits="one")
    assert exits.places[0].unused == ()
    images = torch.randn(IMAGES)
    member = exits.members(student.release())["exit-1"]
    assert torch.equal(member(images), answers(student, exits, images)["exit-1"])


def test_inputs_by_name_and_tokens_without_images():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(9, 8)
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(4))
            self.head = nn.Linear(8, 3)

        def forward(self, ids):
            tokens = self.words(ids)
            for block in self.blocks:
                tokens = block(tokens)
            return self.head(tokens.mean(1))

    ids = {"ids": torch.randint(9, (3, 6))}
    student, exits = attach(Text(), ids, kind="residual")
    student.eval(), exits.eval()
    predictions = answers(student, exits, ids)
    assert len(predictions) == 5
    for name, member in exits.members(student.release()).items():
        assert torch.equal(member(**ids), predictions[name])


def test_memory_of_a_shallow_pass_is_freed():
    student, exits = attached(CATALOGUE["resnet8"](5))
    member = exits.members(student.release())["exit-1"]
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
        for _ in range(5):
            member(torch.randn(IMAGES))
        assert sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()) == before
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
            {},
            "has one stage",
        ),
        (CATALOGUE["resnet8"](5), {"exits": "layer9"}, "In the student: There is no layer named 'layer9'"),
        (CATALOGUE["resnet8"](5), {"exits": "layer1+embedding"}, "the network's own exit"),
        (nn.Sequential(CATALOGUE["resnet8"](5), nn.ReLU6()), {}, "classifier cannot be found"),
    ],
)
def test_refusals_say_what_to_do(network, options, message):
    with pytest.raises(UserError, match=message):
        attached(network, **options)


def test_a_network_that_passes_its_exit_by_says_so():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.skip, self.one, self.head = False, nn.Sequential(nn.Conv2d(3, 6, 3)), nn.Linear(6, 5)

        def forward(self, inputs):
            maps = inputs.repeat(1, 2, 1, 1) if self.skip else self.one(inputs)
            return self.head(maps.mean((2, 3)))

    student, exits = attached(Choosing(), exits="one")
    member = exits.members(student.release())["exit-1"]
    member.network.skip = True
    member.network.head = nn.Linear(6, 5)
    with pytest.raises(UserError, match="without reaching the layer 'one'"):
        member(torch.randn(IMAGES))
