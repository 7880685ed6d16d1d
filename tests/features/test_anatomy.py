import pytest
import timm
import torch
import torchvision
from torch import nn

from tutelage.data.batch import Output
from tutelage.errors import UserError
from tutelage.features.anatomy import EMBEDDING, Tap, classified, classifier, classifier_copy, stages
from tutelage.features.extractor import FeatureExtractor
from tutelage.models import CATALOGUE, Normalized
from tutelage.models.answers import logits_of

IMAGES = (2, 3, 32, 32)


def hooks_of(module):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def vit(**options):
    sizes = {"img_size": 32, "patch_size": 8, "depth": 6, "embed_dim": 24, "num_heads": 3, "num_classes": 7}
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, **sizes | options)


def names(taps):
    return [tap.layer for tap in taps]


class Words(nn.Module):
    """A text transformer in small: takes words by name, answers with an object, its blocks with tuples."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(8, 8)

        def forward(self, hidden):
            return self.mix(hidden), "attention"

    def __init__(self, blocks=8):
        super().__init__()
        self.words = nn.Embedding(9, 8)
        self.layer = nn.ModuleList([self.Block() for _ in range(blocks)])
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        hidden = self.words(ids)
        for block in self.layer:
            hidden = block(hidden)[0]

        class Answer:
            logits = self.head(hidden[:, 0])

        return Answer()


# The classifier.


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_resnet", "resnet8", "vgg8", "shufflev2", "wrn_16_1", "mobilenetv2"])
def test_classifier_of_networks_of_the_catalogue(name):
    model = CATALOGUE[name](5)
    found = classifier(model, torch.randn(IMAGES))
    assert model.get_submodule(found) is model.classifier
    assert hooks_of(model) == 0


def test_classifier_that_is_a_convolution():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 5, 1), nn.Flatten())
    assert classifier(model, torch.randn(IMAGES)) == "2"
    assert FeatureExtractor(model, [EMBEDDING], example=torch.randn(IMAGES)).shapes[EMBEDDING] == (2, 6, 1, 1)


def test_classifier_of_a_transformer():
    assert classifier(vit(), torch.randn(IMAGES)) == "head"
    extractor = FeatureExtractor(vit(), ["blocks.0", EMBEDDING], example=torch.randn(IMAGES))
    assert dict(extractor.shapes) == {"blocks.0": (2, 17, 24), EMBEDDING: (2, 24)}


def test_classifier_is_found_by_what_it_computes_not_by_its_place():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.top, self.side, self.body = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 4)

        def forward(self, inputs):
            hidden = self.body(inputs)
            logits = self.top(hidden)
            self.side(hidden)
            return logits

    assert classifier(Backwards(), torch.randn(2, 4)) == "top"


def test_a_classifier_that_cannot_be_found():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU6())
    with pytest.raises(UserError, match="Sequential has no linear .*Name the layer to read instead of 'embedding'"):
        classifier(model, torch.randn(8, 4))
    assert hooks_of(model) == 0
    with pytest.raises(UserError, match="needs an example"):
        FeatureExtractor(model, [EMBEDDING])


@pytest.mark.parametrize("name", ["tiny_cnn", "wrn_16_1", "shufflev2"])
def test_a_copy_of_the_classifier_maps_the_embedding_to_the_logits(name):
    model, images = CATALOGUE[name](5).eval(), torch.randn(IMAGES)
    extractor = FeatureExtractor(model, [EMBEDDING], example=images)
    output = extractor(images)
    copied = classifier_copy(model, images)
    assert hooks_of(model) == 1
    assert hooks_of(copied) == 0
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert model.classifier.weight.requires_grad
    torch.testing.assert_close(copied(output.features[EMBEDDING]), output.logits)


def test_a_classifier_that_is_a_convolution_is_copied_as_a_linear_layer():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 5, 1, bias=False), nn.Flatten())
    images = torch.randn(IMAGES)
    copied = classifier_copy(model, images)
    assert copied.bias is None
    torch.testing.assert_close(copied(model[1](model[0](images)).flatten(1)), model(images))
    wide = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(2), nn.Conv2d(6, 5, 2), nn.Flatten())
    with pytest.raises(UserError, match="only a 1x1 convolution"):
        classifier_copy(wide, images)


def test_an_answer_without_logits_is_refused():
    with pytest.raises(UserError, match="returned a tuple: it must return the logits"):
        logits_of((torch.zeros(2, 3), None))


# The map that it classifies.


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (CATALOGUE["resnet8"](5), "layer3"),
        (CATALOGUE["vgg8"](5), "layer4"),
        # Normalisation and convolution lie between the last stage and the pool: they are never skipped.
        (CATALOGUE["wrn_16_1"](5), "tail"),
        (CATALOGUE["shufflev2"](5), "tail"),
        (CATALOGUE["mobilenetv2"](5), "tail"),
        (Normalized(CATALOGUE["resnet8"](5), [0.5], [0.25]), "layer3"),
        (timm.create_model("test_resnet", num_classes=5), "layer4"),
        (torchvision.models.shufflenet_v2_x0_5(num_classes=5), "conv5"),
        (timm.create_model("test_convnext", num_classes=5), EMBEDDING),
        (vit(), EMBEDDING),
    ],
)
def test_the_mean_of_the_classified_map_is_the_embedding(model, layer):
    size = 32 if layer == EMBEDDING else 64
    images = torch.randn(2, 3, size, size)
    tap = classified(model, images)
    assert tap.layer == layer
    output = FeatureExtractor(model, [tap.layer, EMBEDDING], example=images).eval()(images)
    torch.testing.assert_close(tap.map(output).mean((2, 3)), output.features[EMBEDDING].flatten(1))


# Stages.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny_cnn", ["layer1", "layer2", "layer3"]),
        ("resnet8", ["layer1", "layer2", "layer3"]),
        ("wrn_16_1", ["layer1", "layer2", "layer3"]),
        ("vgg8", ["layer1", "layer2", "layer3", "layer4"]),
        ("shufflev2", ["layer1", "layer2", "layer3"]),
        ("mobilenetv2", ["layer1", "layer2", "layer3", "layer4"]),
    ],
)
def test_our_networks_have_the_stages_of_the_literature(name, expected):
    assert names(stages(CATALOGUE[name](5), torch.randn(IMAGES))) == expected


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        (timm.create_model("test_resnet", num_classes=5), 64, ["act1", "layer1", "layer2", "layer3", "layer4"]),
        (vit(), 32, ["blocks.0", "blocks.2", "blocks.3", "blocks.5"]),
        (vit(depth=2), 32, ["blocks.0", "blocks.1"]),
        (torchvision.models.resnet18(), 64, ["relu", "layer1", "layer2", "layer3", "layer4"]),
        (
            torchvision.models.vision_transformer.VisionTransformer(32, 8, 4, 2, 16, 16, num_classes=5),
            32,
            [f"encoder.layers.encoder_layer_{number}" for number in range(4)],
        ),
        (
            torchvision.models.SwinTransformer([2, 2], 8, [2, 2, 2], [1, 2, 4], [2, 2], num_classes=5),
            32,
            ["features.1", "features.3", "permute"],
        ),
    ],
)
def test_stages_of_networks_from_elsewhere(model, size, expected):
    found = stages(model, torch.randn(2, 3, size, size))
    assert names(found) == expected
    assert hooks_of(model) == 0
    areas = [tap.size[0] * tap.size[1] for tap in found]
    assert areas == sorted(areas, reverse=True)


def test_transposed_tokens_are_no_map():
    model = timm.create_model("mixer_s32_224", img_size=64, num_classes=5)
    assert names(stages(model, torch.randn(2, 3, 64, 64))) == [f"blocks.{number}" for number in (1, 3, 5, 7)]


def test_stages_of_a_text_transformer():
    ids = torch.randint(9, (2, 5))
    found = stages(Words(), {"ids": ids})
    assert names(found) == ["layer.1", "layer.3", "layer.5", "layer.7"]
    assert found[0].size == (1, 5)
    assert classified(Words(), {"ids": ids}).layer == EMBEDDING


def test_stages_inside_a_trunk_of_many_resolutions():
    def block(stride):
        return nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, stride, 1), nn.ReLU(inplace=True))

    trunk = nn.Sequential(block(1), block(2), block(1), block(2))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    assert names(stages(model, torch.randn(IMAGES))) == ["1.0", "1.2", "1"]


def test_a_network_may_name_its_stages():
    class Named(nn.Sequential):
        stage_names = ("stem", "1")

    model = Named(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    assert names(stages(model, torch.randn(IMAGES))) == ["1"]


@pytest.mark.parametrize("size", [(32, 48), (33, 50), (7, 9)])
def test_stages_of_oblong_and_odd_images(size):
    assert names(stages(CATALOGUE["tiny_cnn"](5), torch.randn(2, 3, *size))) == ["layer1", "layer2", "layer3"]


def test_a_network_without_maps_is_refused():
    with pytest.raises(UserError, match="Sequential has no layer whose output is a map"):
        stages(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), torch.randn(2, 4))


def test_a_tap_reads_a_map_and_shows_its_shape():
    tap = Tap.of("blocks.1", torch.zeros(2, 17, 24), torch.zeros(IMAGES))
    assert str(tap) == "blocks.1 (24x4x4)"
    assert tap.map(Output(logits=torch.zeros(2, 3), features={"blocks.1": torch.ones(2, 17, 24)})).shape == (
        2,
        24,
        4,
        4,
    )
    with pytest.raises(UserError, match="'odd' cannot be compared"):
        Tap.of("odd", torch.zeros(2, 3, 4, 5, 6), torch.zeros(IMAGES))


def test_nothing_can_be_found_without_an_example():
    with pytest.raises(UserError, match="needs an example"):
        stages(CATALOGUE["tiny_cnn"](5), None)


def test_images_that_come_by_name_are_images():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = vit()

        def forward(self, pixel_values):
            return self.network(pixel_values)

    (*_, last) = stages(Named(), {"pixel_values": torch.randn(IMAGES)})
    assert last.size == (4, 4)


def test_a_layer_that_is_called_twice_is_passed_over_where_that_matters():
    class OneReLU(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.relu, self.head = nn.ReLU(), nn.Linear(4, 5)

        def forward(self, inputs):
            return self.head(self.relu(self.second(self.relu(self.first(inputs)))).mean((2, 3)))

    network = OneReLU()
    assert classified(network, torch.randn(IMAGES)).layer == "relu"
    assert classified(network, torch.randn(IMAGES), once=True).layer == EMBEDDING


def test_a_stage_that_a_network_names_is_none_where_its_map_has_one_place():
    small, large = (stages(CATALOGUE["mobilenetv2"](5), torch.rand(2, 3, side, side)) for side in (16, 32))
    assert all(tap.size != (1, 1) for tap in small)
    assert [tap.layer for tap in small] == [tap.layer for tap in large][: len(small)]
    assert 1 < len(small) < len(large)
