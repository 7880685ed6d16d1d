import math
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.losses import kd_loss
from tutelage.methods.crd import CRD, EPS, Embedding, contrastive_loss
from tutelage.system.console import Silent
from tutelage.training.checkpoint import student_state

SAMPLES, CLASSES, WIDTH = 12, 3, 5
TEMPERATURE, MOMENTUM, NEGATIVES, DIM = 0.3, 0.25, 4, 3


class Vectors(TensorDataset):
    """Inputs of any shape, and their classes."""

    @property
    def targets(self):
        return self.tensors[1]


@pytest.fixture
def data():
    torch.manual_seed(0)
    return SimpleNamespace(
        train=Vectors(torch.randn(SAMPLES, WIDTH), torch.arange(SAMPLES) % CLASSES), num_classes=CLASSES
    )


def network(width):
    return nn.Sequential(nn.Linear(WIDTH, width), nn.Tanh(), nn.Linear(width, CLASSES))


def build(data, **options):
    torch.manual_seed(1)
    student, teacher = network(4), FrozenTeacher(network(6))
    settings = {"embedding_dim": DIM, "negatives": NEGATIVES, "temperature": TEMPERATURE, "bank_momentum": MOMENTUM}
    return CRD(student, teacher, data, torch.zeros(2, WIDTH), **{**settings, **options})


def batch_of(data, *indices):
    inputs, targets = data.train.tensors
    chosen = torch.tensor(indices)
    return Batch(inputs=inputs[chosen], targets=targets[chosen], indices=chosen)


def update_of(method, batch):
    """The losses of a step, whose second part is left out."""
    torch.manual_seed(2)
    return next(iter(method.step(batch, Progress())))


def finish(method, batch):
    torch.manual_seed(2)
    (update,) = method.step(batch, Progress())
    return update


# The equation.


def scalars(tensor):
    return [scalars(part) for part in tensor] if tensor.ndim else tensor


def slow_side(rows, samples):
    """The loss of one side from probabilities, the positive first, one number at a time."""
    total = 0.0
    for positive, *negatives in rows:
        m, noise = len(negatives), 1 / samples
        total += (positive / (positive + m * noise + EPS)).log()
        total += sum((m * noise / (p + m * noise + EPS)).log() for p in negatives)
    return -total / len(rows)


def slow_unit(vector):
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector]


def slow_linear(layer, vector):
    rows = zip(scalars(layer.weight), scalars(layer.bias), strict=True)
    return [bias + sum(w * x for w, x in zip(row, vector, strict=True)) for row, bias in rows]


def slow_crd(layers, inputs, rows, banks):
    """Both sides, and the constants; `layers` holds a hidden and an embedding layer each."""
    total, constants = 0.0, {}
    for side, other in (("student", "teacher"), ("teacher", "student")):
        exponentials = []
        for vector, chosen in zip(inputs, rows, strict=True):
            hidden = [value.tanh() for value in slow_linear(layers[f"{side}.hidden"], vector)]
            v = slow_unit(slow_linear(layers[f"{side}.embedding"], hidden))
            cosines = [sum(a * b for a, b in zip(v, banks[other][row], strict=True)) for row in chosen]
            exponentials.append([(cosine / TEMPERATURE).exp() for cosine in cosines])
        flat = [value.item() for row in exponentials for value in row]
        constants[side] = SAMPLES * math.fsum(flat) / len(flat)
        total = total + slow_side([[value / constants[side] for value in row] for row in exponentials], SAMPLES)
    return total, constants


def layers_of(method):
    return {
        "student.hidden": method.student.model[0],
        "teacher.hidden": method.teacher.network[0],
        "student.embedding": method.student_embedding.linear,
        "teacher.embedding": method.teacher_embedding.linear,
    }


def test_the_known_answer():
    log_probability = torch.tensor([[0.2, 0.1, 0.3]], dtype=torch.float64).log()
    assert contrastive_loss(log_probability, 10).item() == pytest.approx(2.0149038038754914, rel=1e-14)


