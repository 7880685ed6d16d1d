import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.registry import Entry
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice, parse_choice
from tutelage.methods.ksanc import KSANC, squared_distance
from tutelage.methods.parts.discriminator import fooling_loss, norms, telling_losses
from tutelage.methods.parts.squeezing import SQUEEZED, AttendedTeacher, Squeezing, TeacherAttention, squeezable
from tutelage.models.modes import keeping_statistics
from tutelage.system.console import Silent
from tutelage.testing.conformance import CHECKS
from tutelage.testing.toys import TRAINING, ToyNetwork, toy_batch, toy_data, toy_experiment
from tutelage.training.dry_run import DryRun
from tutelage.training.run import Run

WIDTHS = {"hidden": (8, 4)}


def build(student=None, teacher=None, *, attend="equation", **options):
    torch.manual_seed(0)
    networks = student or ToyNetwork(), FrozenTeacher(teacher or ToyNetwork(10))
    paired = squeezable(*networks, "auto", toy_data().example(2))
    attention = Squeezing.of_teacher(paired.pairs, attend=attend)
    return KSANC(paired, attention, 6, **{**WIDTHS, **options}).train()


def doubled(method):
    batch = toy_batch()
    return method.double(), Batch(inputs=batch.inputs.double(), targets=batch.targets)


def slow_distance(ours, theirs):
    return sum((a - b) ** 2 for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)) / len(ours)


# The losses.


def test_squared_distance(double):
    ours, theirs = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    found = squared_distance(ours, theirs)
    assert found.item() == pytest.approx(slow_distance(ours.tolist(), theirs.tolist()), rel=1e-12)
    found.backward()
    assert torch.allclose(ours.grad, 2 * (ours - theirs) / 3, rtol=1e-12)
    assert theirs.grad is None
    assert squared_distance(torch.tensor([[1.0, 2]]), torch.tensor([[3.0, 0]])).item() == 8
    assert squared_distance(torch.full((2, 3), 6e4).half(), torch.full((2, 3), -6e4).half()).isfinite()
    with pytest.raises(ValueError, match="same classes"):
        squared_distance(torch.zeros(2, 1), torch.zeros(2, 3))


@pytest.mark.parametrize("adversarial", ["non-saturating", "minimax"])
@pytest.mark.parametrize("pooling", ["average", "sum"])
def test_a_step_is_the_equations(slow, adversarial, pooling):
    method, batch = doubled(
        build(adversarial=adversarial, pooling=pooling, mu=0.3, leniency=0.7, logit_weight=2.0, squeezed_weight=3.0)
    )
    before = copy.deepcopy(method)
    student, teacher = before.student(batch.inputs), before.teacher(batch)
    updates = method.step(batch, Progress())
    first = next(updates)
    judged = before.discriminator(teacher.logits), before.discriminator(student.logits)
    told = telling_losses(*judged, batch.labels)
    told["norms"] = norms(before.discriminator.weights())
    assert first.optimizer == "discriminator"
    assert {n: v.item() for n, v in first.losses.items()} == pytest.approx({n: v.item() for n, v in told.items()})
    total = told["real"] + told["fake"] + told["classes"] + 0.3 * told["norms"] + 0.7 * told["leniency"]
    assert method.total(first, Progress()).item() == pytest.approx(total.item())
    # The student meets the discriminator as it is by then.
    with torch.no_grad():
        for part in (method.discriminator, before.discriminator):
            part.layers[-1].weight.mul_(1.5)
    second = next(updates)
    verdict = before.discriminator(student.logits)
    squeezed = before.squeezing(student, pooling=pooling)
    expected = {
        "logits": slow_distance(student.logits.tolist(), teacher.logits.tolist()),
        "fooling": fooling_loss(verdict.real, adversarial=adversarial).item(),
        "label": slow.label_loss(verdict.classes.tolist(), batch.targets.tolist()),
        "squeezed": slow_distance(squeezed.tolist(), teacher.features[SQUEEZED].tolist()),
    }
    assert second.optimizer == "student"
    assert {name: loss.item() for name, loss in second.losses.items()} == pytest.approx(expected)
    total = 2 * expected["logits"] + expected["fooling"] + expected["label"] + 3 * expected["squeezed"]
    assert method.total(second, Progress()).item() == pytest.approx(total)
    assert next(updates, None) is None


