"""Every method builds and takes a step whatever the types of numbers of its two networks are."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.experiments import catalogue
from tutelage.features.adapting import wide_type
from tutelage.methods.mlld import gram_loss
from tutelage.methods.quest import word_logits
from tutelage.methods.tf_kd_reg import TfKDReg
from tutelage.methods.vid import VID
from tutelage.testing.kinds import home
from tutelage.testing.toys import CLASSES, TRAINING, ToyNetwork, toy_batch
from tutelage.testing.trials import fresh_methods

SINGLE, DOUBLE, HALF = torch.float32, torch.float64, torch.bfloat16


class TypedNetwork(ToyNetwork):
    """The toy network in a type of numbers, which it gives to its inputs as `Normalized` does."""

    def __init__(self, width, dtype, *, batch_norm=True):
        super().__init__(width, batch_norm=batch_norm)
        self.to(dtype)

    def forward(self, inputs):
        return super().forward(inputs.to(self.layer1[0].weight.dtype))


def typed(make, dtype):
    """Return a maker of networks of a type of numbers, which they give to their inputs as `Normalized` does."""

    def build(width, batch_norm):
        network = make(width, batch_norm).to(dtype)
        # Texts come by name and as whole numbers, which have no type to change.
        network.register_forward_pre_hook(lambda _, given: (given[0].to(dtype), *given[1:]) if given else None)
        return network

    return build


@dataclass(frozen=True)
class Types:
    """Types of numbers of the student, of the teacher, and of what torch makes when it is told nothing."""

    student: torch.dtype
    teacher: torch.dtype
    default: torch.dtype = SINGLE

    @property
    def networks(self):
        return {self.student, self.teacher}

    @property
    def losses(self):
        """Types that a loss may have: of the network that a stage trains, or of both if it compares them."""
        return {wide_type(dtype) for dtype in (*self.networks, torch.promote_types(self.student, self.teacher))}

    def kind(self, entry):
        """Return the kind of data that a method trains on, with networks of these types."""
        plain = home(entry)
        return replace(plain, network=typed(plain.network, self.student), headless=typed(plain.network, self.teacher))


CASES = {
    "float64": Types(DOUBLE, DOUBLE),
    "bfloat16": Types(HALF, HALF),
    "bfloat16 student": Types(HALF, SINGLE),
    "bfloat16 teacher": Types(SINGLE, HALF),
    "float64 student": Types(DOUBLE, SINGLE),
    "float64 teacher": Types(SINGLE, DOUBLE),
    "float64 by default": Types(SINGLE, SINGLE, default=DOUBLE),
}


@pytest.fixture(params=CASES)
def types(request):
    types = CASES[request.param]
    torch.set_default_dtype(types.default)
    yield types
    torch.set_default_dtype(SINGLE)


def steps_of(method, batch):
    """Take a step, and yield each of its losses before the networks change."""
    specs = method.train().optimizers()
    optimizers = {name: TRAINING.build_optimizer(spec) for name, spec in specs.items()}
    for update in method.step(batch, Progress(total_steps=2)):
        yield from update.losses.items()
        torch.autograd.backward(
            method.total(update, Progress(total_steps=2)), inputs=list(specs[update.optimizer].params)
        )
        optimizers[update.optimizer].step()


def trained(method):
    return [parameter for spec in method.optimizers().values() for parameter in spec.params]


def of_another_type(method, allowed):
    """Return the names of parameters and buffers of a type that is not allowed."""
    numbers = [*method.named_parameters(), *method.named_buffers()]
    return [name for name, value in numbers if value.is_floating_point() and value.dtype not in allowed]


@pytest.mark.parametrize("name", catalogue.names())
def test_a_step(name, types):
    entry = catalogue.get(name)
    batch = home(entry).batch()
    for stage, method in fresh_methods(entry, types.kind(entry)).items():
        wrong = of_another_type(method, {*types.networks, *map(wide_type, types.networks)})
        assert not wrong, f"{stage}: {wrong} are of neither network's type"
        # One network is trained in a stage. Its adapters are of its type, or of that in which losses are computed.
        kinds = {wide_type(parameter.dtype) for parameter in trained(method)}
        assert len(kinds) <= 1, f"{stage}: what is trained is of {kinds}"
        before = [parameter.detach().clone() for parameter in trained(method)]
        for loss_name, loss in steps_of(method, batch):
            assert torch.isfinite(loss), f"{stage}: {loss_name} is {loss.item()}"
            assert loss.dtype in types.losses, f"{stage}: {loss_name} is {loss.dtype}"
        after = trained(method)
        assert all(torch.isfinite(parameter).all() for parameter in after), f"{stage}: the step leaves no numbers"
        assert not before or any(not torch.equal(*pair) for pair in zip(before, after, strict=True)), stage


@pytest.mark.parametrize("default", [SINGLE, DOUBLE])
@pytest.mark.parametrize(("student", "wanted"), [(HALF, SINGLE), (SINGLE, SINGLE), (DOUBLE, DOUBLE)])
def test_the_virtual_teacher_answers_in_the_type_of_the_students_losses(student, wanted, default):
    torch.set_default_dtype(default)
    try:
        method = TfKDReg(TypedNetwork(6, student), CLASSES, confidence=0.9)
        answer = method.teacher(toy_batch()).logits
    finally:
        torch.set_default_dtype(SINGLE)
    assert answer.dtype == wanted
    # A float32 number in a float64 tensor would be 1e-8 away.
    assert answer.max().item() == pytest.approx(math.log(0.9), rel=1e-15 if wanted == DOUBLE else 1e-7)


def test_the_teacher_that_knows_nothing_widens_no_loss_under_another_default(types):
    assert UniformTeacher(CLASSES)(toy_batch()).logits.dtype == SINGLE


def test_the_initial_variance_is_exact_in_the_students_type():
    teacher = FrozenTeacher(TypedNetwork(10, DOUBLE))
    method = VID(TypedNetwork(6, DOUBLE), teacher, toy_batch().inputs, initial_variance=3.7)
    for guess in method.guesses:
        assert guess.variance.tolist() == pytest.approx([3.7] * len(guess.variance), rel=1e-14)


@pytest.mark.parametrize(("ours", "theirs"), [(SINGLE, DOUBLE), (DOUBLE, SINGLE)])
def test_matrices_of_two_types_are_compared_in_the_wider_one(ours, theirs):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.rand(5, 4, generator=generator, dtype=SINGLE).to(kind) for kind in (ours, theirs))
    expected = gram_loss(student.double(), teacher.double())
    found = gram_loss(student.requires_grad_(), teacher)
    assert found.dtype == DOUBLE
    assert found.item() == pytest.approx(expected.item(), rel=1e-14)
    found.backward()
    assert student.grad is not None
    assert student.grad.dtype == ours


@pytest.mark.parametrize(("maps", "words"), [(SINGLE, DOUBLE), (DOUBLE, SINGLE)])
def test_maps_and_words_of_two_types_are_compared_in_the_wider_one(maps, words):
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(2, 3, 4, 4, generator=generator, dtype=SINGLE)
    codebook = torch.randn(5, 3, generator=generator, dtype=SINGLE)
    found = word_logits(places.to(maps), codebook.to(words))
    assert found.dtype == DOUBLE
    # The mean of the words is taken in the words' own type.
    torch.testing.assert_close(found, word_logits(places.double(), codebook.double()), rtol=1e-5, atol=1e-5)