@pytest.mark.parametrize("samples", [3, 10, 5000])
def test_a_side_is_the_slow_loops_with_its_gradient(samples):
    torch.manual_seed(0)
    log_probability = (torch.randn(3, 5, dtype=torch.float64) * 3 - 4).requires_grad_(True)
    loss = contrastive_loss(log_probability, samples)
    rows = log_probability.detach().exp().tolist()
    assert loss.item() == pytest.approx(slow_side(scalars(log_probability.exp()), samples).item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, log_probability)
    c = 4 / samples + EPS
    for row, found in zip(rows, gradient.tolist(), strict=True):
        # d/dlogP of -log(P / (P + c)) is -c / (P + c), of log(P + c) it is P / (P + c).
        expected = [-c / (row[0] + c) / 3, *(p / (p + c) / 3 for p in row[1:])]
        assert found == pytest.approx(expected, rel=1e-12)


def test_the_whole_loss_is_the_slow_loops_with_its_gradient(data, double):
    data.train.tensors = tuple(t.double() if t.is_floating_point() else t for t in data.train.tensors)
    method, batch = build(data), batch_of(data, 5, 0, 10)
    update = update_of(method, batch)
    torch.manual_seed(2)
    rows = method.rows(batch).tolist()
    banks = {"student": method.student_bank.vectors.tolist(), "teacher": method.teacher_bank.vectors.tolist()}
    layers = layers_of(method)
    expected, z = slow_crd(layers, scalars(batch.inputs), rows, banks)
    assert update.losses["crd"].item() == pytest.approx(expected.item(), rel=1e-11)
    # Z of the student's side is that of the bank it reads.
    assert method.teacher_bank.log_z.exp().item() == pytest.approx(z["student"], rel=1e-11)
    assert method.student_bank.log_z.exp().item() == pytest.approx(z["teacher"], rel=1e-11)
    trained = [p for name, layer in layers.items() if name != "teacher.hidden" for p in layer.parameters()]
    gradients = [torch.autograd.grad(loss, trained) for loss in (update.losses["crd"], expected)]
    for found, wanted in zip(*gradients, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("extreme", [-1e4, 0.0, 1e4])
def test_extreme_probabilities_are_finite(extreme):
    log_probability = torch.full((2, 4), extreme, requires_grad=True)
    loss = contrastive_loss(log_probability, 50_000)
    (gradient,) = torch.autograd.grad(loss, log_probability)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_half_precision_changes_little(data):
    """exp(1/0.07) is infinite in fp16, and 1e-7 is zero."""
    wide = update_of(build(data, temperature=0.07), batch_of(data, 0, 1, 2)).losses["crd"]
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            half = update_of(build(data, temperature=0.07), batch_of(data, 0, 1, 2)).losses["crd"]
        assert half.dtype == torch.float32
        assert half.item() == pytest.approx(wide.item(), rel=0.02)


def test_steps_bring_the_embeddings_of_a_sample_together(data):
    method = build(data, negatives=32, weight=1.0)
    batches = [batch_of(data, *range(start, start + 4)) for start in (0, 4, 8)]
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    for step in range(180):
        for update in method.step(batches[step % 3], Progress()):
            optimizer.zero_grad()
            method.total(update, Progress()).backward()
            optimizer.step()
    cosines = method.student_bank.vectors @ method.teacher_bank.vectors.T
    classes = (torch.arange(SAMPLES) % CLASSES).sort().values
    others = cosines[classes[:, None] != classes]
    assert cosines.diagonal().mean() > 0.8
    assert cosines.diagonal().mean() > others.mean() + 0.5


# The parts.


def test_published_weights(data):
    method = build(data)
    losses = update_of(method, batch_of(data, 0, 1)).losses
    assert {name: method.weight(name, Progress()) for name in losses} == {"ce": 1.0, "crd": 0.8}


def test_a_soft_term_may_be_added(data):
    method, batch = build(data, alpha=1.0, kd_temperature=2.0), batch_of(data, 0, 1)
    losses = update_of(method, batch).losses
    assert {name: method.weight(name, Progress()) for name in losses} == {"ce": 1.0, "crd": 0.8, "kd": 1.0}
    soft = kd_loss(method.student(batch.inputs).logits, method.teacher(batch).logits, 2.0)
    assert torch.equal(losses["kd"], soft)


def test_the_batch_is_remembered_once_and_after_the_step(data):
    method, batch = build(data), batch_of(data, 3, 7, 8)
    before = {name: bank.vectors.clone() for name, bank in banks_of(method).items()}
    update_of(method, batch)
    for name, bank in banks_of(method).items():
        assert torch.equal(bank.vectors, before[name])
    finish(method, batch)
    own = method.rows(batch)[:, 0]
    seen = torch.zeros(SAMPLES, dtype=torch.bool).index_fill(0, own, True)
    features = {
        "student": method.student_embedding(method.student(batch.inputs).features["embedding"]),
        "teacher": method.teacher_embedding(method.teacher(batch).features["embedding"]),
    }
    for name, bank in banks_of(method).items():
        assert torch.equal(bank.vectors[~seen], before[name][~seen])
        moved = MOMENTUM * before[name][own] + (1 - MOMENTUM) * features[name]
        torch.testing.assert_close(bank.vectors[own], moved / moved.norm(dim=1, keepdim=True))


def banks_of(method):
    return {"student": method.student_bank, "teacher": method.teacher_bank}


def test_banks_are_in_the_checkpoint_and_not_in_the_network(data):
    method = build(data)
    assert {"student_bank.vectors", "teacher_bank.vectors", "student_bank.log_z"} <= student_state(method).keys()
    assert method.export().state_dict().keys() == network(4).state_dict().keys()
    assert not any(part.shape == (SAMPLES, DIM) for part in method.export().state_dict().values())


class Listener(Silent):
    def __init__(self):
        self.heard = []

    def note(self, text, *, once=False):
        self.heard.append(text)


def test_memory_is_stated_before_it_is_taken(data, monkeypatch):
    listener = Listener()

    def bank(samples, dim, **_):
        raise InterruptedError(f"{samples} x {dim}, after {listener.heard}")

    monkeypatch.setattr("tutelage.methods.crd.MemoryBank", bank)
    with pytest.raises(InterruptedError, match=f"{SAMPLES} x {DIM}, after .*The memory banks, 2 x {SAMPLES} samples x"):
        build(data, reporter=listener)


def test_an_embedding_is_a_vector_whatever_its_shape():
    embedding = Embedding(torch.Size([2, 6, 2, 3]), 5)
    vectors = embedding(torch.randn(4, 6, 2, 3))
    assert vectors.shape == (4, 5)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))


