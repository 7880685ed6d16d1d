import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.core.registry import Entry
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice
from tutelage.methods.fsp import FSPInitialization, fsp, fsp_loss, fsp_matrix
from tutelage.methods.supervised import Supervised
from tutelage.models import CATALOGUE
from tutelage.system.console import Silent
from tutelage.testing.conformance import CHECKS
from tutelage.testing.toys import STUDENT_WIDTH, TRAINING, ToyNetwork, toy_data, toy_experiment, toy_transformer
from tutelage.training.dry_run import DryRun
from tutelage.training.run import Run

VARIANTS = pytest.mark.parametrize("variant", ["paper", "code"])


def bins(length, parts):
    """Where adaptive pooling looks: part i of `parts` covers these places."""
    return [range(i * length // parts, -(-(i + 1) * length // parts)) for i in range(parts)]


def slow_pool(maps, size, variant):
    """A map of one channel at a size, as lists."""
    rows = []
    for ys in bins(maps.shape[0], size[0]):
        row = []
        for xs in bins(maps.shape[1], size[1]):
            values = [maps[y, x] for y in ys for x in xs]
            row.append(max(values, key=torch.Tensor.item) if variant == "paper" else sum(values) / len(values))
        rows.append(row)
    return rows


def slow_matrix(first, second, variant):
    """The FSP matrix of one sample, one product at a time."""
    size = (min(first.shape[1], second.shape[1]), min(first.shape[2], second.shape[2]))
    one, two = ([slow_pool(channel, size, variant) for channel in maps] for maps in (first, second))
    places = list(itertools.product(range(size[0]), range(size[1])))
    return [[sum(f[y][x] * g[y][x] for y, x in places) / len(places) for g in two] for f in one]


def slow_loss(sections, variant):
    """The loss over all sections: each has the maps (first, second) of the student and of the teacher."""
    total = 0.0
    for (s1, s2), (t1, t2) in sections:
        for b in range(len(s1)):
            ours, theirs = slow_matrix(s1[b], s2[b], variant), slow_matrix(t1[b], t2[b], variant)
            squares = [(g - h) ** 2 for row, other in zip(theirs, ours) for g, h in zip(row, other)]
            total = total + sum(squares) / len(s1) / (len(squares) if variant == "code" else 1)
    return total


# The matrix and the loss.


def test_known_answers_of_the_sheet(double):
    first = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, :, None]
    ours, theirs = (fsp_matrix(first, torch.tensor(row)[None, None, None]) for row in ([1.0, 1.0], [0.0, 2.0]))
    assert ours.tolist() == [[[1.5], [3.5]]]
    assert theirs.tolist() == [[[2.0], [4.0]]]
    assert fsp_loss(ours, theirs).item() == 0.25
    assert fsp_loss(ours, theirs, variant="paper").item() == 0.5


@VARIANTS
@pytest.mark.parametrize("second", [(4, 6), (2, 3), (3, 4), (7, 2)])
def test_value_and_gradient_against_loops(variant, second, double):
    torch.manual_seed(0)
    s1, s2 = torch.randn(2, 3, 4, 6, requires_grad=True), torch.randn(2, 2, *second, requires_grad=True)
    t1, t2 = torch.randn(2, 3, 5, 5), torch.randn(2, 2, 5, 3)
    found = fsp_loss(fsp_matrix(s1, s2, variant=variant), fsp_matrix(t1, t2, variant=variant), variant=variant)
    expected = slow_loss([((s1, s2), (t1, t2))], variant)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for gradient, slow in zip(torch.autograd.grad(found, (s1, s2)), torch.autograd.grad(expected, (s1, s2))):
        torch.testing.assert_close(gradient, slow, rtol=1e-10, atol=1e-14)


@VARIANTS
def test_the_flow_of_a_network_is_summed_over_its_sections(variant, double):
    batch = Batch(inputs=torch.randn(2, 3, 5, 6), targets=torch.tensor([0, 1]))
    method = FSPInitialization(ToyNetwork(2), FrozenTeacher(ToyNetwork(2)), batch.inputs, variant=variant).train()
    (loss,) = method.losses(batch).values()
    maps = []
    for network in (method.student.model, method.teacher.network):
        middle = network.layer1(batch.inputs)
        maps.append([(batch.inputs, middle), (middle, network.layer2(middle))])
    assert loss.item() == pytest.approx(slow_loss(list(zip(*maps)), variant).item(), rel=1e-10)


@VARIANTS
def test_places_may_change_together(variant, double):
    first, second, places = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5), torch.randperm(20)
    moved = (maps.flatten(2)[:, :, places].view_as(maps) for maps in (first, second))
    assert torch.allclose(fsp_matrix(*moved, variant=variant), fsp_matrix(first, second, variant=variant))


