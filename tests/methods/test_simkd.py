import copy

import pytest
import torch
import torchvision
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.simkd import Projector, SimKD
from tutelage.models import CATALOGUE, load_network, read_metadata, save_network
from tutelage.testing.toys import toy_transformer

IMAGES = (4, 3, 32, 32)


def built(student, teacher, size=IMAGES[1:], **options):
    torch.manual_seed(0)
    return SimKD(student, FrozenTeacher(teacher), torch.randn(2, *size), **options)


def named(name):
    return toy_transformer() if name == "vit" else CATALOGUE[name](5)


def slow(ours, theirs):
    """The mean squared distance, one value at a time."""
    total, count = 0.0, 0
    for one, other in zip(ours.flatten().tolist(), theirs.flatten().tolist(), strict=True):
        total, count = total + (one - other) ** 2, count + 1
    return total / count


@pytest.mark.parametrize(
    ("channels", "teacher", "factor", "parameters"),
    [
        (256, 256, 2, 214_016),
        (256, 256, 4, 70_400),
        (256, 256, 8, 26_240),
        (512, 256, 2, 246_784),
        (128, 128, 2, 53_760),
        (64, 128, 2, 49_664),
        (464, 256, 2, 240_640),
        (704, 256, 2, 271_360),
    ],
)
def test_projector_has_the_published_parameters(channels, teacher, factor, parameters):
    projector = Projector(channels, teacher, factor=factor, size=(8, 8), relu=True)
    assert sum(parameter.numel() for parameter in projector.parameters()) == parameters


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet20"), ("resnet8", "vgg8"), ("vgg8", "resnet8")])
def test_value_and_gradient_are_the_slow_loops(student, teacher):
    method = built(named(student), named(teacher)).double()
    images = torch.randn(IMAGES, dtype=torch.float64)
    batch = Batch(inputs=images)
    loss = method.losses(batch)["feature"]
    with torch.no_grad():
        ours, theirs = method.pairs[0].maps(method.student(images), method.teacher(batch))
    side = min(ours.shape[2], theirs.shape[2])
    pooled = [
        maps.unflatten(3, (side, -1)).unflatten(2, (side, -1)).mean((3, 5)) if maps.shape[2] > side else maps
        for maps in (ours, theirs)
    ]
    assert loss.item() == pytest.approx(slow(*pooled), rel=1e-9)
    norm = method.student.model.get_submodule(method.pairs[0].student.layer).projector.layers[-2]
    (gradient,) = torch.autograd.grad(loss, norm.bias)
    # d/d bias = 2/N sum over the places that the ReLU lets through.
    passed = (ours > 0).double()
    scale = (ours.shape[2] // side) ** 2
    gap = (
        (pooled[0] - pooled[1]).repeat_interleave(ours.shape[2] // side, 2).repeat_interleave(ours.shape[3] // side, 3)
    )
    expected = (2 * gap * passed / scale).sum((0, 2, 3)) / pooled[0].numel()
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


def test_a_map_equal_to_the_teachers_gives_the_teachers_logits_and_no_loss():
    teacher = CATALOGUE["resnet8"](5).eval()
    method = built(copy.deepcopy(teacher), teacher).eval()
    student = method.student.model
    student.layer3.projector = nn.Identity()
    batch = Batch(inputs=torch.randn(IMAGES))
    assert method.losses(batch)["feature"].item() == 0.0
    assert torch.equal(method(batch.inputs)["student"], teacher(batch.inputs))


def test_only_the_body_and_the_projector_learn():
    teacher = CATALOGUE["resnet8"](5)
    method = built(CATALOGUE["tiny_cnn"](5), teacher)
    before = copy.deepcopy(method.student.model.classifier.state_dict())
    (spec,) = method.optimizers().values()
    optimizer = torch.optim.SGD(spec.params, 0.1, weight_decay=0.1)
    (update,) = method.step(Batch(inputs=torch.randn(IMAGES)), Progress())
    method.total(update, Progress()).backward()
    optimizer.step()
    after = method.student.model.classifier.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(after["weight"], teacher.classifier.weight)
    assert set(method.losses(Batch(inputs=torch.randn(IMAGES)))) == {"feature"}


def test_the_projector_ends_above_zero_where_the_teacher_does():
    relu = built(named("tiny_cnn"), named("resnet8"))
    assert relu.student(torch.randn(IMAGES)).features["layer3"].min() >= 0
    transformer = built(named("tiny_cnn"), toy_transformer())
    assert transformer.student(torch.randn(IMAGES)).features["layer3"].min() < 0
    forced = built(named("tiny_cnn"), toy_transformer(), final_relu="yes")
    assert forced.student(torch.randn(IMAGES)).features["layer3"].min() >= 0


@pytest.mark.parametrize("teacher", ["resnet8", "vgg8", "wrn_16_1", "shufflev2", "mobilenetv2", "vit"])
@pytest.mark.parametrize("student", ["resnet8", "vgg8", "mobilenetv2", "shufflev2", "vit"])
def test_any_student_ends_in_any_teachers_classifier(student, teacher):
    answering = named(teacher)
    method = built(named(student), answering)
    with torch.no_grad():
        loss, predicted = method.losses(Batch(inputs=torch.randn(IMAGES)))["feature"], method(torch.randn(IMAGES))
    assert torch.isfinite(loss)
    assert predicted["student"].shape == (4, 5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
def test_students_of_torchvision(name):
    student = torchvision.models.get_model(name, num_classes=5)
    method = built(student, CATALOGUE["resnet8"](5), size=(3, 64, 64)).eval()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(method(images)["student"], method.export()(images))


@pytest.mark.parametrize("size", [(32, 48), (33, 50), (17, 31)])
def test_oblong_and_odd_images(size):
    method = built(CATALOGUE["vgg8"](5), CATALOGUE["resnet8"](5), size=(3, *size))
    assert torch.isfinite(method.losses(Batch(inputs=torch.randn(2, 3, *size)))["feature"])


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "wrn_16_1"), ("vgg8", "resnet8"), ("tiny_cnn", "vit")])
def test_the_deployed_network_is_saved_and_built_again_by_its_name(tmp_path, student, teacher):
    images = torch.rand(IMAGES)
    network = load_network(f"{student},normalize=cifar10", num_classes=5)
    method = built(network, named(teacher)).eval()
    with torch.no_grad():
        expected = method(images)["student"]
    deployed = method.export()
    save_network(tmp_path, deployed, spec=deployed.spec, num_classes=5, in_channels=3)
    assert read_metadata(tmp_path).spec.startswith("simkd,")
    again = load_network(str(tmp_path), num_classes=5).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(images), expected)


