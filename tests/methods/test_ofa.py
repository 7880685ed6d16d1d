import math

import pytest
import torch
import torchvision
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.ofa import OFA, enhanced, ofa_loss
from tutelage.models import CATALOGUE
from tutelage.testing.toys import toy_transformer

STUDENT = torch.tensor([[2, 0, 1], [0, 1, 0], [-1, 1, 2], [1, 0, 0]], dtype=torch.float64)
TEACHER = torch.tensor([[3, 0, 0], [0, 2, 1], [0, 1, 3], [1, 2, 0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0])
IMAGES = (4, 3, 32, 32)


def weights_of(row, label, exponent, temperature, variant, slow):
    """The weight of each class by the equation, one class at a time."""
    found = []
    for k, p in enumerate(slow.softmax(row, temperature)):
        if k == label:
            found.append((p + 1) ** exponent - 1)
        else:
            found.append(p**exponent if variant == "code" else p)
    return found


def slow_loss(student, teacher, labels, exponent, temperature, variant, slow):
    """The loss and its gradient: with weights w that sum to W, that for the logits is (W p - w) / (B tau)."""
    total, gradient = [], []
    for s, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        p, w = slow.softmax(s, temperature), weights_of(t, y, exponent, temperature, variant, slow)
        total.append(-sum(a * math.log(b) for a, b in zip(w, p, strict=True)))
        gradient.append([(sum(w) * b - a) / temperature / len(labels) for a, b in zip(w, p, strict=True)])
    return slow.mean(total), torch.tensor(gradient, dtype=torch.float64)


@pytest.mark.parametrize(
    ("exponent", "variant", "value"),
    [
        (1, "code", 0.8313997706),
        (1.4, "code", 0.7999668930),
        (1.5, "code", 0.8179133369),
        (2, "code", 1.0081593569),
        (1.5, "paper", 1.0497926215),
    ],
)
def test_known_answers(exponent, variant, value):
    assert ofa_loss(STUDENT, TEACHER, LABELS, exponent, variant=variant).item() == pytest.approx(value, abs=5e-11)


def test_known_weights_of_the_labels_class():
    shares = nn.functional.one_hot(LABELS, 3).double()
    found = enhanced(TEACHER.log_softmax(1), shares, 1.5)[shares.bool()]
    assert found.tolist() == pytest.approx([1.6385179147, 1.1488971278, 1.5036225558, 0.3887111904], abs=5e-11)


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize(("exponent", "temperature", "classes"), [(1, 1, 5), (1.4, 2.5, 5), (0.5, 0.7, 3), (2, 4, 2)])
def test_value_and_gradient_are_the_slow_loops(slow, variant, exponent, temperature, classes):
    torch.manual_seed(0)
    student = (3 * torch.randn(6, classes, dtype=torch.float64)).requires_grad_(True)
    teacher = (3 * torch.randn(6, classes, dtype=torch.float64)).requires_grad_(True)
    labels = torch.randint(classes, (6,))
    loss = ofa_loss(student, teacher, labels, exponent, temperature, variant=variant)
    value, gradient = slow_loss(student, teacher, labels, exponent, temperature, variant, slow)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    loss.backward()
    torch.testing.assert_close(student.grad, gradient, rtol=1e-10, atol=1e-14)
    assert teacher.grad is None


def test_with_an_exponent_of_one_the_label_has_no_part_in_it():
    others = (LABELS + 1) % 3
    for variant in ("code", "paper"):
        losses = [ofa_loss(STUDENT, TEACHER, labels, 1, variant=variant).item() for labels in (LABELS, others)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert ofa_loss(STUDENT, TEACHER, LABELS, 2) != ofa_loss(STUDENT, TEACHER, others, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_logits_200_apart_have_finite_losses_and_gradients(dtype):
    student = torch.tensor([[0.0, 200.0], [-200.0, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[200.0, 0.0], [200.0, 0.0]], dtype=dtype)
    loss = ofa_loss(student, teacher, torch.tensor([0, 1]), 1.4)
    # Sample 0: weight 2^1.4 - 1 on 200 nats. Sample 1: its label's class weighs 0, and the other 1 on 200 nats.
    assert loss.item() == pytest.approx(100 * (2**1.4 - 1) + 100, rel=1e-3)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0.5


def test_two_classes_one_sample_and_samples_without_a_label(slow):
    one = ofa_loss(STUDENT[:1], TEACHER[:1], LABELS[:1], 1.5)
    assert one.item() == pytest.approx(slow_loss(STUDENT[:1], TEACHER[:1], LABELS[:1], 1.5, 1, "code", slow)[0])
    two = ofa_loss(STUDENT[:, :2], TEACHER[:, :2], LABELS[[0, 1, 0, 0]], 1.5)
    assert two > 0
    # Without a label no class is the label's: all weigh p to the power.
    without = ofa_loss(STUDENT[:1], TEACHER[:1], torch.tensor([-1]), 1.5).item()
    p, w = slow.softmax(STUDENT[0].tolist()), [p**1.5 for p in slow.softmax(TEACHER[0].tolist())]
    assert without == pytest.approx(-sum(a * math.log(b) for a, b in zip(w, p, strict=True)), rel=1e-12)


def test_mixed_labels_are_the_mean_of_the_losses_of_both():
    others = torch.tensor([1, 2, 0, 2])
    mixed = 0.7 * nn.functional.one_hot(LABELS, 3) + 0.3 * nn.functional.one_hot(others, 3)
    for variant in ("code", "paper"):
        one, other = (ofa_loss(STUDENT, TEACHER, labels, 1.5, variant=variant) for labels in (LABELS, others))
        found = ofa_loss(STUDENT, TEACHER, mixed.double(), 1.5, variant=variant)
        torch.testing.assert_close(found, 0.7 * one + 0.3 * other, rtol=1e-6, atol=0)


def test_a_classs_place_and_a_rows_constant_mean_nothing():
    order = torch.tensor([2, 0, 1])
    back = torch.argsort(order)
    loss = ofa_loss(STUDENT, TEACHER, LABELS, 1.5)
    torch.testing.assert_close(ofa_loss(STUDENT[:, order], TEACHER[:, order], back[LABELS], 1.5), loss)
    torch.testing.assert_close(ofa_loss(STUDENT + torch.randn(4, 1), TEACHER - 3, LABELS, 1.5), loss)


@pytest.mark.parametrize(("width", "classes", "parameters"), [(192, 1000, 3_041_184), (768, 100, 1_626_256)])
def test_exits_have_the_published_parameters(width, classes, parameters):
    # The exits of a ResNet18 that learns from a DeiT-T, and from a Swin-T.
    student = torchvision.models.resnet18(num_classes=classes)
    method = OFA(student, UniformTeacher(classes), torch.randn(2, 3, 64, 64), teacher_width=width)
    assert sum(parameter.numel() for parameter in method.exits.parameters()) == parameters


def built(student, teacher, **options):
    torch.manual_seed(0)
    return OFA(student, FrozenTeacher(teacher), torch.randn(2, *IMAGES[1:]), **options)


NETWORKS = {"cnn": lambda: CATALOGUE["resnet8"](5), "vit": toy_transformer}


@pytest.mark.parametrize(("student", "teacher"), [("cnn", "vit"), ("vit", "cnn")])
def test_the_method_computes_this_on_what_its_exits_say(slow, student, teacher):
    method = built(NETWORKS[student](), NETWORKS[teacher](), exponent=1.5, kd_weight=0.5, exit_weight=0.25).double()
    images, labels = torch.randn(IMAGES, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    said = []
    for behind in method.exits:
        behind.register_forward_hook(lambda module, args, output: said.append(output))
    losses = method.losses(Batch(inputs=images, targets=labels))
    assert losses.keys() == {"ce", "kd", "exits"}
    assert len(said) == {"cnn": 3, "vit": 4}[student]
    with torch.no_grad():
        answer, target = method.student(images).logits, method.teacher(Batch(inputs=images, targets=labels)).logits
    parts = [slow_loss(one, target, labels, 1.5, 1, "code", slow)[0] for one in (answer, *said)]
    expected = slow.label_loss(answer.tolist(), labels.tolist()) + 0.5 * parts[0] + 0.25 * sum(parts[1:])
    assert method.total(Update(losses), Progress()).item() == pytest.approx(expected, rel=1e-9)


def test_a_batch_of_one_image_trains_where_maps_have_places_left():
    method = built(NETWORKS["cnn"](), NETWORKS["vit"]()).train()
    losses = method.losses(Batch(inputs=torch.randn(1, *IMAGES[1:]), targets=torch.tensor([1])))
    method.total(Update(losses), Progress()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in method.exits.parameters())


def test_only_the_student_ships_and_the_exits_can_be_named():
    method = built(NETWORKS["cnn"](), NETWORKS["vit"](), exits="layer3+layer1")
    network = method.export()
    assert type(network) is type(NETWORKS["cnn"]())
    assert not any(module._forward_hooks for module in network.modules())
    blocks = [len(behind.body) for behind in method.exits]
    # From the first layer to the last whatever the order: two blocks behind layer1, a 1x1 convolution behind layer3.
    assert blocks == [2, 1]
    assert isinstance(method.exits[1].body[0], nn.Conv2d)
    with pytest.raises(UserError, match="no layer named 'layer9'"):
        built(NETWORKS["cnn"](), NETWORKS["vit"](), exits="layer9")


@pytest.mark.parametrize(
    "options", [{"exponent": 0.0}, {"temperature": 0.0}, {"kd_weight": -1.0}, {"exit_weight": -1.0}]
)
def test_refusals(options):
    with pytest.raises(UserError, match=next(iter(options))):
        built(NETWORKS["cnn"](), NETWORKS["vit"](), **options)
