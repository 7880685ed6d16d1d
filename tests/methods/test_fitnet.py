import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.core.registry import Entry
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice
from tutelage.methods.fitnet import FitNet, FitNetDistillation, FitNetHints, fitnet, hint_loss
from tutelage.models import CATALOGUE
from tutelage.system.console import Silent
from tutelage.testing.conformance import CHECKS
from tutelage.testing.toys import TRAINING, ToyNetwork, toy_data, toy_experiment, toy_transformer
from tutelage.training.dry_run import DryRun
from tutelage.training.run import Run


def cnn(width=4):
    return CATALOGUE["tiny_cnn"](5, width=width)


def images(*size):
    return Batch(inputs=torch.randn(4, 3, *size), targets=torch.tensor([0, 1, 2, 3]))


def total(method, batch):
    return method.total(Update(method.train().losses(batch)), Progress())


# The loss.


def test_hint_loss_of_the_sheet(double):
    found = hint_loss(torch.tensor([[1.0, 2], [3, 4]])[None, None], torch.tensor([[1.0, 0], [0, 4]])[None, None])
    assert found.item() == 3.25


def test_hint_loss_against_loops(double):
    one, other = torch.randn(3, 2, 4, 5, requires_grad=True), torch.randn(3, 2, 4, 5)
    loss = hint_loss(one, other)
    (gradient,) = torch.autograd.grad(loss, one)
    places = list(itertools.product(range(3), range(2), range(4), range(5)))
    expected = math.fsum((one[at].item() - other[at].item()) ** 2 for at in places) / len(places)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    for at in places:
        assert gradient[at].item() == pytest.approx(2 * (one[at] - other[at]).item() / len(places), rel=1e-12)


def test_hint_loss_is_zero_where_the_hint_is_met():
    maps = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = hint_loss(maps, maps.detach())
    loss.backward()
    assert loss.item() == 0
    assert not maps.grad.any()


def test_no_gradient_flows_into_the_teacher():
    teacher = torch.randn(2, 3, 4, 5, requires_grad=True)
    hint_loss(torch.randn(2, 3, 4, 5, requires_grad=True), teacher).backward()
    assert teacher.grad is None


def test_half_precision_is_computed_in_float32():
    one, other = torch.full((2, 3, 4, 4), 6e4).half(), torch.full((2, 3, 4, 4), -6e4).half()
    assert hint_loss(one, other).item() == pytest.approx(1.44e10, rel=1e-3)


def test_other_shapes_are_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match=r"shape \(2, 1, 4, 4\), and the teacher's \(2, 3, 4, 4\)"):
        hint_loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4))


# One stage.


def test_one_stage_weighs_the_hint_by_100(double):
    batch = images(12, 16)
    method = FitNet(ToyNetwork().double(), FrozenTeacher(ToyNetwork(10).double()), batch.inputs)
    losses = method.train().losses(batch)
    student, teacher = method.student(batch.inputs), method.teacher(batch)
    (found,) = method.pairs
    guided, hint = found.maps(student, teacher)
    squares = (method.hint.regressors[0](guided, hint.shape[2:]) - hint).square().flatten().tolist()
    assert losses["hint"].item() == pytest.approx(math.fsum(squares) / len(squares), rel=1e-12)
    label = F.cross_entropy(student.logits, batch.targets)
    expected = label.item() + 100 * math.fsum(squares) / len(squares)
    assert method.total(Update(losses), Progress()).item() == pytest.approx(expected, rel=1e-12)


def test_the_hint_is_the_middle_stage():
    teacher = FrozenTeacher(CATALOGUE["resnet32"](5))
    (found,) = FitNet(CATALOGUE["resnet8"](5), teacher, torch.randn(2, 3, 32, 32)).pairs
    assert str(found) == "layer2 (32x16x16) : layer2 (32x16x16)"


def test_the_hint_reaches_the_student_up_to_the_hint_and_the_regressor_only():
    batch = images(33, 50)
    method = FitNet(cnn(), FrozenTeacher(cnn(6)), batch.inputs).train()
    method.losses(batch)["hint"].backward()
    reached = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    below = ("student.model.stem", "student.model.layer1", "student.model.layer2", "hint.")
    assert reached == {name for name, _ in method.named_parameters() if name.startswith(below)}


