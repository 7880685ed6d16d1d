import math

import pytest
import torch

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.at import AT, attention_loss, attention_map
from tutelage.models import CATALOGUE
from tutelage.testing.toys import toy_transformer

STUDENT = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]]], dtype=torch.float64)
TEACHER = torch.ones(1, 1, 2, 2, dtype=torch.float64)
VARIANTS = pytest.mark.parametrize("variant", ["code", "paper"])


# The paper's equations, one number at a time: of scalar tensors, through which gradients flow.


def scalars(tensor):
    return [scalars(part) for part in tensor] if tensor.ndim else tensor


def slow_pool(plane, height, width):
    """The mean of the places that a larger place touches."""

    def touched(index, size, count):
        return range(index * size // count, -(-(index + 1) * size // count))

    return [
        [
            sum(plane[i][j] for i in rows for j in columns) / (len(rows) * len(columns))
            for columns in (touched(x, len(plane[0]), width) for x in range(width))
        ]
        for rows in (touched(y, len(plane), height) for y in range(height))
    ]


def slow_attention(sample, height, width):
    planes = [slow_pool(plane, height, width) for plane in sample]
    activity = [sum(plane[y][x] ** 2 for plane in planes) for y in range(height) for x in range(width)]
    length = sum(value**2 for value in activity) ** 0.5
    return [value / length for value in activity]


def slow(student, teacher, variant):
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])
    total = 0.0
    for ours, theirs in zip(scalars(student), scalars(teacher), strict=True):
        pairs = zip(slow_attention(ours, height, width), slow_attention(theirs, height, width), strict=True)
        squares = sum((a - b) ** 2 for a, b in pairs)
        total = total + (squares if variant == "code" else squares**0.5 / 2) / (height * width)
    return total / len(student)


def maps(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def build(student, teacher, size=(32, 32), **options):
    return AT(student, FrozenTeacher(teacher), torch.randn(2, 3, *size), **options)


def batch_of(size=(32, 32)):
    return Batch(inputs=torch.randn(2, 3, *size), targets=torch.tensor([1, 3]))


@VARIANTS
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((3, 2, 2, 3), (3, 2, 2, 3)),
        ((2, 3, 3, 5), (2, 1, 7, 9)),
        ((2, 2, 5, 4), (2, 3, 2, 4)),
        ((2, 2, 3, 6), (2, 3, 5, 4)),
    ],
)
def test_value_and_gradient_are_the_papers(student, teacher, variant):
    student, teacher = maps(*student), maps(*teacher).detach()
    found, expected = attention_loss(student, teacher, variant=variant), slow(student, teacher, variant)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-14)


def test_known_answers():
    found = attention_map(STUDENT)
    assert found.tolist() == [pytest.approx([0.242535625, 0.0, 0.0, 0.9701425], rel=1e-8)]
    assert attention_map(TEACHER).tolist() == [pytest.approx([0.5] * 4)]
    code, paper = (attention_loss(STUDENT, TEACHER, variant=variant).item() for variant in ("code", "paper"))
    assert code == pytest.approx(0.1968304687045838, rel=1e-12)
    # The norm, halved and over four places; its square is two less twice the cosine.
    assert paper * 2 * 4 == pytest.approx(0.887311599619, rel=1e-11)
    assert code * 4 == pytest.approx(0.7873218748, rel=1e-9)
    cosine = (found * attention_map(TEACHER)).sum().item()
    assert code * 4 == pytest.approx(2 - 2 * cosine, rel=1e-12)


def test_the_published_weight_belongs_to_the_default():
    method = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5))
    assert (method.variant, method.weight("attention", Progress())) == ("code", 1000.0)
    assert 1000 * attention_loss(STUDENT, TEACHER).item() == pytest.approx(196.8304687045838, rel=1e-12)


@VARIANTS
def test_scale_signs_and_channels_do_not_matter(variant):
    student, teacher = maps(4, 3, 2, 5), maps(4, 2, 2, 5)
    reference = attention_loss(student, teacher, variant=variant)
    scale = torch.tensor([1e-3, -2.0, 0.5, 1e4], dtype=torch.float64)[:, None, None, None]
    signs = torch.randn_like(student).sign()
    for changed in (student * scale, student * signs, student[:, [2, 0, 1]], student.repeat(1, 3, 1, 1)):
        torch.testing.assert_close(attention_loss(changed, teacher, variant=variant), reference, rtol=1e-12, atol=0)
    torch.testing.assert_close(attention_loss(student, -teacher * scale, variant=variant), reference)
    moved = attention_loss(student.roll(1, 3), teacher, variant=variant)
    assert moved.item() != pytest.approx(reference.item(), rel=1e-3)


def test_the_loss_is_between_zero_and_two_over_the_places():
    here, there = (torch.zeros(1, 1, 2, 3, dtype=torch.float64) for _ in range(2))
    here[..., 0, 0], there[..., 1, 2] = 3.0, 0.1
    assert attention_loss(here, there).item() == pytest.approx(2 / 6, rel=1e-12)
    assert attention_loss(here, here).item() == 0.0


