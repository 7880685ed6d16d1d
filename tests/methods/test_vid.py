import math

import pytest
import torch

from tutelage.core.method import Progress, Update
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.vid import VID, GaussianGuess, gaussian_loss
from tutelage.models import CATALOGUE
from tutelage.testing.toys import toy_transformer

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


def slow_regressor(vector, weights):
    for number, weight in enumerate(weights):
        vector = [sum(w * value for w, value in zip(row, vector, strict=True)) for row in weight]
        if number < len(weights) - 1:
            vector = [value if value > 0 else 0.0 * value for value in vector]
    return vector


def slow(student, teacher, weights, scale, eps):
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])
    weights = [scalars(weight[:, :, 0, 0]) for weight in weights]
    variance = [torch.log(1 + torch.exp(alpha)) + eps for alpha in scale]
    terms = []
    for ours, theirs in zip(scalars(student), scalars(teacher), strict=True):
        ours, theirs = ([slow_pool(plane, height, width) for plane in planes] for planes in (ours, theirs))
        for y in range(height):
            for x in range(width):
                mean = slow_regressor([plane[y][x] for plane in ours], weights)
                for mu, plane, var in zip(mean, theirs, variance, strict=True):
                    terms.append(0.5 * ((mu - plane[y][x]) ** 2 / var + torch.log(var)))
    return sum(terms) / len(terms)


def double(tensor):
    return torch.as_tensor(tensor, dtype=torch.float64)


def build(student, teacher, size=(32, 32), **options):
    return VID(student, FrozenTeacher(teacher), torch.randn(2, 3, *size), **options)


def tiny(**options):
    return build(CATALOGUE["tiny_cnn"](5), CATALOGUE["tiny_cnn"](5), **options)


def batch_of(size=(32, 32)):
    return Batch(inputs=torch.randn(2, 3, *size), targets=torch.tensor([1, 3]))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((2, 2, 2, 3), (2, 3, 2, 3)),
        ((2, 3, 3, 5), (2, 1, 7, 9)),
        ((2, 1, 5, 4), (2, 2, 2, 4)),
        ((1, 2, 3, 6), (1, 3, 5, 4)),
    ],
)
def test_value_and_every_gradient_are_the_papers(student, teacher):
    student = torch.randn(student, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(teacher, dtype=torch.float64)
    guess = GaussianGuess(student.shape[1], teacher.shape[1], eps=1e-3).double()
    torch.nn.init.normal_(guess.scale)
    weights = [layer.weight for layer in guess.regressor if isinstance(layer, torch.nn.Conv2d)]
    found, expected = guess(student, teacher), slow(student, teacher, weights, guess.scale, 1e-3)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    sources = [student, *weights, guess.scale]
    gradients = [torch.autograd.grad(loss, sources) for loss in (found, expected)]
    assert gradients[0][-1].abs().min() > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("squared", "variance", "expected"),
    [
        (0.0, 5.0, 0.8047189562170501),
        (4.0, 5.0, 1.2047189562170501),
        (4.0, 4.0, 1.1931471805599454),
        (1.0, 1.0, 0.5),
    ],
)
def test_known_answers(squared, variance, expected):
    mean = torch.randn(2, 1, 2, 3, dtype=torch.float64)
    found = gaussian_loss(mean, mean + math.sqrt(squared), double([variance]))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_known_answer_of_two_channels():
    mean, teacher = torch.zeros(1, 2, 1, 1, dtype=torch.float64), double([2.0, 0.0]).view(1, 2, 1, 1)
    assert gaussian_loss(mean, teacher, double([5.0, 1.0])).item() == pytest.approx(0.6023594781085251, rel=1e-12)


def test_known_answer_of_a_guess_that_is_right():
    guess = GaussianGuess(1, 1).double()
    for layer in guess.regressor:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.ones_(layer.weight)
    positive = torch.rand(2, 1, 3, 4, dtype=torch.float64)
    assert guess(positive, positive).item() == pytest.approx(0.5 * math.log(5), rel=1e-6)


def test_the_variance_starts_where_it_is_told():
    guess = GaussianGuess(4, 3)
    assert guess.scale.tolist() == pytest.approx([4.9932291827] * 3, rel=1e-6)
    assert guess.variance.tolist() == pytest.approx([5.0] * 3, rel=1e-6)
    for variance in (1e-3, 0.5, 1000.0):
        found = GaussianGuess(1, 1, initial_variance=variance, eps=1e-5).variance
        assert found.item() == pytest.approx(variance, rel=1e-4)


@pytest.mark.parametrize(("channels", "count"), [(64, 12_352), (128, 49_280), (256, 196_864)])
def test_parameters_are_as_many_as_the_tables_have(channels, count):
    assert sum(p.numel() for p in GaussianGuess(channels, channels).parameters()) == count


