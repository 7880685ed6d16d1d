import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher
from tutelage.errors import UserError
from tutelage.methods.internal import (
    InternalDistillation,
    InternalLayers,
    active_layers,
    attention_divergence,
    first_token,
    internal,
    state_distance,
)
from tutelage.methods.kd import KD
from tutelage.methods.parts.blocks import paired_blocks
from tutelage.system.console import Silent
from tutelage.testing.kinds import KINDS
from tutelage.testing.texts import TextBlock, ToyTextNetwork
from tutelage.testing.toys import TRAINING
from tutelage.testing.trials import KilledError
from tutelage.training.run import Run
from tutelage.training.state import Stop

TEXT = KINDS["text"]


def network(depth, seed=0):
    torch.manual_seed(seed)
    found = ToyTextNetwork(2)
    found.layers = nn.ModuleList(TextBlock(4) for _ in range(depth))
    return found


def trio(student=2, teacher=4):
    """Return a student, its teacher, and an example."""
    return network(student), FrozenTeacher(network(teacher, seed=1)), TEXT.data().example(2)


# The known answers of the equations.


def test_the_divergence_of_one_row():
    teacher, student = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]], dtype=torch.float64)
    rows = [one.log()[None, None, None] for one in (student, teacher)]
    assert math.isclose(attention_divergence(*rows), 0.0992727822, abs_tol=1e-10)
    assert math.isclose(attention_divergence(*rows[::-1]), 0.1166224525, abs_tol=1e-10)
    assert attention_divergence(rows[1], rows[1]) == 0


def test_the_distance_of_two_states():
    student, teacher = torch.tensor([[2.0, 1.0, 2.0]]).double(), torch.tensor([[1.0, 2.0, 2.0]]).double()
    assert math.isclose(state_distance(student, teacher), 0.1111111111, abs_tol=1e-10)
    assert math.isclose(state_distance(7 * student, 0.1 * teacher), 1 / 9, abs_tol=1e-12)
    assert abs(state_distance(teacher, 3 * teacher)) < 1e-12
    zeros = torch.zeros(1, 3, requires_grad=True)
    state_distance(zeros, teacher).backward()
    assert (zeros.grad == 0).all()


def test_the_layers_that_are_active_in_each_stage():
    assert active_layers("progressive", 3) == [(1,), (2,), (3,)]
    assert active_layers("stacked", 3) == [(1,), (1, 2), (1, 2, 3)]
    assert active_layers("all", 3) == []


# Against loops that follow the equations, one number at a time.

LENGTHS = (5, 2, 4)
MASK = (torch.arange(5) < torch.tensor(LENGTHS)[:, None])[:, None, None]


def scores(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 5, 5, generator=generator, dtype=torch.float64).requires_grad_()


def slow_divergence(ours, theirs, lengths):
    total = 0.0
    for text, length in enumerate(lengths):
        for head in range(ours.shape[1]):
            for i in range(length):
                p = [theirs[text, head, i, k].exp() for k in range(length)]
                q = [ours[text, head, i, k].exp() for k in range(length)]
                p, q = [one / sum(p) for one in p], [one / sum(q) for one in q]
                row = sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True))
                total = total + row / length / ours.shape[1] / len(lengths)
    return total


@pytest.mark.parametrize("padded", [True, False])
def test_attention_against_a_slow_loop(padded):
    ours, theirs = scores(1), scores(2)
    hidden = [one.masked_fill(~MASK, -torch.inf) if padded else one for one in (ours, theirs)]
    found = attention_divergence(*(one.log_softmax(3) for one in hidden), MASK if padded else None)
    expected = slow_divergence(ours, theirs.detach(), LENGTHS if padded else (5, 5, 5))
    torch.testing.assert_close(found, expected)
    one, other = (torch.autograd.grad(loss, ours)[0] for loss in (found, expected))
    torch.testing.assert_close(one, other)
    loss = attention_divergence(*(one.log_softmax(3) for one in (ours, theirs)))
    assert torch.autograd.grad(loss, theirs, allow_unused=True) == (None,)


def test_states_against_a_slow_loop():
    ours, theirs = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    expected = 0.0
    for one, other in zip(ours, theirs.detach(), strict=True):
        dot, a, b = sum(one * other), sum(one * one).sqrt(), sum(other * other).sqrt()
        expected = expected + (1 - dot / (a * b)) / 3
    found = state_distance(ours, theirs)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, ours)[0] for loss in (found, expected)))


def test_the_first_token_is_the_first_that_is_no_padding():
    maps = torch.arange(12.0).view(2, 2, 1, 3)
    assert first_token(maps, None).tolist() == [[0, 3], [6, 9]]
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()[:, None, None]
    assert first_token(maps, mask).tolist() == [[0, 3], [7, 10]]


def test_attention_that_underflows_still_teaches():
    ours = torch.tensor([[0.0, 200.0]], requires_grad=True)
    loss = attention_divergence(ours.log_softmax(1)[None, None], torch.tensor([[1.0, 0.0]]).log()[None, None])
    assert loss == 200
    assert torch.autograd.grad(loss, ours)[0].tolist() == [[-1.0, 1.0]]


# What is trained in each stage.


class Noted(Run):
    """A run that notes the stages, and trains nothing."""

    def __init__(self):
        self.stages, self.training = [], TRAINING

    def fit(self, name, method, data, **options):
        self.stages.append((name, method, options))
        return method.export()


