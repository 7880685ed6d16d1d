import math
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.losses import log_mean_probability
from tutelage.methods.token import Token, TwoHeads, heads_of, token_loss
from tutelage.models import CATALOGUE, load_network, read_metadata, save_network
from tutelage.testing.toys import ToyNetwork, toy_batch

CLASS = torch.tensor([[2, 0, 1], [0, 1, 0], [-1, 1, 2], [1, 0, 0]], dtype=torch.float64)
TEACHER = torch.tensor([[3, 0, 0], [0, 2, 1], [0, 1, 3], [1, 2, 0]], dtype=torch.float64)
DISTILLED = torch.tensor([[1, 0, 0], [0, 2, 0], [0, 0, 1], [0, 1, 0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0])
SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3}
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 0.4691733146),
        ({"alpha": 0}, 0.4648769023),
        ({"alpha": 1}, 0.4734697270),
        ({"target": "soft", "alpha": 1}, 0.1473166416),
        ({"target": "soft", "alpha": 1, "reduction": "mean"}, 0.0491055472),
        ({"target": "soft", "reduction": "mean"}, 0.2569912247),
        ({"target": "soft", "alpha": 1, "temperature": 3}, 0.2542613004),
        ({"target": "soft", "alpha": 1, "temperature": 3, "reduction": "mean"}, 0.0847537668),
        ({"target": "soft", "temperature": 3, "reduction": "mean"}, 0.2748153345),
        ({"target": "soft", "temperature": 3, "alpha": 0.1}, 0.4438153421),
    ],
)
def test_known_answers(options, value):
    assert token_loss(CLASS, DISTILLED, TEACHER, LABELS, **options).item() == pytest.approx(value, abs=5e-11)


def slow_loss(slow, of_classes, of_teacher, teacher, labels, *, target, alpha, temperature, per_class):
    """The loss and the gradients for both heads, one number at a time."""
    of_classes, of_teacher, teacher, labels = (each.tolist() for each in (of_classes, of_teacher, teacher, labels))
    classes, rows = len(teacher[0]), len(teacher)
    # A label is a distribution, and so is the likeliest class of the teacher.
    if target == "hard":
        temperature, targets = 1, [slow.one_hot(max(range(classes), key=row.__getitem__), classes) for row in teacher]
        distilled, scale = slow.target_loss(of_teacher, targets), 1
    else:
        targets = [slow.softmax(row, temperature) for row in teacher]
        scale = temperature**2 / (classes if per_class else 1)
        distilled = scale * slow.soft_loss(of_teacher, teacher, temperature)
    hard = [
        [(1 - alpha) * (p - (k == y)) / rows for k, p in enumerate(slow.softmax(row))]
        for row, y in zip(of_classes, labels, strict=True)
    ]
    soft = [
        [alpha * scale * (p - q) / temperature / rows for p, q in zip(slow.softmax(row, temperature), wanted)]
        for row, wanted in zip(of_teacher, targets, strict=True)
    ]
    return (1 - alpha) * slow.label_loss(of_classes, labels) + alpha * distilled, hard, soft


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("samples", [1, 6])
@pytest.mark.parametrize(("target", "per_class"), [("hard", False), ("soft", False), ("soft", True)])
def test_value_and_gradient_are_the_slow_loops(slow, classes, samples, target, per_class):
    torch.manual_seed(0)
    logits = [(2 * torch.randn(samples, classes, dtype=torch.float64)).requires_grad_(True) for _ in range(3)]
    labels = torch.randint(classes, (samples,))
    options = {"target": target, "alpha": 0.3, "temperature": 2.5}
    loss = token_loss(*logits, labels, reduction="mean" if per_class else "batchmean", **options)
    value, *gradients = slow_loss(slow, *logits, labels, per_class=per_class, **options)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    found = torch.autograd.grad(loss, logits, allow_unused=True)
    # The class head learns nothing of the teacher, the other head nothing of the labels, and the teacher nothing.
    for gradient, expected in zip(found[:2], gradients, strict=True):
        torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-15)
    assert found[2] is None