@pytest.mark.parametrize("size", [(33, 50), (17, 32), (32, 48)])
@pytest.mark.parametrize("student", ["tiny_cnn", "vgg8", "wrn_16_1"])
def test_any_image_size(student, size):
    batch = images(*size)
    method = FitNet(CATALOGUE[student](5), FrozenTeacher(cnn(6)), batch.inputs)
    loss = total(method, batch)
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize(("student", "teacher"), [(cnn, toy_transformer), (toy_transformer, cnn)])
@pytest.mark.parametrize("variant", [FitNet, FitNetHints])
def test_convolutions_and_transformers_teach_each_other(student, teacher, variant):
    batch = images(32, 32)
    method = variant(student(), FrozenTeacher(teacher()), batch.inputs)
    loss = total(method, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_several_pairs_by_name_add_up():
    batch, teacher = images(32, 32), cnn(6)
    method = FitNet(cnn(), FrozenTeacher(teacher), batch.inputs, layers="layer1+layer2:layer3").eval()
    student, answer = method.student(batch.inputs), method.teacher(batch)
    terms = [
        hint_loss(r(p.student.map(student), p.teacher.size), p.teacher.map(answer))
        for p, r in zip(method.pairs, method.hint.regressors)
    ]
    assert len(terms) == 2
    assert method.losses(batch)["hint"].item() == pytest.approx(sum(terms).item(), rel=1e-6)


def test_zero_maps_are_finite():
    batch = images(12, 16)
    student, teacher = ToyNetwork(), ToyNetwork(10)
    for network in (student, teacher):
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
    method = FitNet(student, FrozenTeacher(teacher), batch.inputs)
    total(method, batch).backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


# Two stages.


class Noting(DryRun):
    """Notes every stage with its options, and trains nothing."""

    def __init__(self, training=TRAINING):
        super().__init__(training)
        self.stages = {}

    def fit(self, name, method, data, **options):
        self.stages[name] = (method, options)
        return super().fit(name, method, data, **options)


def recipe(run, **options):
    return toy_experiment().execute(Choice(catalogue.get("fitnet"), options), run)


def test_one_stage_by_default():
    run = Noting()
    recipe(run, weight=7.0, final_relu=True)
    ((method, options),) = run.stages.values()
    assert list(run.stages) == ["distill"]
    assert isinstance(method, FitNet)
    assert method.weights == {"ce": 1.0, "hint": 7.0}
    assert isinstance(method.hint.regressors[0].activation, nn.ReLU)
    assert options == {}


def test_the_paper_has_two_stages_of_which_the_first_keeps_its_last_weights():
    run = Noting(replace(TRAINING, epochs=30))
    network = recipe(run, variant="paper", hint_share=0.25)
    (hints, options), (distill, others) = run.stages.values()
    assert list(run.stages) == ["hints", "distill"]
    assert options == {"epochs": 8, "keep": "last"}
    assert others == {}
    assert isinstance(hints, FitNetHints)
    assert isinstance(distill, FitNetDistillation)
    assert hints.weights == {"hint": 0.5}
    assert set(hints.student.waiting) == {n for n, _ in network.named_parameters() if not n.startswith("layer1")}
    # What waited is trained in the second stage, and the regressor is gone.
    assert all(p.requires_grad for p in distill.student.parameters())
    assert not any("hint" in name for name, _ in distill.named_parameters())


def test_one_epoch_of_hints_at_least():
    run = Noting()
    recipe(run, variant="paper", hint_share=0.001)
    assert run.stages["hints"][1]["epochs"] == 1


def test_the_soft_term_fades_from_four_to_one(double, slow, parrot, measure, echo):
    logits, teacher = torch.tensor([[1.0, 2, 3], [0, 0, 0]]), torch.tensor([[3.0, 2, 1], [2, 0, -1]])
    method = FitNetDistillation(echo, parrot(teacher))
    found = measure(method, logits, torch.tensor([2, 0]))
    soft = slow.soft_loss(logits.tolist(), teacher.tolist(), 3.0)
    assert found.losses["kd"] == pytest.approx(soft, rel=1e-12)
    assert found.total == pytest.approx(slow.label_loss(logits.tolist(), [2, 0]) + 4 * soft, rel=1e-12)
    closed = logits.softmax(1) - F.one_hot(torch.tensor([2, 0]), 3)
    closed = closed + 4 / 3 * ((logits / 3).softmax(1) - (teacher / 3).softmax(1))
    assert torch.allclose(found.gradient, closed / 2, rtol=1e-12, atol=1e-15)
    weights = [method.weight("kd", Progress(step=step, total_steps=100)) for step in (0, 50, 100)]
    assert weights == pytest.approx([4, 2.5, 1])
    squared = measure(FitNetDistillation(echo, parrot(teacher), t_squared=True), logits, torch.tensor([2, 0]))
    assert squared.losses["kd"] == pytest.approx(9 * soft, rel=1e-12)


def test_what_is_above_the_hint_begins_the_second_stage_as_it_was_made(tmp_path):
    experiment = toy_experiment()
    before = experiment.students[0].build(0, "student").state_dict()
    run = Run(tmp_path, TRAINING)
    stage = FitNetHints(experiment.students[0].build(0, "student"), experiment.answers, torch.randn(2, 3, 12, 16))
    after = run.fit("hints", stage, toy_data(), keep="last").state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert {"layer1.0.weight", "layer1.1.weight", "layer1.1.running_mean"} < moved
    assert all(key.startswith("layer1.") for key in moved)


class Stopping(Silent):
    """Notes the stages that are trained, and stops at one."""

    def __init__(self, at=None):
        self.begun, self.at = [], at

    def begin(self, title, *, total, done):
        self.begun.append(title)
        if title == self.at:
            raise KeyboardInterrupt


def test_a_stage_that_is_done_is_not_repeated(tmp_path):
    first = Stopping(at="distill")
    with pytest.raises(KeyboardInterrupt):
        recipe(Run(tmp_path / "stopped", TRAINING, reporter=first), variant="paper")
    second = Stopping()
    resumed = recipe(Run(tmp_path / "stopped", TRAINING, reporter=second), variant="paper")
    assert (first.begun, second.begun) == (["hints", "distill"], ["distill"])
    straight = recipe(Run(tmp_path / "straight", TRAINING), variant="paper")
    assert all(torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), straight.state_dict().values()))
    third = Stopping()
    recipe(Run(tmp_path / "stopped", TRAINING, reporter=third), variant="paper")
    assert third.begun == []


