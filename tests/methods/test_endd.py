import math
from types import SimpleNamespace

import pytest
import torch
from scipy.special import digamma, gammaln
from torch import nn

from tutelage.core.method import Method, Progress
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, NoisyTeacher, Teacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.evaluation.uncertainty import of_dirichlet
from tutelage.methods.end import EnD
from tutelage.methods.endd import EnDD, dirichlet_nll
from tutelage.recording.teacher import RecordedTeacher

# Of the fact sheet: two members and a student.
MEMBERS, STUDENT = [(2.0, 0.0, -1.0), (1.0, 1.0, 0.0)], (1.0, 0.5, 0.0)


class Chorus(Teacher):
    """An ensemble that says the same whatever it is asked."""

    def __init__(self, members):
        super().__init__()
        self.members = members

    def forward(self, batch):
        return Output(logits=self.members.mean(0), members=self.members)


def logs(rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def slow_nll(alpha, answers):
    """The mean over the members of the negative log-likelihood, one number at a time."""
    total = gammaln(math.fsum(alpha)) - math.fsum(gammaln(a) for a in alpha)
    rows = [math.fsum((a - 1) * math.log(p) for a, p in zip(alpha, row, strict=True)) for row in answers]
    return -math.fsum(total + row for row in rows) / len(rows)


def slow_loss(slow, logits, members, *, temperature, smoothing, heat="both"):
    """The loss of the class docstring, with Python's own sums."""
    hot_students, hot_members = (temperature if heat != other else 1.0 for other in ("ensemble", "dirichlet"))
    losses = []
    for sample, row in enumerate(logits):
        answers = [slow.softmax(member[sample], hot_members) for member in members]
        smooth = [[(1 - smoothing) * p + smoothing / len(row) for p in answer] for answer in answers]
        losses.append(slow_nll([math.exp(z / hot_students) for z in row], smooth) + gammaln(len(row)))
    return slow.mean(losses) * (1 if heat == "ensemble" else temperature**2)


def value(method, logits, progress=None):
    (update,) = method.step(Batch(inputs=logits), progress or Progress())
    return update.losses["endd"]


def test_the_flat_density_is_known():
    for answers in ([[0.2, 0.3, 0.5]], [[0.9, 0.05, 0.05]]):
        found = dirichlet_nll(torch.zeros(1, 3), logs(answers)[:, None])
        assert found.item() == pytest.approx(-math.log(2), abs=1e-6)


def test_value_and_gradient_on_known_concentrations():
    logits = logs([(2.0, 3.0, 5.0)]).requires_grad_(True)
    found = dirichlet_nll(logits, logs([[(0.2, 0.3, 0.5)], [(0.1, 0.6, 0.3)]]), smoothing=0)
    assert found.item() == pytest.approx(-1.4655765686, abs=1e-9)
    (gradient,) = torch.autograd.grad(found, logits)
    assert gradient[0].tolist() == pytest.approx([0.2540864975, -1.4147071198, 1.0146253590], abs=1e-9)


def test_members_that_agree_have_no_bound():
    members = logs([[(0.2, 0.3, 0.5)]])
    for scale, published in ((1, 0.715322), (10, -2.140654), (100, -4.512795), (1000, -6.822379)):
        found = dirichlet_nll(logs([[scale * p for p in (0.2, 0.3, 0.5)]]), members, smoothing=0)
        assert found.item() == pytest.approx(published, abs=1e-5)


@pytest.mark.parametrize(
    ("temperature", "smoothing", "published"),
    [
        (1.0, 1e-3, -1.531251731),
        (2.0, 1e-3, -4.452684495),
        (10.0, 1e-3, -75.9712087),
        (1.0, 1e-4, -1.531384512),
        (2.0, 1e-4, -1.113306892 * 4),
    ],
)
def test_known_answers_of_the_method(echo, double, temperature, smoothing, published):
    """The sheet's numbers are not counted from the flat density, and have 1e-8 inside each logarithm."""
    method = EnDD(echo, Chorus(torch.tensor(MEMBERS)[:, None]), temperature=temperature, smoothing=smoothing)
    found = value(method, torch.tensor([STUDENT])).item() - temperature**2 * math.log(2)
    assert found == pytest.approx(published, rel=1e-7)


@pytest.mark.parametrize("heat", ["both", "ensemble", "dirichlet"])
@pytest.mark.parametrize("temperature", [1.0, 3.0, 10.0])
def test_value_is_the_slow_loops(slow, double, echo, temperature, heat):
    torch.manual_seed(0)
    members, logits = 3 * torch.randn(5, 4, 6), 2 * torch.randn(4, 6)
    method = EnDD(echo, Chorus(members), temperature=temperature, smoothing=1e-2, heat=heat)
    expected = slow_loss(slow, logits.tolist(), members.tolist(), temperature=temperature, smoothing=1e-2, heat=heat)
    assert value(method, logits).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", [0.5, 3.0, 9.0])
def test_gradient_is_the_closed_form(scale):
    torch.manual_seed(1)
    members = 3 * torch.randn(5, 4, 6, dtype=torch.float64)
    logits = (scale * torch.randn(4, 6, dtype=torch.float64)).clamp(max=9.9).requires_grad_(True)
    (found,) = torch.autograd.grad(dirichlet_nll(logits, members), logits)
    alpha = logits.detach().exp()
    smooth = ((1 - 1e-3) * members.softmax(2) + 1e-3 / 6).log().mean(0)
    closed = [
        [a * (digamma(a) - digamma(sum(row)) - target) / 4 for a, target in zip(row, targets, strict=True)]
        for row, targets in zip(alpha.tolist(), smooth.tolist(), strict=True)
    ]
    assert torch.allclose(found, torch.tensor(closed, dtype=torch.float64), rtol=1e-8, atol=1e-10)


def test_a_very_certain_answer_goes_on_in_a_straight_line():
    members = torch.zeros(1, 1, 2, dtype=torch.float64)
    rows = torch.tensor([[9.999, 0.0], [10.001, 0.0], [12.0, 0.0], [1e4, 0.0]], dtype=torch.float64)
    values, slopes = [], []
    for row in rows:
        logits = row[None].requires_grad_(True)
        loss = dirichlet_nll(logits, members)
        values.append(loss.item())
        slopes.append(torch.autograd.grad(loss, logits)[0][0, 0].item())
    assert values[0] == pytest.approx(values[1], rel=1e-2)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-2)
    assert slopes[2] > 0, "the gradient leads back"
    alpha = math.exp(10) * (1 + 2.0)
    assert values[2] == pytest.approx(slow_nll([alpha, 1.0], [[0.5, 0.5]]), rel=1e-9)
    assert 0 < slopes[3] < 1e6