def test_mixed_labels_are_for_the_class_head():
    mixed = 0.7 * nn.functional.one_hot(LABELS, 3) + 0.3 * nn.functional.one_hot((LABELS + 1) % 3, 3)
    parts = [token_loss(CLASS, DISTILLED, TEACHER, labels) for labels in (LABELS, (LABELS + 1) % 3)]
    found = token_loss(CLASS, DISTILLED, TEACHER, mixed.double())
    torch.testing.assert_close(found, 0.7 * parts[0] + 0.3 * parts[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("target", ["hard", "soft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_confident_answers_have_finite_losses_and_gradients(target, dtype):
    student = (1e4 * torch.eye(3)).to(dtype).requires_grad_(True)
    loss = token_loss(
        student, student, (1e4 * torch.eye(3)[[1, 2, 0]]).to(dtype), torch.tensor([0, 1, 2]), target=target
    )
    assert torch.isfinite(loss)
    assert torch.autograd.grad(loss, student)[0].isfinite().all()


def test_the_mean_of_logits_is_not_the_mean_of_probabilities():
    one, other = torch.tensor([[4.0, 0, 0]]), torch.tensor([[0, 3.0, 0]])
    mean, mean_probability = (one + other) / 2, log_mean_probability(torch.stack([one, other]))
    assert mean.softmax(1)[0].tolist() == pytest.approx([0.5740969930, 0.3482074279, 0.0776955791], abs=1e-7)
    expected = [0.5049708284, 0.4635557103, 0.0314734614]
    assert mean_probability.exp()[0].tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("size", "plain", "distilled"),
    [("tiny", 5_717_416, 5_910_800), ("small", 22_050_664, 22_436_432)],
)
def test_timms_students_have_the_published_parameters(size, plain, distilled):
    for name, parameters in ((f"deit_{size}_patch16_224", plain), (f"deit_{size}_distilled_patch16_224", distilled)):
        with torch.device("meta"):
            network = timm.create_model(name)
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert heads_of(network) == ("head", "head_dist")


def distilled_transformer(classes=5):
    torch.manual_seed(0)
    return timm.create_model("deit_tiny_distilled_patch16_224", num_classes=classes, **SMALL)


def built(student, **options):
    return Token(student, UniformTeacher(5), IMAGES[:2], **options)


def test_both_heads_of_a_transformer_are_read_in_training_and_ship(slow):
    student, labels = distilled_transformer().double(), torch.tensor([0, 1, 2, 1])
    # As a user may have left it: it would answer with two tensors in training.
    student.set_distilled_training(True)
    teacher = FrozenTeacher(CATALOGUE["tiny_cnn"](5).double())
    method = Token(student, teacher, IMAGES[:2].double(), alpha=0.3).train()
    images = IMAGES.double()
    losses = method.losses(Batch(inputs=images, targets=labels))
    tokens = method.student.model.forward_features(images)
    of_classes, of_teacher = student.head(tokens[:, 0]), student.head_dist(tokens[:, 1])
    answer = teacher(Batch(inputs=images)).logits
    options = {"target": "hard", "alpha": 0.3, "temperature": 1, "per_class": False}
    value, *_ = slow_loss(slow, of_classes, of_teacher, answer, labels, **options)
    total = method.total(Update(losses), Progress())
    assert total.item() == pytest.approx(value, rel=1e-9)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.student.parameters())
    with torch.no_grad():
        predictions = method.eval()(images)
        assert list(predictions) == ["student", "class-head", "distillation-head", "ensemble"]
        torch.testing.assert_close(predictions["class-head"], of_classes)
        torch.testing.assert_close(predictions["distillation-head"], of_teacher)
        torch.testing.assert_close(predictions["student"], (of_classes + of_teacher) / 2)
        network = method.export()
        assert network is student
        assert torch.equal(network(images), predictions["student"])
    assert heads_of(network) == ("head", "head_dist")


@pytest.mark.parametrize(("name", "heads"), [("repvit_m0_9", ("head.head", "head.head_dist"))])
def test_heads_of_convolutional_networks_of_timm(name, heads):
    student = timm.create_model(name, num_classes=5)
    method = Token(student, UniformTeacher(5), IMAGES[:2])
    assert tuple(method.student.layers) == heads
    method.train().losses(Batch(inputs=IMAGES, targets=LABELS))["token"].backward()
    assert student.head.head_dist.l.weight.grad.abs().max() > 0


class Reporter:
    def __init__(self):
        self.heard = []

    def note(self, text, *, once=False):
        self.heard.append(text)


def test_any_other_network_gets_a_second_head_and_a_note_says_so(tmp_path):
    reporter = Reporter()
    student = load_network("tiny_cnn,normalize=cifar10", num_classes=5).eval()
    before = student(IMAGES)
    method = built(student, reporter=reporter).eval()
    (note,) = reporter.heard
    assert "no distillation token" in note
    network = method.export()
    assert torch.equal(method(IMAGES)["class-head"], before)
    assert not torch.equal(method(IMAGES)["distillation-head"], before)
    # What was saved is built again from its spec, with both heads.
    save_network(tmp_path, network, spec=network.spec, num_classes=5, in_channels=3)
    assert read_metadata(tmp_path).spec.startswith("tutelage.methods.token:two_headed,")
    again = load_network(str(tmp_path), num_classes=5).eval()
    assert torch.equal(again(IMAGES), network.eval()(IMAGES))
    assert sum(isinstance(module, TwoHeads) for module in again.modules()) == 1
    # It has two heads from now on, and gets no third.
    reporter.heard.clear()
    built(again, reporter=reporter)
    assert not reporter.heard


def test_a_transformer_with_a_token_of_its_own_gets_no_other_head():
    reporter = Reporter()
    built(distilled_transformer(), reporter=reporter)
    assert not reporter.heard


class Named(nn.Module):
    def __init__(self, share=0.5):
        super().__init__()
        self.share, self.body = share, ToyNetwork(outputs=5)
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, images):
        embedding = self.body(images)
        return self.share * self.one(embedding) + (1 - self.share) * self.two(embedding)


def test_heads_by_name_must_be_those_of_which_the_answer_is_the_mean():
    batch = toy_batch()
    batch = replace(batch, targets=batch.targets % 5)
    method = Token(Named(), UniformTeacher(5), batch.inputs, heads="one:two").train()
    assert math.isfinite(method.losses(batch)["token"].item())
    with pytest.raises(UserError, match="does not answer with the mean of one and two"):
        Token(Named(0.7), UniformTeacher(5), batch.inputs, heads="one:two")
    with pytest.raises(UserError, match="no layer named 'three'"):
        Token(Named(), UniformTeacher(5), batch.inputs, heads="one:three")
    for heads in ("one", "one:", "one:two:three"):
        with pytest.raises(UserError, match="must name two layers"):
            Token(Named(), UniformTeacher(5), batch.inputs, heads=heads)


@pytest.mark.parametrize("options", [{"alpha": 1.5}, {"temperature": 0.0}])
def test_refusals(options):
    with pytest.raises(UserError, match=next(iter(options))):
        built(CATALOGUE["tiny_cnn"](5), **options)