def stages_of(**options):
    run = Noted()
    student, teacher, example = trio(**options.pop("depths", {}))
    internal(run, student, teacher, TEXT.data(), example, **options)
    return run.stages


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ("progressive", [("layer-1", [0]), ("layer-2", [1])]),
        ("stacked", [("layer-1", [0]), ("layer-2", [0, 1])]),
    ],
)
def test_the_classifier_comes_last_and_alone(stages, expected):
    found = stages_of(stages=stages, stage_epochs=3, stage_loss=0.5)
    assert [
        (name, [int(pair.student.layer[-1]) for pair in method.pairs]) for name, method, _ in found[:-1]
    ] == expected
    for _, method, options in found[:-1]:
        assert isinstance(method, InternalLayers)
        assert options == {"epochs": 3, "stop": Stop(at_loss=0.5), "keep": "last"}
    name, method, options = found[-1]
    assert (name, options) == ("classify", {})
    assert isinstance(method, KD)
    assert (method.temperature, method.weights) == (1.0, {"ce": 0.0, "kd": 1.0})
    # All of the student learns at the end, also what was frozen in the stages before.
    assert all(parameter.requires_grad for parameter in method.student.parameters())


def test_what_lies_above_a_stage_is_frozen_in_it():
    stages = {name: method for name, method, _ in stages_of()}
    layer = InternalLayers(*trio(), pairs=stages["layer-1"].pairs)
    trained = {name for name, parameter in layer.student.model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] + name.split(".")[1] for name in trained} == {"embeddingsweight", "layers0"}


def test_all_at_once_is_the_sum_of_everything():
    ((name, method, _),) = stages_of(stages="all", attention_weight=2.0, cosine_weight=0.5, alpha=0.25, temperature=3.0)
    assert (name, type(method)) == ("distill", InternalDistillation)
    assert method.weights == {"ce": 0.75, "kd": 0.25, "attention": 2.0, "cosine": 0.5}
    batch = TEXT.batch()
    losses = dict(method.losses(batch))
    assert torch.allclose(losses["ce"], F.cross_entropy(method.student(batch.inputs).logits, batch.targets))
    layers = [InternalLayers(*trio(), pairs=[pair]) for pair in method.pairs]
    for one in layers:
        # All start as the same blocks of the teacher.
        one.student.model.load_state_dict(method.student.model.state_dict())
    parts = [one.losses(batch) for one in layers]
    for key in ("attention", "cosine"):
        torch.testing.assert_close(losses[key], sum(part[key] for part in parts))
    (update,) = method.step(batch, Progress())
    weighted = sum(method.weights[key] * value for key, value in losses.items())
    torch.testing.assert_close(method.total(update, Progress()), weighted)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_its_layers():
    student = network(2)
    teacher, example = FrozenTeacher(network(2)), TEXT.data().example(2)
    pairs = paired_blocks(student, teacher, "auto", example)
    losses = InternalLayers(student, teacher, example, pairs=pairs).losses(TEXT.batch())
    assert losses["attention"].abs() < 1e-7
    assert losses["cosine"].abs() < 1e-6


def test_the_student_starts_as_its_teacher_unless_told_otherwise():
    _, method, _ = stages_of(stages="all")[0]
    teacher = network(4, seed=1)
    assert torch.equal(method.student.model.layers[0].query.weight, teacher.layers[1].query.weight)
    _, method, _ = stages_of(stages="all", start="own")[0]
    assert torch.equal(method.student.model.layers[0].query.weight, network(2).layers[0].query.weight)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention_weight": -1.0}, "must be zero or more"),
        ({"attention_weight": 0.0, "cosine_weight": 0.0}, "without both, choose kd"),
        ({"alpha": 2.0}, "alpha=2.0 must be between 0 and 1"),
        ({"temperature": 0.0}, "must be above zero"),
        ({"stage_epochs": 0}, "choose stages=all"),
        ({"stage_loss": -0.1}, "stage_loss=-0.1 must be zero or more"),
        ({"stage_loss": math.nan}, "must be zero or more"),
        ({"depths": {"student": 4, "teacher": 2}}, "4 blocks with attention and the teacher only 2"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        stages_of(**options)


class Killer(Silent):
    """Ends a run in the middle of its second stage, as kill -9 would."""

    def __init__(self, batches):
        self.left = batches

    def advance(self, steps):
        self.left -= 1
        if self.left < 0:
            raise KilledError


def test_a_run_killed_in_a_middle_stage_goes_on_to_the_same_weights(tmp_path):
    def run(folder, reporter=None):
        training = replace(TRAINING, epochs=1, checkpoint_seconds=0.0)
        student, teacher, example = trio()
        return internal(
            Run(folder, training, reporter=reporter), student, teacher, TEXT.data(), example, stages="stacked"
        )

    straight = run(tmp_path / "straight").state_dict()
    with pytest.raises(KilledError):
        # Four batches in each stage: in the middle of the second.
        run(tmp_path / "killed", Killer(5))
    assert (tmp_path / "killed" / "layer-2" / "checkpoint.pt").exists()
    resumed = run(tmp_path / "killed").state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_a_stage_ends_at_its_loss(tmp_path):
    student, teacher, example = trio()
    run = Run(tmp_path, replace(TRAINING, epochs=1))
    internal(run, student, teacher, TEXT.data(), example, stage_epochs=3, stage_loss=1e6, layers="layers.1:layers.3")
    assert [(fitted.name, fitted.epochs) for fitted in run.fitted] == [("layer-1", 1), ("classify", 1)]