def test_another_fading_is_another_piece_of_work(tmp_path):
    recipe(Run(tmp_path, TRAINING), variant="paper")
    with pytest.raises(UserError, match="'end': 2.0"):
        recipe(Run(tmp_path, TRAINING), variant="paper", kd_end=2.0)


def fitnet_paper(run, student, teacher, data, example):
    return fitnet(run, student, teacher, data, example, variant="paper")


@pytest.mark.parametrize("check", sorted(CHECKS.keys() - {"is-documented", "parts-of-a-batch-add-up"}))
def test_the_papers_stages_meet_the_conformance_suite(check):
    CHECKS[check](Entry(name="of:the-paper", build=fitnet_paper, papers=()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "paper", "hint_share": 0.0}, "hint_share=0.0 must be above zero"),
        ({"variant": "paper", "temperature": 0.0}, "temperature=0.0 must be above zero"),
        ({"layers": "layer7"}, "layer7"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        recipe(Noting(), **options)


@pytest.mark.parametrize("variant", [FitNet, FitNetHints])
def test_sequences_of_any_length(variant):
    class Words(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.words, self.mix, self.head = nn.Embedding(9, width), nn.Linear(width, width), nn.Linear(width, 5)

        def forward(self, ids):
            return self.head(self.mix(self.words(ids)).mean(1))

    example = {"ids": torch.randint(9, (2, 10))}
    method = variant(Words(4), FrozenTeacher(Words(6)), example, layers="mix")
    for length in (7, 10, 13):
        batch = Batch(inputs={"ids": torch.randint(9, (4, length))}, targets=torch.tensor([0, 1, 2, 3]))
        assert total(method, batch).isfinite()