def test_factors_come_out(double):
    first, second = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 2, 2)
    assert torch.allclose(fsp_matrix(3 * first, -2 * second), -6 * fsp_matrix(first, second))


@VARIANTS
def test_a_constant_map_may_have_any_resolution(variant, double):
    first, second = torch.full((2, 3, 8, 12), 1.5), torch.randn(2, 4, 4, 6)
    fine, coarse = (fsp_matrix(maps, second, variant=variant) for maps in (first, first[:, :, ::2, ::2]))
    assert torch.equal(fine, coarse)


def test_paper_and_code_pool_differently():
    first, second = torch.tensor([[[[0.0, 4.0]]]]), torch.ones(1, 1, 1, 1)
    assert fsp_matrix(first, second, variant="paper").item() == 4
    assert fsp_matrix(first, second, variant="code").item() == 2


@VARIANTS
def test_zero_maps_and_equal_networks_are_at_the_minimum(variant):
    zero = torch.zeros(2, 3, 4, 5, requires_grad=True)
    matrix = fsp_matrix(zero, zero, variant=variant)
    loss = fsp_loss(matrix, matrix.detach(), variant=variant)
    loss.backward()
    assert loss.item() == 0
    assert not zero.grad.any()


def test_half_precision_multiplies_in_float32():
    maps = torch.full((1, 2, 3, 4), 3e4).half()
    with torch.autocast("cpu", torch.bfloat16):
        found = fsp_matrix(maps, maps)
    assert found.dtype == torch.float32
    assert torch.equal(found, fsp_matrix(maps.float(), maps.float()))


def test_no_gradient_flows_into_the_teacher():
    teacher = torch.randn(2, 3, 4, requires_grad=True)
    fsp_loss(torch.randn(2, 3, 4, requires_grad=True), teacher).backward()
    assert teacher.grad is None


def test_matrices_of_other_channels_are_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 1, 4\) and \(2, 3, 4\)"):
        fsp_loss(torch.zeros(2, 1, 4), torch.zeros(2, 3, 4))


# The sections of networks.


def sections(student, teacher, *size, **options):
    method = FSPInitialization(student, FrozenTeacher(teacher), torch.randn(2, 3, *size), **options)
    return [(section.first.student.layer, section.second.student.layer) for section in method.sections]


def test_the_sections_are_the_stages_from_input_to_output():
    expected = [("layer1:in", "layer1"), ("layer2:in", "layer2"), ("layer3:in", "layer3")]
    assert sections(CATALOGUE["resnet8"](5), CATALOGUE["resnet20"](5), 32, 32) == expected


def test_sections_by_name():
    found = sections(CATALOGUE["resnet8"](5), CATALOGUE["resnet20"](5), 32, 32, layers="layer2+layer3.0")
    assert found == [("layer2:in", "layer2"), ("layer3.0:in", "layer3.0")]


def test_the_input_of_a_stage_is_what_the_stage_before_gave():
    inputs = torch.randn(2, 3, 32, 32)
    method = FSPInitialization(CATALOGUE["resnet8"](5), FrozenTeacher(CATALOGUE["resnet14"](5)), inputs)
    network = method.student.model.eval()
    stem = network.stem(inputs)
    features = method.student(inputs).features
    assert torch.equal(features["layer1:in"], stem)
    assert torch.equal(features["layer2:in"], network.layer1(stem))


def test_unequal_channels_are_refused_with_names_and_a_way_out():
    with pytest.raises(UserError) as raised:
        sections(CATALOGUE["wrn_16_1"](5), CATALOGUE["wrn_16_2"](5), 32, 32)
    for words in ("layer1 of the student has 16", "layer1 of the teacher 32", "resnet20 and resnet110", "fitnet"):
        assert words in str(raised.value)


@pytest.mark.parametrize("size", [(33, 50), (17, 32)])
@pytest.mark.parametrize(
    ("student", "teacher"), [("tiny_cnn", "tiny_cnn"), ("vgg8", "vgg11"), ("wrn_16_1", "wrn_16_1")]
)
@VARIANTS
def test_any_image_size(student, teacher, size, variant):
    batch = Batch(inputs=torch.randn(2, 3, *size), targets=torch.tensor([0, 1]))
    teacher = FrozenTeacher(CATALOGUE[teacher](5))
    method = FSPInitialization(CATALOGUE[student](5), teacher, batch.inputs, variant=variant).train()
    loss = method.losses(batch)["fsp"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.optimizers()["student"].params)