def test_the_temperature_falls_over_the_run(slow, double, echo):
    members, logits = torch.randn(3, 2, 4), torch.randn(2, 4)
    method = EnDD(echo, Chorus(members), temperature=4.0, hold=0.25, fall=0.5)
    for step, temperature in ((0, 4.0), (1, 4.0), (3, 3.25), (4, 2.5), (6, 1.0), (7, 1.0)):
        found = value(method, logits, Progress(step=step, total_steps=8)).item()
        expected = slow_loss(slow, logits.tolist(), members.tolist(), temperature=temperature, smoothing=1e-3)
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("row", [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [7.0, 7.0, 7.0], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize("smoothing", [1e-3, 0.0])
def test_losses_and_gradients_stay_finite(row, dtype, smoothing):
    for answers in ([[1e4, -1e4, 0.0], [-1e4, 0.0, 1e4]], [[3.0, 3.0, 3.0], [0.0, 0.0, 0.0]]):
        for temperature in (1.0, 10.0):
            logits = torch.tensor([row], dtype=dtype).float().requires_grad_(True)
            members = torch.tensor(answers, dtype=dtype)[:, None]
            loss = dirichlet_nll(logits / temperature, members / temperature, smoothing=smoothing)
            (gradient,) = torch.autograd.grad(loss, logits)
            assert loss.isfinite()
            assert gradient.isfinite().all()
            assert loss.dtype == torch.float32


def test_its_minimum_is_the_density_that_the_members_came_from():
    torch.manual_seed(0)
    wanted = torch.tensor([[2.0, 3.0, 5.0]], dtype=torch.float64)
    members = torch.distributions.Dirichlet(wanted).sample((20_000,)).log()
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = dirichlet_nll(logits, members, smoothing=0)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(logits.exp(), wanted, rtol=0.05)
    assert of_dirichlet(logits.detach()).knowledge.item() == pytest.approx(0.0923514268, rel=0.05)


def test_gradients_are_clipped_unless_that_is_left_to_the_run(echo, parrot):
    student, teacher = nn.Linear(2, 3), parrot(torch.zeros(1, 3))
    (spec,) = EnDD(student, teacher).optimizers().values()
    assert (spec.clip_norm, list(spec.params)) == (1.0, list(student.parameters()))
    (spec,) = EnDD(student, teacher, gradient_norm=0).optimizers().values()
    assert spec.clip_norm is None


def test_its_logits_are_a_dirichlets_and_ends_are_not():
    assert EnDD.density == "dirichlet"
    assert (EnD.density, Method.density) == ("categorical", "categorical")


def test_an_answer_without_members_is_an_ensemble_of_one(slow, double, echo, parrot):
    answers, logits = torch.randn(2, 4), torch.randn(2, 4)
    found = value(EnDD(echo, parrot(answers), temperature=2.0), logits).item()
    expected = slow_loss(slow, logits.tolist(), [answers.tolist()], temperature=2.0, smoothing=1e-3)
    assert found == pytest.approx(expected, rel=1e-9)


def test_one_network_is_noted_and_several_are_not():
    notes = []
    reporter = SimpleNamespace(note=lambda text, once: notes.append(text))
    networks = [FrozenTeacher(nn.Linear(2, 2)) for _ in range(2)]
    EnDD(nn.Identity(), EnsembleTeacher(networks), reporter)
    EnDD(nn.Identity(), Chorus(torch.zeros(2, 1, 2)), reporter)
    assert not notes
    EnDD(nn.Identity(), networks[0], reporter)
    assert "cannot learn knowledge uncertainty" in notes[0]
    assert "--teacher A B C" in notes[0]


def test_what_makes_no_sense_is_refused(echo, parrot):
    teacher = parrot(torch.zeros(5, 100))
    for options, words in (
        ({"smoothing": 1.0}, "smoothing=1.0"),
        ({"smoothing": -0.1}, "smoothing=-0.1"),
        ({"gradient_norm": -1.0}, "gradient_norm=-1.0"),
        ({"temperature": 0.5}, "1 or above"),
        ({"hold": 0.8, "fall": 0.4}, "shares of the run"),
    ):
        with pytest.raises(UserError, match=words):
            EnDD(echo, teacher, **options)
    with pytest.raises(ValueError, match=r"\(5, 4\), and the teacher \(5, 100\)"):
        value(EnDD(echo, teacher), torch.zeros(5, 4))


def test_a_recording_is_refused_because_it_holds_the_mean_alone():
    for teacher in (RecordedTeacher(), NoisyTeacher(RecordedTeacher(), std=0.1)):
        with pytest.raises(
            UserError, match=r"^endd learns from the answers of each member .* --teacher A B C, .* by kd"
        ):
            EnDD(nn.Identity(), teacher)


def test_an_ensemble_gives_finite_losses():
    """The conformance check would say so too, if it accepted recordings."""
    torch.manual_seed(0)
    ensemble = EnsembleTeacher([FrozenTeacher(nn.Linear(3, 3)) for _ in range(2)])
    assert value(EnDD(nn.Identity(), ensemble), torch.randn(4, 3)).isfinite()
