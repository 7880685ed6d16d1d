"""What the losses keep for the backward pass and have at once, and that derivatives written out are right."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.features.products import gram, mean_square
from tutelage.losses import cross_entropy, divergences, kd_loss, standardize
from tutelage.methods.fsp import fsp_matrix
from tutelage.methods.mlld import gram_loss, masks

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "losses.py"))
CASES, saved_bytes, peak_bytes, tensors = (
    BENCHMARK[name] for name in ("cases", "saved_bytes", "peak_bytes", "tensors")
)
CASES = CASES()
HALVES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])

# In tensors of float32 of the student's shape: what is kept, and what is there at once, each at most.
LIMITS = {
    "kd, ImageNet": (1.02, 3.1),
    "kd, a vocabulary": (1.02, 3.1),
    "dkd": (3.3, 6.5),
    # Of five temperatures: the instance term's gradients, the probabilities, and both relations' gradients.
    "mlld, CIFAR-100": (20.5, 43.0),
    "sp": (0.02, 2.1),
    "at": (0.05, 2.2),
    "vid": (1.01, 3.1),
    "crd": (1.02, 3.1),
}


@HALVES
@pytest.mark.parametrize("name", LIMITS)
def test_no_more_is_kept_and_made_than_is_needed(name, dtype):
    case, (kept, at_once) = CASES[name], LIMITS[name]
    inputs = tensors(case, dtype)
    size = 4 * inputs[0].numel()
    assert saved_bytes(lambda: case.ours(*inputs), inputs) <= kept * size
    assert peak_bytes(lambda: torch.autograd.grad(case.ours(*inputs), inputs[0])) <= at_once * size


@pytest.mark.parametrize("name", ["kd, ImageNet", "dkd", "sp", "vid", "crd", "mlld, CIFAR-100"])
def test_the_textbook_keeps_more(name):
    """So the limits above can be missed."""
    inputs = tensors(CASES[name], torch.float32)
    assert saved_bytes(lambda: CASES[name].textbook(*inputs), inputs) > LIMITS[name][0] * 4 * inputs[0].numel()


@HALVES
@pytest.mark.parametrize("name", [name for name in CASES if "vocabulary" not in name and "ImageNet" not in name])
def test_loss_and_gradient_are_the_textbooks(name, dtype):
    case = CASES[name]
    inputs = tensors(case, dtype)
    found, expected = case.ours(*inputs), case.textbook(*inputs)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    ours, textbook = (torch.autograd.grad(loss, inputs[0])[0].float() for loss in (found, expected))
    assert (ours - textbook).norm() <= (1e-4 if dtype == torch.float32 else 1e-2) * textbook.norm()


def test_classes_by_classes_are_never_kept():
    """Of 5 temperatures and 400 classes these would be 3.2 MB for each product."""
    student, teacher = torch.randn(2, 5, 8, 400).softmax(-1)
    student.requires_grad_(True)
    assert saved_bytes(lambda: gram_loss(student.mT, teacher.mT), [student, teacher]) <= student.nbytes
    step = lambda: torch.autograd.grad(gram_loss(student.mT, teacher.mT), student)  # noqa: E731
    assert peak_bytes(step) < 5 * 400 * 400 * 4


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_in_half_precision_are_not_copied_to_be_kept(memory_format):
    maps = torch.randn(2, 4, 8, 6, 5).bfloat16()
    one, two = (each.contiguous(memory_format=memory_format).requires_grad_(True) for each in maps)
    assert saved_bytes(lambda: fsp_matrix(one, two).sum(), [one, two]) == 0
    assert saved_bytes(lambda: gram(one).sum(), [one]) == 0
    assert saved_bytes(lambda: mean_square(one, (1,)).sum(), [one]) == 0


def test_the_layout_in_memory_does_not_change_the_similarities():
    maps = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    assert torch.allclose(gram(maps.contiguous(memory_format=torch.channels_last)), gram(maps), rtol=1e-13)


def test_derivatives_are_those_of_finite_differences():
    logits, teacher = torch.randn(2, 3, 5, 2, dtype=torch.float64)
    maps, other = torch.randn(2, 2, 3, 2, 4, dtype=torch.float64)
    rows, target = torch.randn(2, 2, 4, 3, dtype=torch.float64)
    kept = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    for function, inputs in (
        (lambda z: divergences(z, teacher, 2.0), (logits,)),
        (lambda z: divergences(z, teacher, 0.7, dim=-1), (logits,)),
        (gram, (maps,)),
        (lambda m: mean_square(m, (1,)), (maps,)),
        (lambda m: mean_square(m, (0, 2, 3)), (maps,)),
        (fsp_matrix, (maps, other)),
        (lambda p: gram_loss(p, target, kept), (rows,)),
        (lambda p: gram_loss(p, target, kept.mean()), (rows,)),
        (lambda p: gram_loss(p[0], target[0]), (rows,)),
    ):
        assert torch.autograd.gradcheck(function, [each.clone().requires_grad_(True) for each in inputs])


def test_of_no_samples_the_mean_square_has_a_gradient():
    nothing = torch.zeros(0, 3, 2, 2, requires_grad=True)
    mean_square(nothing, (1,)).sum().backward()
    assert nothing.grad.shape == nothing.shape


def test_second_derivatives_are_right_or_refused():
    maps, other = (torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for function, inputs in ((gram, (maps,)), (lambda m: mean_square(m, (1,)), (maps,)), (fsp_matrix, (maps, other))):
        assert torch.autograd.gradgradcheck(function, inputs)
    logits = torch.randn(4, 5, requires_grad=True)
    for loss in (kd_loss(logits, torch.randn(4, 5)), gram_loss(logits, torch.randn(4, 5))):
        # Beside another term a constant would go unnoticed.
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(loss + logits.square().sum(), logits, create_graph=True)


def test_kd_in_a_compiled_step_is_one_graph():
    student, teacher = torch.randn(4, 7, requires_grad=True), torch.randn(4, 7)
    loss = torch.compile(kd_loss, fullgraph=True, backend="aot_eager")(student, teacher)
    (found,), (expected,) = (torch.autograd.grad(each, student) for each in (loss, kd_loss(student, teacher)))
    assert torch.equal(found, expected)


def test_targets_without_probability_and_beyond_all_exponentials():
    """As recorded answers have them: the logarithm of zero is -1e30 there."""
    student = torch.tensor([[1e4, -1e4, 0.0], [0.3, 0.2, 0.1]], requires_grad=True)
    teacher = torch.tensor([[0.0, -1e30, -1e30], [-100.0, 0.0, -1e30]])
    found = divergences(student, teacher)
    expected = -student[1].double().log_softmax(0)[1].item()
    assert found.tolist() == pytest.approx([0.0, expected], rel=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    target = F.one_hot(torch.tensor([0, 1]), 3)
    torch.testing.assert_close(gradient, student.detach().softmax(1) - target, rtol=0, atol=1e-7)


def test_what_is_not_a_number_stays_so():
    nothing = torch.full((1, 3), float("nan"))
    assert kd_loss(torch.randn(1, 3), nothing).isnan()
    assert kd_loss(nothing, torch.randn(1, 3)).isnan()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_backward_pass_under_autocast_multiplies_in_float32(memory_format):
    maps = torch.randn(4, 3, 5, 6).contiguous(memory_format=memory_format).requires_grad_(True)
    weights = torch.randn(4, 4)
    for function, upstream in ((gram, weights), (lambda m: fsp_matrix(m, m), weights[:, :3, None].expand(4, 3, 3))):
        (expected,) = torch.autograd.grad(function(maps), maps, upstream)
        with torch.autocast("cpu", torch.bfloat16):
            (found,) = torch.autograd.grad(function(maps), maps, upstream)
        assert torch.equal(found, expected)


class NothingSlow(TorchDispatchMode):
    """Refuses what waits for a device, and numbers wider than float32."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        assert not any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select", "aten::item")), name
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            assert not (isinstance(each, torch.Tensor) and each.dtype == torch.float64), name
        return found


@HALVES
@pytest.mark.parametrize("name", [name for name in CASES if "vocabulary" not in name and "ImageNet" not in name])
def test_no_loss_waits_for_the_device_or_computes_in_float64(name, dtype):
    case = CASES[name]
    inputs = tensors(case, dtype)
    with NothingSlow():
        torch.autograd.grad(case.ours(*inputs), inputs[0])


@HALVES
def test_nor_do_the_other_losses(dtype):
    logits, labels = torch.randn(6, 5).to(dtype).requires_grad_(True), torch.arange(6) % 5
    with NothingSlow():
        masks(logits.detach())
        loss = cross_entropy(logits, labels, label_smoothing=0.1) + kd_loss(
            standardize(logits), logits, t_squared=False
        )
        torch.autograd.grad(loss, logits)


def test_what_waits_is_noticed():
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NothingSlow():
        torch.ones(1).item()
    with pytest.raises(AssertionError), NothingSlow():
        torch.ones(1).double()
