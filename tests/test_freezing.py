import copy
from dataclasses import replace
from types import MethodType

import pytest
import torch
from torch import nn

from tutelage import registry
from tutelage.batch import Batch
from tutelage.driver import Driver
from tutelage.features import FeatureExtractor
from tutelage.freezing import Compiled, _apart, batch_size, can_freeze
from tutelage.teachers import FrozenTeacher
from tutelage.toys import TRAINING, toy_data
from tutelage.trials import fresh_methods

IMAGES = (4, 3, 8, 8)


class Small(nn.Module):
    """A convolution, a batch norm, a ReLU in place, a classifier: all that there is to fold."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(8, 5)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, inputs):
        return self.head(self.relu(self.norm(self.conv(inputs))).mean((2, 3)))


def still(network):
    return network.eval().requires_grad_(False)


class Counting:
    """Stands in for a compiler: counts what was asked of it, and runs things as they are."""

    def __init__(self, monkeypatch):
        self.compiled, self.freezing = 0, []
        monkeypatch.setattr(torch, "compile", self.compile)

    def compile(self, function):
        import torch._inductor.config as inductor

        def run(inputs):
            self.compiled += 1
            self.freezing.append(inductor.freezing)
            assert not inductor.freezing_discard_parameters
            return function(inputs)

        return run


# What may be constant.


def test_only_what_nobody_trains_is_constant():
    assert can_freeze(still(Small()))
    assert not can_freeze(Small().eval())
    assert not can_freeze(Small().requires_grad_(False).train())
    assert not can_freeze(still(nn.Sequential(nn.Linear(2, 2))))
    assert not can_freeze(still(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))))
    assert not can_freeze(still(Small()).to("meta"))


def test_a_teacher_answers_from_constants_and_its_tensors_stay(monkeypatch):
    compiler, images = Counting(monkeypatch), torch.randn(IMAGES)
    teacher = FrozenTeacher(Small(), ["norm"], example=images)
    before = copy.deepcopy(teacher.state_dict())
    expected = teacher(Batch(inputs=images))
    teacher.extractor.compile()
    found = teacher(Batch(inputs=images))
    assert compiler.freezing == [True]
    assert torch.equal(found.logits, expected.logits)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_student_is_compiled_with_nothing_constant(monkeypatch):
    compiler, images = Counting(monkeypatch), torch.randn(IMAGES)
    student = FeatureExtractor(Small())
    student.compile()
    student(images)
    assert compiler.freezing == [False]


# Which calls the compiled code answers.


def test_with_gradients_or_in_another_mode_the_network_answers_as_it_is(monkeypatch):
    compiler, images = Counting(monkeypatch), torch.randn(IMAGES)
    extractor = FeatureExtractor(still(Small()))
    extractor.eval().compile()
    asked = images.clone().requires_grad_()
    extractor(asked).logits.sum().backward()
    assert asked.grad is not None
    assert compiler.compiled == 0
    with torch.no_grad():
        extractor(images)
        assert compiler.compiled == 1
        extractor.train()
        extractor(images)
    assert compiler.compiled == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.head.bias.add_(1),
        lambda network: network.load_state_dict(Small().state_dict()),
        lambda network: network.norm.running_mean.zero_(),
        lambda network: setattr(network.head, "bias", nn.Parameter(torch.ones(5), requires_grad=False)),
        lambda network: network.double().float(),
    ],
)
def test_weights_that_change_are_never_answered_from_the_old_ones(monkeypatch, change):
    compiler, images = Counting(monkeypatch), torch.randn(IMAGES)
    extractor = FeatureExtractor(still(Small())).eval()
    extractor.compile()
    with torch.no_grad():
        extractor(images)
        extractor(images)
        assert compiler.compiled == 2
        change(extractor.model)
        assert torch.equal(extractor(images).logits, extractor.model(images))
        assert compiler.compiled == 2
        extractor.compile()
        extractor(images)
    assert compiler.compiled == 3


def test_it_may_be_moved_between_compiling_and_the_first_answer(monkeypatch):
    compiler = Counting(monkeypatch)
    extractor = FeatureExtractor(still(Small())).eval()
    extractor.compile()
    extractor.to(memory_format=torch.channels_last).to(torch.float64)
    with torch.no_grad():
        extractor(torch.randn(IMAGES, dtype=torch.float64))
    assert compiler.compiled == 1


@pytest.mark.parametrize("trained", [True, False])
def test_the_last_batch_of_an_epoch_is_not_compiled_for(monkeypatch, trained):
    compiler, student = Counting(monkeypatch), FeatureExtractor(Small() if trained else still(Small()))
    student.train(trained).compile()
    with torch.no_grad():
        for _ in range(3):
            for size in (4, 4, 4, 4, 4, 3):
                student(torch.randn(size, 3, 8, 8))
    assert compiler.compiled == 15


def test_sizes_that_take_turns_are_compiled(monkeypatch):
    compiler, student = Counting(monkeypatch), FeatureExtractor(Small())
    student.compile()
    for _ in range(4):
        for size in (4, 2):
            student(torch.randn(size, 3, 8, 8))
    assert compiler.compiled == 8


def test_the_size_of_a_batch():
    assert batch_size(torch.zeros(3, 2)) == 3
    assert batch_size({"mask": None, "ids": torch.zeros(4, 2)}) == 4
    assert batch_size(["text"]) == 0


# The compiler itself.


def test_each_has_code_of_its_own():
    class Thing:
        def run(self, inputs):
            return self, inputs

    thing = Thing()
    one, other = _apart(thing.run), _apart(thing.run)
    assert isinstance(one, MethodType)
    assert one(3) == (thing, 3)
    assert one.__func__.__code__ is not other.__func__.__code__


def test_a_copy_is_not_compiled(monkeypatch):
    compiler = Counting(monkeypatch)
    extractor = FeatureExtractor(still(Small())).eval()
    extractor.compile()
    with torch.no_grad():
        copy.deepcopy(extractor)(torch.randn(IMAGES))
    assert compiler.compiled == 0
    assert isinstance(extractor._compiled, Compiled)


@pytest.mark.filterwarnings("ignore")  # What a compiler warns of is its own affair.
def test_compiled_constants_answer_as_the_network_does_each_its_own():
    images = torch.randn(IMAGES)
    for seed in range(2):
        torch.manual_seed(seed)
        teacher = FrozenTeacher(Small(), ["norm", "relu", "conv:in"], example=images)
        before, expected = copy.deepcopy(teacher.state_dict()), teacher(Batch(inputs=images))
        teacher.extractor.compile()
        found = teacher(Batch(inputs=images))
        assert torch.allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
        for name, feature in expected.features.items():
            assert torch.allclose(found.features[name], feature, rtol=1e-5, atol=1e-5), name
        assert (found.features["norm"] < 0).any()
        with torch.autocast("cpu", torch.bfloat16):
            rounded, wanted = teacher(Batch(inputs=images)).logits, teacher(Batch(inputs=images[:3])).logits
        assert torch.allclose(rounded[:3].float(), wanted.float(), rtol=0.05, atol=0.05)
        assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
        student = nn.functional.linear(found.features["relu"].mean((2, 3)), teacher.network.head.weight.clone())
        assert not student.requires_grad


# One that uses the teacher's classifier beside its compiled network; compiling all of them takes half an hour.
IN_EVERY_RUN = ("srrl",)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.slow) for name in registry.names()],
)
def test_a_method_loses_the_same_compiled(name):
    entry = registry.get(name)
    for stage in fresh_methods(entry):
        histories = []
        for switch in ("off", "on"):
            torch.compiler.reset()
            method, training = fresh_methods(entry)[stage], replace(TRAINING, epochs=1, compile=switch)
            histories.append(Driver(training).fit(method, toy_data()).history)
            compiled = [one._compiled for one in method.modules() if isinstance(one, FeatureExtractor)]
            assert all((one is not None) == (switch == "on") for one in compiled)
        plain, fast = histories
        assert plain.keys() == fast.keys()
        for key, values in plain.items():
            assert fast[key] == pytest.approx(values, rel=2e-3, abs=1e-4), f"{stage}: {key}"
