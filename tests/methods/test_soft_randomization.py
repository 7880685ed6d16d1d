"""Noise for the student alone, and only in training."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import parse_choice
from tutelage.methods.kd import KD
from tutelage.methods.parts.altered import Altered
from tutelage.methods.soft_randomization import InputNoise
from tutelage.methods.supervised import Supervised
from tutelage.models.modes import evaluating
from tutelage.testing.toys import TRAINING, methods_of, toy_batch, toy_data, toy_experiment
from tutelage.training.checkpoint import student_state
from tutelage.training.driver import Driver


def noisy(batch, std, **options):
    return InputNoise(std, **options)(batch, Progress())


def total(method, batch):
    (update,) = method.step(batch, Progress())
    return method.total(update, Progress())


def test_the_known_answer_without_noise(double, echo, parrot):
    method = Altered(KD(echo, parrot(torch.tensor([[2.0, 0.0, -1.0]])), alpha=0.9, temperature=4.0), InputNoise(0.0))
    batch = Batch(inputs=torch.tensor([[1.0, 0.5, 0.0]]), targets=torch.tensor([0]))
    assert total(method, batch).item() == pytest.approx(0.4130209558, abs=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_against_loops_and_closed_gradient(temperature, double, slow):
    # Both networks answer with what they are asked, so the logits tell who saw what.
    method = KD(nn.Identity(), FrozenTeacher(nn.Identity()), alpha=0.7, temperature=temperature)
    clean, labels = (torch.randn(5, 4) * 3).requires_grad_(True), torch.randint(0, 4, (5,))
    torch.manual_seed(3)
    found = total(Altered(method, InputNoise(0.8)), Batch(inputs=clean, targets=labels))
    torch.manual_seed(3)
    seen = (clean + 0.8 * torch.randn(5, 4)).detach()
    hard = slow.label_loss(seen.tolist(), labels.tolist())
    soft = temperature**2 * slow.soft_loss(seen.tolist(), clean.tolist(), temperature)
    assert found.item() == pytest.approx(0.3 * hard + 0.7 * soft, rel=1e-10)
    (gradient,) = torch.autograd.grad(found, clean)
    gap = temperature * (F.softmax(seen / temperature, 1) - F.softmax(clean.detach() / temperature, 1))
    closed = (0.3 * (F.softmax(seen, 1) - F.one_hot(labels, 4)) + 0.7 * gap) / 5
    assert torch.allclose(gradient, closed, atol=1e-14)


def test_the_noise_is_gaussian_additive_and_fresh():
    batch = Batch(inputs=torch.full((400, 3, 8, 8), 0.5), targets=torch.zeros(400))
    one, other = (noisy(batch, 0.2).inputs - 0.5 for _ in range(2))
    count = one.numel()
    assert abs(one.mean().item()) < 5 * 0.2 / math.sqrt(count)
    assert one.std().item() == pytest.approx(0.2, abs=5 * 0.2 / math.sqrt(2 * count))
    assert (one.abs() < 0.2).float().mean().item() == pytest.approx(0.6827, abs=0.01)
    assert abs((one * other).mean().item()) < 5 * 0.04 / math.sqrt(count)
    dark = noisy(Batch(inputs=torch.zeros(99, 99)), 0.2).inputs
    assert dark.std().item() == pytest.approx(0.2, abs=0.01), "it does not grow with the pixel"


def test_the_teacher_sees_the_inputs_without_noise():
    batch = toy_batch()
    found = noisy(batch, 0.2)
    assert torch.equal(found.teacher_inputs, batch.inputs)
    assert not torch.equal(found.inputs, batch.inputs)
    again = noisy(found, 0.2)
    assert torch.equal(again.teacher_inputs, batch.inputs), "also behind other noise"
    assert found.indices is batch.indices
    assert found.targets is batch.targets


@pytest.mark.parametrize(("clip", "least", "most"), [(True, 0.0, 1.0), (False, -0.5, 1.5)])
def test_noisy_images_can_be_clipped(clip, least, most):
    inputs = noisy(Batch(inputs=torch.rand(50, 3, 8, 8)), 0.5, clip=clip).inputs
    assert inputs.min() <= least
    assert inputs.max() >= most
    assert clip == bool(((inputs >= 0) & (inputs <= 1)).all())


def test_floats_of_a_mapping_and_every_view_of_a_sequence():
    tokens, pictures = torch.arange(6).view(2, 3), torch.rand(2, 4)
    text = noisy(Batch(inputs={"ids": tokens, "pixels": pictures}, targets=torch.zeros(2)), 0.1)
    assert list(text.inputs) == ["ids", "pixels"]
    assert text.inputs["ids"] is tokens
    assert not torch.equal(text.inputs["pixels"], pictures)
    assert text.teacher_inputs == {"ids": tokens, "pixels": pictures}
    views = noisy(Batch(inputs=[pictures, pictures], targets=torch.zeros(2)), 0.1)
    assert not torch.equal(*views.inputs)
    assert all(view is pictures for view in views.teacher_inputs)


@pytest.mark.parametrize("inputs", [torch.arange(4), {"ids": torch.arange(4)}, [torch.arange(4)]])
def test_inputs_without_floats_are_refused(inputs):
    with pytest.raises(UserError, match="these inputs have none"):
        noisy(Batch(inputs=inputs), 0.1)


def test_memory_format_and_precision_stay():
    inputs = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    found = noisy(Batch(inputs=inputs), 0.1).inputs
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert noisy(Batch(inputs=inputs.bfloat16()), 0.1).inputs.dtype == torch.bfloat16


@pytest.mark.parametrize("method", ["kd", "at", "crd", "supervised"])
def test_without_noise_it_is_the_method_itself_bit_for_bit(method):
    (plain,) = methods_of(catalogue.get(method), toy_experiment()).values()
    (found,) = methods_of(
        catalogue.get("soft-randomization"), toy_experiment(), {"method": method, "std": 0.0}
    ).values()
    for one in (plain, found):
        Driver(TRAINING).fit(one, toy_data())
    before = student_state(plain)
    after = {key.removeprefix("method."): value for key, value in student_state(found).items()}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_predictions_are_of_the_inputs_as_they_are():
    (method,) = methods_of(catalogue.get("soft-randomization"), toy_experiment(), {"std": 5.0}).values()
    inputs = toy_batch().inputs
    with evaluating(method), torch.no_grad():
        assert torch.equal(method(inputs)["student"], method.export()(inputs))


def test_every_stage_of_a_recipe_is_noisy():
    found = methods_of(catalogue.get("soft-randomization"), toy_experiment(), {"method": "tf-kd-self", "std": 0.3})
    assert [(stage, method.change.std) for stage, method in found.items()] == [("self-teacher", 0.3), ("distill", 0.3)]
    assert isinstance(found["self-teacher"].method, Supervised)


def test_strong_views_of_noisy_images_take_clipping():
    methods = methods_of(catalogue.get("soft-randomization"), toy_experiment(), {"method": "mlld"})
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        total(methods["distill"], toy_batch())
    clipped = methods_of(catalogue.get("soft-randomization"), toy_experiment(), {"method": "mlld", "clip": True})
    assert total(clipped["distill"], toy_batch()).isfinite()


@pytest.mark.parametrize("std", [-0.1, math.nan])
def test_a_deviation_is_not_below_zero(std):
    with pytest.raises(UserError, match="std=.*zero or more"):
        methods_of(catalogue.get("soft-randomization"), toy_experiment(), {"std": std})


def test_the_published_form_is_that_of_its_method():
    choice = parse_choice("soft-randomization:std=0.05,method=(kd:temperature=4,alpha=0.9)")
    (found,) = methods_of(choice.entry, toy_experiment(), choice.options).values()
    assert (found.change.std, found.change.clip, found.method.temperature) == (0.05, False, 4.0)