def test_the_gradient_of_the_logits_is_the_slope_of_the_students_loss():
    """Through distance, discriminator and class head at once, by finite differences."""
    method, batch = doubled(build(squeezed_weight=0.0))
    student, teacher = method.student(batch.inputs).logits.detach(), method.teacher(batch).logits

    def loss(logits):
        with keeping_statistics(method.discriminator):
            real, classes = method.discriminator(logits)
        label = -classes.log_softmax(1).gather(1, batch.labels[:, None]).mean()
        return 0.05 * squared_distance(logits, teacher) - real.sigmoid().log().mean() + label

    found = student.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(found), found)
    _, update = method.step(batch, Progress())
    (bias,) = torch.autograd.grad(method.total(update, Progress()), method.student.model.classifier.bias)
    assert torch.allclose(bias, gradient.sum(0), rtol=1e-9, atol=1e-12)
    for place in ((0, 0), (5, 3), (11, 5)):
        shift = torch.zeros_like(student)
        shift[place] = 1e-6
        slope = (loss(student + shift) - loss(student - shift)).item() / 2e-6
        assert gradient[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_equal_networks_have_no_distance():
    network = ToyNetwork().eval()
    method = build(copy.deepcopy(network), network)
    method.student.eval()
    _, update = method.step(toy_batch(), Progress())
    assert update.losses["logits"].item() == 0
    # Squeezed alike, as soon as the student's estimators are the teacher's.
    for lift in method.squeezing.lifts:
        nn.init.dirac_(lift.weight)
        nn.init.zeros_(lift.bias)
    method.squeezing.load_state_dict(method.teacher.squeezing.state_dict(), strict=False)
    _, update = method.step(toy_batch(), Progress())
    assert update.losses["squeezed"].item() == pytest.approx(0, abs=1e-12)


# Who is trained by what.


def test_each_update_touches_its_own_side():
    method = build()
    specs = method.optimizers()
    ours, its = ({id(p) for p in specs[name].params} for name in ("student", "discriminator"))
    assert its == {id(p) for p in method.discriminator.parameters()}
    assert ours == {id(p) for part in (method.student, method.squeezing) for p in part.parameters()}
    assert not ours & its
    assert not {id(p) for p in method.teacher.parameters()} & (ours | its)
    first, second = method.step(toy_batch(), Progress())
    student = list(method.student.parameters())
    found = torch.autograd.grad(method.total(first, Progress()), student, allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in found)
    method.total(second, Progress()).backward()
    assert all(parameter.grad is not None for parameter in [*student, *method.squeezing.parameters()])
    assert all(parameter.grad is None for parameter in method.teacher.parameters())


def test_the_discriminators_optimizer_is_adam_without_weight_decay():
    spec = build(discriminator_lr=0.02).optimizers()["discriminator"]
    optimizer = TRAINING.build_optimizer(spec)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.Adam)
    assert (group["initial_lr"], group["weight_decay"], group["betas"]) == (0.02, 0, (0.5, 0.999))


def test_only_the_discriminators_own_step_moves_its_statistics():
    method = build()
    norm = method.discriminator.layers[0]
    updates = method.step(toy_batch(), Progress())
    next(updates)
    after_its_own = norm.running_mean.clone()
    # Two batches: the teacher's, then the student's.
    assert norm.num_batches_tracked == 2
    assert after_its_own.abs().max() > 0
    next(updates)
    assert norm.num_batches_tracked == 2
    assert torch.equal(norm.running_mean, after_its_own)
    assert norm.track_running_stats


def test_teacher_and_student_are_normalised_apart():
    method = build()
    updates = method.step(toy_batch(), Progress())
    before = next(updates).losses
    # A batch norm that saw both together would notice that one of them is shifted.
    shifted = copy.deepcopy(method)
    shifted.teacher.teacher.network.classifier.bias += 100.0
    after = next(shifted.step(toy_batch(), Progress())).losses
    assert after["real"].item() == pytest.approx(before["real"].item(), abs=1e-4)
    assert after["fake"].item() == before["fake"].item()


def test_another_number_of_classes_is_refused():
    teacher = ToyNetwork(10)
    teacher.classifier = nn.Linear(20, 4)
    with pytest.raises(ValueError, match="same classes"):
        next(build(teacher=teacher).step(toy_batch(), Progress()))


