import pytest
import timm
import torch

from tutelage.core.pairing import Seen, pair, reading, taps
from tutelage.core.teachers import BlackBoxTeacher, FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.trace import Trace
from tutelage.methods import AT, SRRL, VID, SimKD
from tutelage.models import CATALOGUE

IMAGES = torch.zeros(2, 3, 32, 32)
NETWORKS = {
    name: CATALOGUE[name](5) for name in ("resnet8", "resnet20", "vgg8", "mobilenetv2", "shufflev1", "tiny_cnn")
}
NETWORKS["vit"] = timm.create_model(
    "vit_tiny_patch16_224", img_size=32, patch_size=4, depth=6, embed_dim=24, num_heads=3, num_classes=5
)


def paired(student, teacher, layers="auto", **options):
    return pair(NETWORKS[student], FrozenTeacher(NETWORKS[teacher]), layers, IMAGES, **options)


def names(pairs):
    return [f"{pair.student.layer}:{pair.teacher.layer}" for pair in pairs]


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ("resnet8", "resnet20", ["layer1:layer1", "layer2:layer2", "layer3:layer3"]),
        ("mobilenetv2", "vgg8", ["layer1:layer1", "layer2:layer2", "layer3:layer3", "layer4:layer4"]),
        ("vgg8", "resnet8", ["layer1:layer1", "layer2:layer2", "layer4:layer3"]),
        ("shufflev1", "resnet8", ["layer1:layer1", "layer2:layer2", "layer3:layer3"]),
        ("resnet8", "vit", ["layer1:blocks.0", "layer2:blocks.3", "layer3:blocks.5"]),
        ("vit", "resnet8", ["blocks.0:layer1", "blocks.3:layer2", "blocks.5:layer3"]),
        ("vit", "vgg8", ["blocks.0:layer1", "blocks.2:layer2", "blocks.3:layer3", "blocks.5:layer4"]),
    ],
)
def test_stages_are_paired_in_order_and_the_last_with_the_last(student, teacher, expected):
    assert names(paired(student, teacher).pairs) == expected


def test_a_shorter_network_meets_the_stages_of_like_resolution():
    student, teacher = CATALOGUE["tiny_cnn"](5), timm.create_model("resnet18", num_classes=5)
    found = pair(student, FrozenTeacher(teacher), "auto", IMAGES)
    # The teacher's stages leave at 16, 8, 4, 2 and 1 pixels, the student's at 32, 16 and 8.
    assert names(found.pairs) == ["layer1:act1", "layer2:layer1", "layer3:layer3"]


def test_what_is_read_comes_as_maps_of_both():
    found = paired("vit", "resnet8")
    student, teacher = found.student(IMAGES), found.teacher.extractor(IMAGES)
    shapes = [tuple(tuple(maps.shape[1:]) for maps in one.maps(student, teacher)) for one in found.pairs]
    assert shapes == [((24, 8, 8), (16, 32, 32)), ((24, 8, 8), (32, 16, 16)), ((24, 8, 8), (64, 8, 8))]
    for one, (ours, theirs) in zip(found.pairs, shapes, strict=True):
        assert (one.student.channels, *one.student.size) == ours
        assert (one.teacher.channels, *one.teacher.size) == theirs
    assert str(found.pairs[0]) == "blocks.0 (24x8x8) : layer1 (16x32x32)"


@pytest.mark.parametrize(("take", "expected"), [("middle", ["layer2:layer2"]), ("last", ["layer3:layer3"])])
def test_a_method_may_take_one_pair(take, expected):
    assert names(paired("resnet8", "resnet20", take=take).pairs) == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("layer2:blocks.5", ["layer2:blocks.5"]),
        ("layer2:blocks.0+layer3:blocks.5", ["layer2:blocks.0", "layer3:blocks.5"]),
        ("layer2:blocks.0, layer3:blocks.5", ["layer2:blocks.0", "layer3:blocks.5"]),
        ("layer2:in:blocks.5:in", ["layer2:in:blocks.5:in"]),
        ("layer3:blocks.5+layer3:blocks.0", ["layer3:blocks.5", "layer3:blocks.0"]),
        ("embedding", ["embedding:embedding"]),
    ],
)
def test_pairs_by_name(layers, expected):
    assert names(paired("resnet8", "vit", layers).pairs) == expected


def test_one_name_stands_for_both():
    assert names(paired("resnet8", "resnet20", "layer2").pairs) == ["layer2:layer2"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("layer9:blocks.5", "In the student: There is no layer named 'layer9'. Did you mean 'layer"),
        ("layer2:block.5", "In the teacher: There is no layer named 'block.5'. Did you mean 'blocks.5'"),
        ("a:b:c", "'a:b:c' in layers='a:b:c' is not a pair of layers: write student_layer:teacher_layer"),
        ("layer1:", "is not a pair of layers"),
        ("", "is not a pair of layers"),
        ("layer1:pos_drop+", "is not a pair of layers"),
    ],
)
def test_names_that_are_wrong(layers, message):
    with pytest.raises(UserError, match=message):
        paired("resnet8", "vit", layers)


