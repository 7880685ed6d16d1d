import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress, Update
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.wkd import held, target_loss, wkd, wkd_logit_loss
from tutelage.models import CATALOGUE
from tutelage.testing.toys import TRAINING, ToyNetwork, toy_batch, toy_data, toy_transformer
from tutelage.training.dry_run import DryRun
from tutelage.training.run import Run

DISTANCES = [[0, 0.2, 0.6, 0.4], [0.2, 0, 0.3, 0.5], [0.6, 0.3, 0, 0.1], [0.4, 0.5, 0.1, 0]]
COST = 1 - torch.exp(-torch.tensor(DISTANCES, dtype=torch.float64))
STUDENT = torch.tensor([[2, 0, 1, -1], [0, 1, 0, 1]], dtype=torch.float64)
TEACHER = torch.tensor([[3, 0, 1, 0], [0, 2, 1, -1]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


def slow_transport(student, teacher, label, cost, temperature, iterations, slow):
    """The cost of one sample's plan: the label's class is left out, and the rest is Sinkhorn's on plain numbers."""
    others = [k for k in range(len(student)) if k != label]
    a, b = (slow.softmax([row[k] for k in others], temperature) for row in (student, teacher))
    kernel = [[math.exp(-cost[i][j] / 0.05) for j in others] for i in others]
    n = range(len(others))
    u = [1.0] * len(others)
    for _ in range(iterations):
        v = [b[j] / sum(kernel[i][j] * u[i] for i in n) for j in n]
        u = [a[i] / sum(kernel[i][j] * v[j] for j in n) for i in n]
    return sum(u[i] * kernel[i][j] * v[j] * cost[others[i]][others[j]] for i in n for j in n)


def test_known_answers():
    ten = wkd_logit_loss(STUDENT, TEACHER, LABELS, COST, 2.0, iterations=10)
    assert ten.item() == pytest.approx(0.0195163878, abs=5e-11)
    # The code's two 1e-8 move the eighth digit.
    assert ten.item() == pytest.approx(0.0195163965, abs=1e-8)
    target = target_loss(STUDENT, TEACHER, LABELS)
    assert target.item() == pytest.approx(0.5022480355, abs=5e-11)
    hard = nn.functional.cross_entropy(STUDENT, LABELS)
    assert (hard + target + 25 * ten).item() == pytest.approx(1.7134570131, abs=5e-10)


@pytest.mark.parametrize(("options", "iterations"), [({"iterations": 10}, 10), ({"tolerance": 1e-12}, 2500)])
def test_value_and_gradient_are_the_slow_loops(slow, options, iterations):
    torch.manual_seed(0)
    student = (2 * torch.randn(3, 4, dtype=torch.float64)).requires_grad_(True)
    teacher, labels = 2 * torch.randn(3, 4, dtype=torch.float64), torch.tensor([2, 0, 3])

    def value(rows):
        triples = zip(rows, teacher.tolist(), labels.tolist(), strict=True)
        moved = slow.mean(slow_transport(s, t, y, COST.tolist(), 2.5, iterations, slow) for s, t, y in triples)
        triples = zip(rows, teacher.tolist(), labels.tolist(), strict=True)
        return 30 * moved + slow.mean(-slow.softmax(t)[y] * math.log(slow.softmax(s)[y]) for s, t, y in triples)

    loss = 30 * wkd_logit_loss(student, teacher, labels, COST, 2.5, **options) + target_loss(student, teacher, labels)
    assert loss.item() == pytest.approx(value(student.tolist()), rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, student)
    for sample in range(3):
        for k in range(4):
            sides = []
            for sign in (1, -1):
                rows = student.tolist()
                rows[sample][k] += sign * 1e-5
                sides.append(value(rows))
            assert gradient[sample, k].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-8)


def test_the_code_reports_less_than_the_true_cost_where_it_has_not_converged():
    ten, ended = (wkd_logit_loss(STUDENT, TEACHER, LABELS, COST, 2.0, iterations=n).item() for n in (10, 2000))
    exact = (0.0169360148 + 0.0330383000) / 2
    assert ten < exact < ended


def test_equal_answers_cost_only_what_the_entropy_does():
    loss = wkd_logit_loss(TEACHER, TEACHER, LABELS, COST, 2.0, tolerance=1e-10)
    assert 0 < loss < 0.02


@pytest.mark.parametrize("options", [{}, {"iterations": 10}])
def test_two_classes_cost_nothing_and_one_sample_is_enough(options):
    student = torch.randn(5, 2, requires_grad=True)
    labels = torch.tensor([0, 1, 1, 0, 1])
    loss = wkd_logit_loss(student, torch.randn(5, 2), labels, 1 - torch.eye(2), 4.0, **options)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, student)[0].abs().max() == 0
    one = wkd_logit_loss(STUDENT[:1], TEACHER[:1], LABELS[:1], COST, 2.0, iterations=10)
    assert one.item() == pytest.approx(0.0126193941, abs=5e-11)