@VARIANTS
def test_equal_maps_cost_nothing_and_pull_nowhere(variant):
    student = maps(3, 4, 3, 2)
    loss = attention_loss(student, student.detach(), variant=variant)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0.0
    assert gradient.abs().max().item() == 0.0


def test_near_the_teacher_the_square_pulls_less_and_the_norm_as_hard():
    teacher, direction = maps(1, 2, 3, 3).detach(), torch.randn(1, 2, 3, 3, dtype=torch.float64)

    def pull(distance, variant):
        student = (teacher + distance * direction).requires_grad_(True)
        return torch.autograd.grad(attention_loss(student, teacher, variant=variant), student)[0].norm().item()

    assert pull(1e-4, "code") == pytest.approx(pull(1e-2, "code") / 100, rel=0.1)
    assert pull(1e-4, "paper") == pytest.approx(pull(1e-2, "paper"), rel=0.1)


@VARIANTS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [0.0, 1e-7, 1.0, 1e4])
def test_dead_and_constant_maps_are_finite(value, dtype, variant):
    flat, other = torch.full((2, 3, 4, 5), value, dtype=dtype), torch.randn(2, 3, 4, 5).to(dtype)
    for student, teacher in ((flat, other), (other, flat), (flat, flat)):
        student = student.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16 if dtype == torch.float32 else dtype):
            loss = attention_loss(student, teacher, variant=variant)
        (gradient,) = torch.autograd.grad(1000 * loss, student)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_rounding_errors_have_no_direction():
    student = (torch.randn(2, 3, 4, 5) * 1e-6).requires_grad_(True)
    loss = attention_loss(student, torch.randn(2, 3, 4, 5))
    assert loss.item() == pytest.approx(1 / 20, rel=1e-5)
    assert torch.autograd.grad(loss, student)[0].abs().max().item() == 0.0


@VARIANTS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, variant):
    # In float16 the sum of 64 squares of 40 is infinite.
    student, teacher = (torch.randn(2, 64, 4, 6).mul(40).to(dtype) for _ in range(2))
    with torch.autocast("cpu", dtype):
        found = attention_loss(student, teacher[..., ::2], variant=variant)
    assert found.dtype == torch.float32
    assert torch.equal(found, attention_loss(student.float(), teacher[..., ::2].float(), variant=variant))
    assert torch.equal(attention_map(student), attention_map(student.float()))


def test_no_gradient_reaches_the_teacher():
    student, teacher = maps(2, 2, 3, 3), maps(2, 2, 3, 3)
    attention_loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@VARIANTS
def test_the_method_sums_over_the_stages(variant):
    method = build(CATALOGUE["tiny_cnn"](5), CATALOGUE["resnet8"](5), variant=variant, beta=7.0).eval()
    batch = batch_of()
    student, teacher = method.student(batch.inputs), method.teacher(batch)
    layers = ["layer1", "layer2", "layer3"]
    assert [(pair.student.layer, pair.teacher.layer) for pair in method.pairs] == list(zip(layers, layers))
    pairs = [(student.features[name].detach().double(), teacher.features[name].double()) for name in layers]
    expected = math.fsum(attention_loss(*pair, variant=variant).item() for pair in pairs)
    assert method.losses(batch)["attention"].item() == pytest.approx(expected, rel=1e-5)
    assert method.weight("attention", Progress()) == 7.0


@pytest.mark.parametrize(
    ("student", "teacher", "size"),
    [
        (CATALOGUE["tiny_cnn"], CATALOGUE["vgg8"], (33, 50)),
        (CATALOGUE["vgg8"], CATALOGUE["tiny_cnn"], (50, 33)),
        (CATALOGUE["tiny_cnn"], lambda _: toy_transformer(), (32, 32)),
        (lambda _: toy_transformer(), CATALOGUE["tiny_cnn"], (32, 32)),
    ],
    ids=["33x50", "50x33", "tokens to a CNN", "a CNN to tokens"],
)
def test_any_two_networks(student, teacher, size):
    method = build(student(5), teacher(5), size)
    losses = method.losses(batch_of(size))
    losses["attention"].backward()
    gradients = [p.grad for p in method.student.parameters() if p.grad is not None]
    assert 0 < losses["attention"].item() <= 2 * len(method.pairs)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_layers_by_name():
    method = build(CATALOGUE["tiny_cnn"](5), toy_transformer(), layers="layer2:blocks.1+layer3:blocks.3")
    assert [str(pair) for pair in method.pairs] == [
        "layer2 (24x16x16) : blocks.1 (24x4x4)",
        "layer3 (48x8x8) : blocks.3 (24x4x4)",
    ]


def test_one_place_has_no_attention():
    with pytest.raises(UserError, match=r"embedding \(48x1x1\).*compared at a single place"):
        build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), layers="layer2+layer3:embedding")


@pytest.mark.parametrize("beta", [-1.0, float("nan")])
def test_a_weight_below_zero_is_refused(beta):
    with pytest.raises(UserError, match=f"beta={beta}"):
        build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), beta=beta)


def test_a_teacher_without_a_network_is_refused():
    with pytest.raises(UserError, match="gives only logits"):
        AT(CATALOGUE["tiny_cnn"](5), UniformTeacher(5), torch.randn(2, 3, 32, 32))