def test_a_layer_that_is_never_captured_is_an_error_and_not_a_zero():
    teacher = CATALOGUE["tiny_cnn"](5)
    teacher.spare = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match=r"In the teacher: The network ran without reaching the layers \['spare'\]"):
        pair(NETWORKS["resnet8"], FrozenTeacher(teacher), "layer3:spare", IMAGES)


@pytest.mark.parametrize("backend", [None, "eager"])
def test_a_layer_that_is_captured_no_more_is_an_error_compiled_or_not(backend):
    class Fickle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.side, self.head = (torch.nn.Conv2d(3, 3, 1) for _ in range(3))
            self.on = True

        def forward(self, inputs):
            return self.head(self.side(self.body(inputs)) if self.on else self.body(inputs)).mean((2, 3))

    student = Fickle()
    found = pair(student, FrozenTeacher(NETWORKS["resnet8"]), "side:layer3", IMAGES)
    if backend:
        found.student.compile(backend=backend)
    assert found.student(IMAGES).features["side"].shape == (2, 3, 32, 32)
    student.on = False
    with pytest.raises(UserError, match=r"without reaching the layers \['side'\]"):
        found.student(IMAGES)


@pytest.mark.parametrize("build", [AT, VID, SRRL, SimKD])
def test_compiled_networks_give_the_same_losses(build):
    images = torch.randn(4, 3, 32, 32)
    batch = Batch(inputs=images, targets=torch.tensor([0, 1, 2, 3]))
    torch.manual_seed(0)
    method = build(CATALOGUE["tiny_cnn"](5), FrozenTeacher(CATALOGUE["resnet8"](5)), images).eval()
    plain = dict(method.losses(batch))
    # A frame that once failed in compiled code, as in the test above, is compiled in pieces, which warn.
    torch.compiler.reset()
    for module in method.modules():
        if isinstance(module, FeatureExtractor):
            module.compile(backend="eager")
    compiled = dict(method.losses(batch))
    assert compiled.keys() == plain.keys()
    for name, loss in plain.items():
        assert loss.item() != 0
        torch.testing.assert_close(compiled[name], loss)


@pytest.mark.parametrize("teacher", [UniformTeacher(5), BlackBoxTeacher(lambda inputs: inputs)])
def test_a_teacher_without_layers_is_refused(teacher):
    with pytest.raises(UserError, match=f"reads layers of the teacher, and a {type(teacher).__name__} gives only"):
        pair(NETWORKS["resnet8"], teacher, "auto", IMAGES)


@pytest.mark.parametrize("size", [(32, 48), (33, 50), (17, 31)])
@pytest.mark.parametrize("student", ["resnet8", "mobilenetv2"])
def test_oblong_and_odd_images(student, size):
    images = torch.zeros(2, 3, *size)
    found = pair(NETWORKS[student], FrozenTeacher(CATALOGUE["tiny_cnn"](5)), "auto", images)
    for ours, theirs in (one.maps(found.student(images), found.teacher.extractor(images)) for one in found.pairs):
        assert ours.ndim == theirs.ndim == 4


def test_what_both_do_is_seen_once_for_all_that_is_asked():
    student, network = CATALOGUE["tiny_cnn"](5), CATALOGUE["resnet8"](5)
    teacher, passes = FrozenTeacher(network), []
    for one in (student, network):
        one.register_forward_hook(lambda module, *_: passes.append(module))
    seen = Seen.of(student, teacher, IMAGES)
    assert passes == [network, student]
    assert Seen.of(student, teacher, seen) is seen
    found = pair(student, teacher, "auto", seen)
    named = pair(student, teacher, "layer1+layer3", seen)
    assert [one.student for one in named.pairs] == [found.pairs[0].student, found.pairs[2].student]
    assert taps(student, ["layer3"], seen.student, who="student")["layer3"] == found.pairs[2].student
    assert dict(reading(student, teacher, found.pairs, seen).student.shapes) == dict(found.student.shapes)
    assert len(passes) == 2


def test_a_student_that_was_changed_is_looked_at_again():
    student, teacher = CATALOGUE["tiny_cnn"](5), FrozenTeacher(CATALOGUE["resnet8"](5))
    seen = Seen.of(student, teacher, IMAGES)
    student.layer3 = torch.nn.Sequential(student.layer3, torch.nn.MaxPool2d(2))
    with pytest.raises(ValueError, match="trace it again"):
        pair(student, teacher, "layer3", seen)
    (found,) = pair(student, teacher, "layer3", seen.with_student(student)).pairs
    assert found.student.size == (4, 4)


def test_a_teacher_looks_at_an_example_by_a_trace():
    teacher = FrozenTeacher(CATALOGUE["tiny_cnn"](5))
    seen = teacher.look(IMAGES)
    assert isinstance(seen, Trace)
    assert teacher.taps(["layer1"], seen) == teacher.taps(["layer1"], IMAGES)
    assert teacher.stages(seen) == teacher.stages(IMAGES)
    with pytest.raises(UserError, match="gives only logits"):
        UniformTeacher(5).look(IMAGES)