def test_a_transformer_and_a_convolution_of_one_width():
    inputs = torch.randn(2, 3, 32, 32)
    stage = nn.Sequential(nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU())
    network = nn.Sequential(nn.Conv2d(3, 24, 1), stage, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))
    batch = Batch(inputs=inputs, targets=torch.tensor([0, 1]))
    for student, teacher, layers in (
        (network, toy_transformer(), "1:blocks.1"),
        (toy_transformer(), network, "blocks.1:1"),
    ):
        method = FSPInitialization(student, FrozenTeacher(teacher), inputs, layers=layers)
        loss = method.losses(batch)["fsp"]
        loss.backward()
        assert loss.isfinite()
        teacher.requires_grad_(True)


def test_two_transformers():
    expected = [(f"blocks.{n}:in", f"blocks.{n}") for n in range(4)]
    assert sections(toy_transformer(), toy_transformer(), 32, 32) == expected


# The recipe.


def recipe(run, **options):
    experiment = toy_experiment(teacher_width=STUDENT_WIDTH)
    return experiment.execute(Choice(catalogue.get("fsp"), options), run)


class Noting(DryRun):
    """Notes every stage with its options, and trains nothing."""

    def __init__(self, training=TRAINING):
        super().__init__(training)
        self.stages = {}

    def fit(self, name, method, data, **options):
        self.stages[name] = (method, options)
        return super().fit(name, method, data, **options)


def test_an_initialisation_and_then_the_labels_alone():
    run = Noting(replace(TRAINING, epochs=240))
    recipe(run)
    (initialise, options), (distill, others) = run.stages.values()
    assert list(run.stages) == ["initialise", "distill"]
    assert options == {"epochs": 30, "keep": "last", "schedule": "constant"}
    assert others == {}
    assert isinstance(initialise, FSPInitialization)
    assert isinstance(distill, Supervised)
    assert initialise.weights == {}
    assert initialise.student.waiting == ("classifier.weight", "classifier.bias")
    assert all(p.requires_grad for p in distill.student.parameters())


def test_the_papers_first_stage_takes_the_runs_course_at_its_own_learning_rate():
    run = Noting(replace(TRAINING, epochs=3))
    recipe(run, variant="paper", init_share=0.01, init_lr_scale=0.01)
    method, options = run.stages["initialise"]
    assert options == {"epochs": 1, "keep": "last", "schedule": None}
    assert method.variant == "paper"
    (spec,) = method.optimizers().values()
    assert spec.lr_scale == 0.01


def test_no_first_stage_is_refused():
    with pytest.raises(UserError, match=r"init_share=0.0 must be above zero"):
        recipe(Noting(), init_share=0.0)


def test_the_labels_are_not_looked_at_in_the_first_stage():
    batch = Batch(inputs=torch.randn(2, 3, 12, 16), targets=None)
    method = FSPInitialization(ToyNetwork(), FrozenTeacher(ToyNetwork()), batch.inputs)
    assert method.total(Update(method.losses(batch)), Progress()).isfinite()


def test_what_is_above_the_sections_begins_the_second_stage_as_it_was_made(tmp_path):
    student, teacher = CATALOGUE["wrn_16_1"](6), CATALOGUE["wrn_16_1"](6)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    method = FSPInitialization(student, FrozenTeacher(teacher), torch.randn(2, 3, 12, 16))
    after = Run(tmp_path, replace(TRAINING, epochs=1)).fit("initialise", method, toy_data(), keep="last").state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    # The final normalisation and the classifier lie above the last section, their statistics too.
    assert moved == {key for key in before if key.startswith(("stem", "layer"))}


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
        recipe(Run(tmp_path / "stopped", TRAINING, reporter=first))
    second = Stopping()
    resumed = recipe(Run(tmp_path / "stopped", TRAINING, reporter=second))
    assert (first.begun, second.begun) == (["initialise", "distill"], ["distill"])
    straight = recipe(Run(tmp_path / "straight", TRAINING))
    assert all(torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), straight.state_dict().values()))


def test_the_learning_rate_of_the_first_stage_is_constant(tmp_path):
    run = Run(tmp_path, replace(TRAINING, epochs=4))
    recipe(run, init_share=1.0)
    initialise, distill = (fitted.history["lr"] for fitted in run.fitted)
    assert initialise == [TRAINING.lr] * 4
    assert distill[-1] < TRAINING.lr / 4


def fsp_paper(run, student, teacher, data, example):
    return fsp(run, student, teacher, data, example, variant="paper")


@pytest.mark.parametrize("check", sorted(CHECKS.keys() - {"is-documented"}))
def test_the_papers_variant_meets_the_conformance_suite(check):
    CHECKS[check](Entry(name="of:the-paper", build=fsp_paper, papers=()))
