"""Losses under the transforms of `torch.func`, and temperatures by which nothing can be divided."""

import math
from functools import partial

import pytest
import torch
from torch.func import grad, jacrev, vmap

from tutelage.features.products import gram, mean_square
from tutelage.losses import binary_kd_loss, divergences, kd_loss, soft_cross_entropy, standardize
from tutelage.methods.end import end_loss
from tutelage.methods.fsp import fsp_matrix
from tutelage.methods.mlld import gram_loss, instance_loss
from tutelage.methods.msd import mutual_kl
from tutelage.methods.parts.crops import soft_label_losses
from tutelage.methods.quest import word_logits
from tutelage.methods.tf_kd_reg import virtual_distribution

SAMPLES, CLASSES = 4, 5
TEACHER = torch.randn(SAMPLES, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
STUDENT = torch.randn(SAMPLES, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
MAPS = torch.randn(SAMPLES, 3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

# Of each a loss of the student's logits or map alone, and what it is given.
LOSSES = {
    "kd_loss": (lambda it: kd_loss(it, TEACHER[: len(it)], 3.0), STUDENT),
    "kd_loss of log zero": (lambda it: kd_loss(it, TEACHER.index_fill(1, torch.tensor(0), -1e30), 3.0), STUDENT),
    "divergences": (lambda it: (divergences(it, TEACHER, 2.0) * torch.arange(4)).sum(), STUDENT),
    "binary_kd_loss": (lambda it: binary_kd_loss(it, TEACHER, 3.0), STUDENT),
    "soft_cross_entropy": (lambda it: soft_cross_entropy(it, TEACHER, 3.0), STUDENT),
    "standardize": (lambda it: kd_loss(standardize(it), TEACHER, 3.0), STUDENT),
    "end_loss": (lambda it: end_loss(it, torch.stack([TEACHER, -TEACHER]), 2.0), STUDENT),
    "mutual_kl": (lambda it: mutual_kl([it, TEACHER], 2.0), STUDENT),
    "instance_loss": (lambda it: instance_loss(it, TEACHER, [1.0, 2.0]), STUDENT),
    "gram_loss": (lambda it: gram_loss(it, TEACHER, torch.tensor([1.0, 0.0, 1.0, 1.0]).double()), STUDENT),
    "gram": (lambda it: (gram(it) * torch.arange(4)).sum(), MAPS),
    "mean_square": (lambda it: (mean_square(it, (0, 2, 3)) * torch.arange(3)).sum(), MAPS),
    "fsp_matrix": (lambda it: fsp_matrix(it, it.flip(1), variant="code").square().sum(), MAPS),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_torch_func_is_that_of_backward(name):
    loss, values = LOSSES[name]
    given = values.clone().requires_grad_()
    expected = loss(given)
    expected.backward()
    assert torch.allclose(grad(loss)(values), given.grad, rtol=1e-10, atol=1e-12)
    several = torch.stack([values, values + 0.1, values * 2])
    assert torch.allclose(vmap(loss)(several), torch.stack([loss(one) for one in several]), rtol=1e-10)
    assert torch.allclose(vmap(grad(loss))(several)[0], given.grad, rtol=1e-10, atol=1e-12)


def test_gradients_of_single_samples_add_up():
    def of_one(student, teacher):
        return kd_loss(student[None], teacher[None], 3.0)

    given = STUDENT.clone().requires_grad_()
    kd_loss(given, TEACHER, 3.0).backward()
    single = vmap(grad(of_one))(STUDENT, TEACHER)
    assert torch.allclose(single / SAMPLES, given.grad, rtol=1e-10)


def test_there_is_a_second_derivative_under_torch_func():
    found = jacrev(grad(lambda it: kd_loss(it, TEACHER, 3.0)))(STUDENT)
    step = 1e-5 * torch.ones_like(STUDENT)
    slope = grad(lambda it: kd_loss(it, TEACHER, 3.0))
    change = (slope(STUDENT + step * STUDENT) - slope(STUDENT - step * STUDENT)) / 2e-5
    assert torch.allclose(torch.einsum("abcd,cd->ab", found, STUDENT), change, rtol=1e-6, atol=1e-9)


DIVIDED = {
    "kd_loss": partial(kd_loss, STUDENT, TEACHER),
    "divergences": partial(divergences, STUDENT, TEACHER),
    "binary_kd_loss": partial(binary_kd_loss, STUDENT, TEACHER),
    "soft_cross_entropy": partial(soft_cross_entropy, STUDENT, TEACHER),
    "end_loss": partial(end_loss, STUDENT, TEACHER[None]),
    "mutual_kl": partial(mutual_kl, [STUDENT, TEACHER]),
    "instance_loss": lambda temperature: instance_loss(STUDENT, TEACHER, [1.0, temperature]),
    "soft_label_losses": partial(soft_label_losses, STUDENT, TEACHER.softmax(1)),
    "word_logits": partial(word_logits, MAPS, torch.ones(2, 3)),
    "virtual_distribution": lambda temperature: virtual_distribution(10, temperature=temperature),
}


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", DIVIDED)
def test_a_temperature_by_which_nothing_can_be_divided_is_refused(name, temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature} must be above zero and finite"):
        DIVIDED[name](temperature)