# The recipe.


class Noting(DryRun):
    """Notes every stage with its options, and trains nothing."""

    def __init__(self, training=TRAINING):
        super().__init__(training)
        self.stages = {}

    def fit(self, name, method, data, **options):
        self.stages[name] = (method, options)
        return super().fit(name, method, data, **options)


def recipe(run, **options):
    return toy_experiment().execute(Choice(catalogue.get("ksanc"), options), run)


def test_first_the_teachers_attention_then_the_student():
    run = Noting(replace(TRAINING, epochs=40))
    network = recipe(run)
    (attention, options), (method, others) = run.stages.values()
    assert list(run.stages) == ["attention", "distill"]
    assert options == {"epochs": 4, "keep": "last"}
    assert others == {}
    assert isinstance(attention, TeacherAttention)
    assert isinstance(method, KSANC)
    assert isinstance(method.teacher, AttendedTeacher)
    learned = attention.squeezing.state_dict()
    assert all(torch.equal(value, learned[key]) for key, value in method.teacher.squeezing.state_dict().items())
    assert type(network) is ToyNetwork
    assert method.weights == {
        "logits": 0.05,
        "fooling": 1.0,
        "label": 1.0,
        "squeezed": 0.02,
        "norms": 1e-4,
        "leniency": 0.1,
    }


def test_options_reach_what_they_name():
    run = Noting()
    text = (
        "ksanc:attend=drawing,adversarial=minimax,pooling=average,hidden=[5,7],descriptor_width=3,mu=0.5,leniency=0.25"
    )
    toy_experiment().execute(parse_choice(f"{text},adversarial_weight=0.5,discriminator_lr=0.1"), run)
    method = run.stages["distill"][0]
    assert [layer.out_features for layer in method.discriminator.layers if isinstance(layer, nn.Linear)] == [5, 7, 7]
    for side in (method.squeezing, method.teacher.squeezing):
        assert (side.attend, side.transform.out_features) == ("drawing", 3)
    assert (method.adversarial, method.pooling, method.teacher.pooling) == ("minimax", "average", "average")
    assert {name: method.weights[name] for name in ("fooling", "label", "norms", "leniency")} == {
        "fooling": 0.5,
        "label": 0.5,
        "norms": 0.5,
        "leniency": 0.25,
    }
    assert method.discriminator_lr == 0.1


def test_one_epoch_of_attention_at_least():
    run = Noting()
    recipe(run, attention_share=0.001)
    assert run.stages["attention"][1]["epochs"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"mu": -1.0},
        {"logit_weight": -0.1},
        {"leniency": float("nan")},
        {"hidden": []},
        {"hidden": [8, 0]},
        {"descriptor_width": 0},
        {"discriminator_lr": 0.0},
        {"attention_share": 0.0},
    ],
)
def test_nonsense_is_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        recipe(Noting(), **options)


class Stopping(Silent):
    """Notes the stages that are trained, and stops at one."""

    def __init__(self, at=None):
        self.begun, self.at = [], at

    def begin(self, title, *, total, done):
        self.begun.append(title)
        if title == self.at:
            raise KeyboardInterrupt


def test_a_stage_that_is_done_is_not_repeated(tmp_path):
    first, second = Stopping(at="distill"), Stopping()
    with pytest.raises(KeyboardInterrupt):
        recipe(Run(tmp_path / "stopped", TRAINING, reporter=first))
    resumed = recipe(Run(tmp_path / "stopped", TRAINING, reporter=second))
    assert (first.begun, second.begun) == (["attention", "distill"], ["distill"])
    straight = recipe(Run(tmp_path / "straight", TRAINING))
    assert all(torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), straight.state_dict().values()))


def variant(run, student, teacher, data, example, num_classes):
    build = catalogue.get("ksanc").build
    return build(
        run,
        student,
        teacher,
        data,
        example,
        num_classes,
        attend="drawing",
        adversarial="minimax",
        pooling="average",
        squeezed_weight=10.0,
    )


@pytest.mark.parametrize("check", sorted(CHECKS.keys() - {"is-documented"}))
def test_the_other_variant_meets_the_conformance_suite(check):
    CHECKS[check](Entry(name="of:the-drawing", build=variant, papers=()))