def test_the_variance_is_trained():
    """mdistiller keeps it in a plain list, where no optimizer finds it."""
    method = tiny()
    scales = [name for name, _ in method.named_parameters() if name.endswith(".scale")]
    assert scales == ["guesses.0.scale", "guesses.1.scale", "guesses.2.scale"]
    assert set(scales) <= set(method.state_dict())
    (spec,) = method.optimizers().values()
    assert {id(guess.scale) for guess in method.guesses} <= {id(p) for p in spec.params}
    before = [guess.scale.detach().clone() for guess in method.guesses]
    optimizer = torch.optim.SGD(spec.params, lr=0.1)
    method.total(Update(method.losses(batch_of())), Progress()).backward()
    optimizer.step()
    for guess, scale in zip(method.guesses, before, strict=True):
        assert (guess.scale != scale).all()


def test_training_finds_the_variance_of_each_channel():
    guess = GaussianGuess(1, 2).double()
    for layer in guess.regressor:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.zeros_(layer.weight).requires_grad_(False)
    teacher = torch.randn(4, 2, 6, 6, dtype=torch.float64) * double([2.0, 0.1]).view(1, 2, 1, 1)
    optimizer = torch.optim.LBFGS([guess.scale], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = guess(torch.ones(4, 1, 6, 6, dtype=torch.float64), teacher)
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = teacher.square().mean((0, 2, 3))
    assert guess.variance.tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    assert closure().item() == pytest.approx(0.5 * (1 + expected.log().mean().item()), rel=1e-6)


def test_the_loss_may_be_negative_and_the_variance_has_a_floor():
    guess = GaussianGuess(1, 1, eps=1e-2)
    with torch.no_grad():
        guess.scale.fill_(-1e4)
    dead = torch.zeros(1, 1, 2, 2)
    loss = guess(dead, dead)
    assert guess.variance.item() == pytest.approx(1e-2)
    assert loss.item() == pytest.approx(0.5 * math.log(1e-2), rel=1e-6)
    assert torch.autograd.grad(loss, guess.scale)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_dead_constant_and_large_maps_are_finite(value, dtype):
    guess = GaussianGuess(3, 2)
    flat = torch.full((2, 3, 4, 5), value, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype):
        loss = guess(flat, torch.full((2, 2, 3, 7), value, dtype=dtype))
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [flat, *guess.parameters()]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    # In float16 the square of 300 is infinite.
    mean, teacher = (torch.randn(2, 3, 4, 6).mul(300).to(dtype) for _ in range(2))
    variance = torch.rand(3) + 0.1
    with torch.autocast("cpu", dtype):
        found = gaussian_loss(mean, teacher, variance)
    assert found.dtype == torch.float32
    assert torch.equal(found, gaussian_loss(mean.float(), teacher.float(), variance))


def test_no_gradient_reaches_the_teacher():
    student, teacher = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    GaussianGuess(3, 3)(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_the_method_sums_over_the_stages():
    method, batch = tiny(beta=0.5).eval(), batch_of()
    student, teacher = method.student(batch.inputs), method.teacher(batch)
    layers = ["layer1", "layer2", "layer3"]
    assert [(pair.student.layer, pair.teacher.layer) for pair in method.pairs] == list(zip(layers, layers))
    features = [(student.features[name], teacher.features[name]) for name in layers]
    expected = sum(guess(*pair).item() for guess, pair in zip(method.guesses, features, strict=True))
    assert method.losses(batch)["information"].item() == pytest.approx(expected, rel=1e-6)
    assert method.weight("information", Progress()) == 0.5
    assert tiny().weight("information", Progress()) == 1.0


@pytest.mark.parametrize(
    ("student", "teacher", "size"),
    [
        (CATALOGUE["tiny_cnn"], CATALOGUE["resnet8"], (33, 50)),
        (CATALOGUE["resnet8"], CATALOGUE["tiny_cnn"], (50, 33)),
        (CATALOGUE["vgg8"], CATALOGUE["tiny_cnn"], (33, 50)),
        (CATALOGUE["tiny_cnn"], lambda _: toy_transformer(), (32, 32)),
        (lambda _: toy_transformer(), CATALOGUE["tiny_cnn"], (32, 32)),
    ],
    ids=["33x50", "50x33", "vgg8", "tokens to a CNN", "a CNN to tokens"],
)
def test_any_two_networks(student, teacher, size):
    method = build(student(5), teacher(5), size)
    losses = method.losses(batch_of(size))
    losses["information"].backward()
    assert losses["information"].isfinite()
    gradients = {name: p.grad for name, p in method.named_parameters() if p.requires_grad and p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert all(f"guesses.{number}.scale" in gradients for number in range(len(method.pairs)))
    assert any(name.startswith("student.") for name in gradients)


def test_vectors_by_name():
    method = tiny(layers="layer2+embedding")
    assert [len(guess.scale) for guess in method.guesses] == [24, 48]
    assert method.losses(batch_of())["information"].isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta=-1"),
        ({"beta": math.nan}, "beta=nan"),
        ({"eps": 0.0}, "eps=0.0"),
        ({"initial_variance": 1e-6}, "initial_variance=1e-06"),
        ({"initial_variance": math.inf}, "initial_variance=inf"),
        ({"initial_variance": math.nan}, "initial_variance=nan"),
    ],
)
def test_wrong_numbers_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        tiny(**options)