def test_mixed_labels_and_samples_without_one():
    mixed = torch.tensor([[0.7, 0.3, 0, 0], [0.4, 0.6, 0, 0]], dtype=torch.float64)
    # The transport leaves the likeliest class out; the other term takes the mixture as it is.
    hard = wkd_logit_loss(STUDENT, TEACHER, LABELS, COST, 2.0)
    assert torch.equal(wkd_logit_loss(STUDENT, TEACHER, mixed, COST, 2.0), hard)
    terms = -TEACHER.softmax(1) * STUDENT.log_softmax(1)
    torch.testing.assert_close(target_loss(STUDENT, TEACHER, mixed), (mixed * terms).sum(1).mean())
    half = torch.tensor([0, -1])
    one = wkd_logit_loss(STUDENT[:1], TEACHER[:1], LABELS[:1], COST, 2.0)
    torch.testing.assert_close(wkd_logit_loss(STUDENT, TEACHER, half, COST, 2.0), one)
    torch.testing.assert_close(target_loss(STUDENT, TEACHER, half), target_loss(STUDENT[:1], TEACHER[:1], LABELS[:1]))
    student = STUDENT.clone().requires_grad_(True)
    nothing = torch.tensor([-1, -1])
    losses = wkd_logit_loss(student, TEACHER, nothing, COST) + target_loss(student, TEACHER, nothing)
    assert losses.item() == 0
    assert torch.autograd.grad(losses, student)[0].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"iterations": 10}])
def test_answers_200_apart_have_finite_losses_and_gradients(dtype, options):
    student = torch.tensor([[0, 200.0, 0, 0], [-200, 0, 0, 200]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[200.0, 0, 200, 0], [0, 200, 0, -200]], dtype=dtype)
    losses = wkd_logit_loss(student, teacher, LABELS, COST.float(), 1.0, **options)
    losses = losses + target_loss(student, teacher, LABELS)
    assert losses.isfinite()
    assert torch.autograd.grad(losses, student)[0].isfinite().all()


@pytest.mark.parametrize(
    ("until", "done", "share"),
    [
        (0.0, 75 / 100, 0.1464466094),
        (150 / 240, 195 / 240, 0.5),
        (150 / 240, 150 / 240, 1),
        (0.5, 1.0, 0),
        (1.0, 1.0, 1),
    ],
)
def test_the_weights_stay_and_then_fall(until, done, share):
    weight = held(3.0, until)
    assert weight(Progress(step=round(done * 1200), total_steps=1200)) == pytest.approx(3 * share, abs=1e-9)


class Meeting(DryRun):
    def meet(self, name, method, data, *, epochs, stop):
        self.method = method