def test_a_student_that_cannot_carry_the_map_is_refused():
    class Rigid(nn.Module):
        """Pools by a fixed window, which a smaller map does not fill."""

        def __init__(self):
            super().__init__()
            self.body, self.pool, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.AvgPool2d(32), nn.Linear(8, 5)

        def forward(self, inputs):
            return self.head(self.pool(self.body(inputs)).flatten(1))

    with pytest.raises(UserError, match=r"Rigid cannot end in the teacher's classifier: .*'body'.*Choose srrl"):
        built(Rigid(), CATALOGUE["resnet8"](5))


def test_a_teacher_whose_classifier_cannot_be_found_is_refused():
    with pytest.raises(UserError, match="classifier cannot be found"):
        built(CATALOGUE["tiny_cnn"](5), nn.Sequential(CATALOGUE["tiny_cnn"](5), nn.ReLU6()))


def test_a_student_that_is_refused_is_left_as_it_was():
    class Stiff(nn.Module):
        """Pools by a fixed window, which a smaller map does not fill."""

        def __init__(self):
            super().__init__()
            self.body, self.pool, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.AvgPool2d(32), nn.Linear(8, 5)

        def forward(self, inputs):
            return self.head(self.pool(self.body(inputs)).flatten(1))

    student = Stiff()
    layers, before = dict(student.named_modules()), copy.deepcopy(student.state_dict())
    with pytest.raises(UserError, match="cannot end in the teacher's classifier"):
        built(student, CATALOGUE["resnet8"](5))
    assert dict(student.named_modules()) == layers
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())


@pytest.mark.parametrize("width", [16, 64])
def test_a_layer_that_the_student_calls_twice_is_not_followed_by_the_projector(width):
    class OneReLU(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
            self.relu, self.head = nn.ReLU(), nn.Linear(width, 5)

        def forward(self, inputs):
            return self.head(self.relu(self.second(self.relu(self.first(inputs)))).mean((2, 3)))

    student = OneReLU()
    method = built(student, CATALOGUE["resnet8"](5))
    runs = []
    (projector,) = (module for module in student.modules() if isinstance(module, Projector))
    projector.register_forward_hook(lambda *_: runs.append(1))
    assert torch.isfinite(method.losses(Batch(inputs=torch.randn(IMAGES)))["feature"])
    assert len(runs) == 1


def test_a_student_that_comes_compiled_is_saved_by_the_name_of_what_is_deployed():
    network = torch.compile(load_network("resnet8", num_classes=5), backend="eager")
    deployed = built(network, CATALOGUE["resnet8"](5)).export()
    assert deployed.spec.startswith("simkd,")


def test_no_hook_stays_on_the_teacher_but_the_ones_that_read_it():
    teacher = CATALOGUE["resnet8"](5)
    built(CATALOGUE["tiny_cnn"](5), teacher).losses(Batch(inputs=torch.randn(IMAGES)))
    assert sum(len(module._forward_hooks) for module in teacher.modules()) == 1


def test_a_factor_below_one_is_refused():
    with pytest.raises(UserError, match="factor=0 must be 1 or more"):
        built(CATALOGUE["tiny_cnn"](5), CATALOGUE["resnet8"](5), factor=0)