def test_a_network_of_tokens():
    vit = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=32, patch_size=8, depth=2, embed_dim=24, num_classes=CLASSES
    )
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % CLASSES
    data = SimpleNamespace(train=Vectors(images, labels), num_classes=CLASSES)
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
    for one, other in ((vit, teacher), (teacher, vit)):
        method = CRD(one, FrozenTeacher(other), data, images[:2], negatives=5)
        update = finish(method, Batch(inputs=images, targets=labels, indices=torch.arange(6)))
        assert all(torch.isfinite(loss) for loss in update.losses.values())


# What cannot be.


def test_a_loader_tells_no_positions(data):
    loader = SimpleNamespace(train=DataLoader(data.train), num_classes=CLASSES)
    with pytest.raises(UserError, match="pass the dataset instead"):
        build(loader)


def test_a_teacher_without_a_network_is_refused(data):
    with pytest.raises(UserError, match="UniformTeacher gives only logits"):
        CRD(network(4), UniformTeacher(CLASSES), data, torch.zeros(2, WIDTH))


@pytest.mark.parametrize(
    "option",
    [
        {"embedding_dim": 0},
        {"negatives": 0},
        {"temperature": 0.0},
        {"kd_temperature": -1.0},
        {"bank_momentum": 1.0},
        {"bank_momentum": -0.1},
        {"weight": -1.0},
        {"weight": math.nan},
        {"alpha": -1.0},
    ],
)
def test_numbers_out_of_range_are_refused(data, option):
    ((name, value),) = option.items()
    with pytest.raises(UserError, match=f"{name}={value}"):
        build(data, **option)