def met(student=None, teacher=None, data=None, **options):
    torch.manual_seed(0)
    student, data, run = student or ToyNetwork(), data or toy_data(), Meeting(TRAINING)
    wkd(run, student, teacher or FrozenTeacher(ToyNetwork(10)), data, data.example(2), **options)
    return run.method


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("logits", {"ce", "target", "transport"}),
        ("features", {"ce", "features"}),
        ("both", {"ce", "target", "transport", "features"}),
    ],
)
def test_forms_have_their_losses(form, names):
    method = met(form=form)
    losses = method.train().losses(toy_batch())
    assert losses.keys() == names
    assert set(method.weights) == names & {"transport", "features"}
    method.total(Update(losses), Progress()).backward()
    trained = [p for p in method.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert hasattr(method, "projectors") == (form != "logits")


def test_the_method_computes_this_on_what_its_networks_say(slow):
    method = met(form="both", variant="code", grid=2, mean_weight=3.0).double().train()
    batch = replace(toy_batch(), inputs=toy_batch().inputs.double())
    losses = method.losses(batch)
    with torch.no_grad():
        student, teacher = method.student(batch.inputs), method.teacher(batch)
        (read,) = method.pairs
        ours, theirs = read.maps(student, teacher)
        mean, spread = 0.0, 0.0
        for rows in (slice(0, 2), slice(1, 3)):
            for columns in (slice(0, 2), slice(2, 4)):
                cell, other = (maps[:, :, rows, columns].flatten(2) for maps in (method.projectors[0](ours), theirs))
                mean += (cell.mean(2) - other.mean(2)).square().sum(1).mean().item() / 4
                gap = (cell.var(2) + 1e-5).sqrt() - (other.var(2) + 1e-5).sqrt()
                spread += gap.square().sum(1).mean().item() / 4
    assert losses["features"].item() == pytest.approx(3 * mean + spread, rel=1e-9)
    rows = zip(student.logits.tolist(), teacher.logits.tolist(), batch.labels.tolist(), strict=True)
    moved = slow.mean(slow_transport(s, t, y, method.cost.tolist(), 8.0, 10, slow) for s, t, y in rows)
    assert losses["transport"].item() == pytest.approx(moved, rel=1e-6)


def test_a_run_compares_the_classes_and_ships_the_student_alone(tmp_path):
    torch.manual_seed(0)
    student, teacher, data = ToyNetwork(), FrozenTeacher(ToyNetwork(10)), toy_data()
    network = wkd(Run(tmp_path, TRAINING), student, teacher, data, data.example(2), form="both", samples=4)
    assert (tmp_path / "classes" / "artefact.pt").exists()
    assert type(network) is ToyNetwork
    assert network.state_dict().keys() == ToyNetwork().state_dict().keys()
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("similarity", ["logits", "classifier"])
def test_other_similarities(similarity):
    losses = met(similarity=similarity).losses(toy_batch())
    assert losses["transport"].isfinite()


@pytest.mark.parametrize("form", ["features", "both"])
@pytest.mark.parametrize(
    ("student", "teacher"), [("tiny_cnn", toy_transformer), (toy_transformer, "tiny_cnn"), ("resnet8", "vgg8")]
)
def test_any_two_networks(form, student, teacher):
    student, teacher = (CATALOGUE[one](5) if isinstance(one, str) else one() for one in (student, teacher))
    data = replace(toy_data(), image_size=(32, 32), num_classes=5)
    run = Meeting(TRAINING)
    images = torch.randn(4, 3, 32, 32)
    wkd(run, student, FrozenTeacher(teacher), _resized(data), images, form=form, grid=4, projector="bottleneck")
    losses = run.method.train().losses(Batch(inputs=images, targets=torch.tensor([0, 1, 2, 3])))
    losses["features"].backward()
    assert run.method.projectors[0][0].weight.grad.abs().max() > 0


def _resized(data):
    from tutelage.data.images import ResidentImages

    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    return data.with_splits(train=ResidentImages(images, torch.arange(8) % 5), validation=None, test=None)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"grid": 0},
        {"samples": 0},
        {"sharpness": 0.0},
        {"epsilon": 0.001},
        {"weight": -1.0},
        {"decay_from": 1.5},
    ],
)
def test_refusals(options):
    with pytest.raises(UserError, match="Weights" if "weight" in options else next(iter(options))):
        met(**options)
