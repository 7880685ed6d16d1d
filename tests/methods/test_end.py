import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, NoisyTeacher, Teacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import UserError
from tutelage.methods.end import EnD, end_loss, is_single, members_of
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


def slow_loss(slow, logits, members, temperature):
    losses = []
    for sample, row in enumerate(logits):
        answers = [slow.softmax(member[sample], temperature) for member in members]
        mean = [slow.mean(column) for column in zip(*answers, strict=True)]
        losses.append(slow.kl(mean, slow.softmax(row, temperature)))
    return temperature**2 * slow.mean(losses)


def value(method, logits, progress=None):
    (update,) = method.step(Batch(inputs=logits), progress or Progress())
    return update.losses["end"]


@pytest.mark.parametrize(("temperature", "published"), [(1.0, 0.9130844049), (2.0, 4.1577311106)])
def test_known_answers(slow, temperature, published):
    """The sheet's numbers are soft cross-entropies, the KL divergence and the target's entropy, with 1e-8 inside ln."""
    members = torch.tensor(MEMBERS, dtype=torch.float64)[:, None]
    answers = [slow.softmax(member, temperature) for member in MEMBERS]
    entropy = slow.entropy([slow.mean(column) for column in zip(*answers, strict=True)])
    found = end_loss(torch.tensor([STUDENT], dtype=torch.float64), members, temperature)
    assert found.item() + temperature**2 * entropy == pytest.approx(published, rel=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 10.0])
def test_value_and_gradient_are_the_slow_loops(slow, temperature):
    torch.manual_seed(0)
    members = 2 * torch.randn(5, 4, 3, dtype=torch.float64)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    found = end_loss(logits, members, temperature)
    assert found.item() == pytest.approx(slow_loss(slow, logits.tolist(), members.tolist(), temperature), rel=1e-10)
    (gradient,) = torch.autograd.grad(found, logits)
    mean = (members / temperature).softmax(2).mean(0)
    expected = temperature * ((logits / temperature).softmax(1) - mean) / 4
    assert torch.allclose(gradient, expected, rtol=1e-10)


def test_the_temperature_falls_over_the_run(slow, double, echo):
    members, logits = torch.randn(3, 2, 4), torch.randn(2, 4)
    method = EnD(echo, Chorus(members), temperature=4.0, hold=0.25, fall=0.5)
    for step, temperature in ((0, 4.0), (1, 4.0), (3, 3.25), (4, 2.5), (6, 1.0), (7, 1.0)):
        found = value(method, logits, Progress(step=step, total_steps=8)).item()
        assert found == pytest.approx(slow_loss(slow, logits.tolist(), members.tolist(), temperature), rel=1e-9)


def test_it_is_zero_where_the_student_predicts_what_the_ensemble_predicts():
    torch.manual_seed(0)
    teacher = EnsembleTeacher([FrozenTeacher(nn.Linear(3, 4)) for _ in range(3)])
    inputs = torch.randn(5, 3)
    logits = teacher(Batch(inputs=inputs)).logits
    found = end_loss(logits, torch.stack([member(Batch(inputs=inputs)).logits for member in teacher.teachers]))
    assert found.item() == pytest.approx(0, abs=1e-6)


def test_an_answer_without_members_is_an_ensemble_of_one(slow, double, echo, parrot):
    answers, logits = torch.randn(2, 4), torch.randn(2, 4)
    found = value(EnD(echo, parrot(answers), temperature=2.0), logits).item()
    assert found == pytest.approx(slow_loss(slow, logits.tolist(), [answers.tolist()], 2.0), rel=1e-9)
    assert torch.equal(members_of(Output(logits=answers)), answers[None])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("row", [[1e4, -1e4, 0.0], [7.0, 7.0, 7.0], [0.0, 0.0, 0.0]])
def test_losses_and_gradients_stay_finite(row, dtype):
    logits = torch.tensor([row], dtype=dtype, requires_grad=True)
    for answers in ([[1e4, -1e4, 0.0], [-1e4, 0.0, 1e4]], [[3.0, 3.0, 3.0], [0.0, 0.0, 0.0]]):
        for temperature in (1.0, 10.0):
            loss = end_loss(logits, torch.tensor(answers, dtype=dtype)[:, None], temperature)
            (gradient,) = torch.autograd.grad(loss, logits)
            assert loss.isfinite()
            assert gradient.isfinite().all()


def test_one_network_is_noted_and_several_are_not():
    notes = []
    reporter = SimpleNamespace(note=lambda text, once: notes.append(text))
    single, several = FrozenTeacher(nn.Linear(2, 2)), [FrozenTeacher(nn.Linear(2, 2)) for _ in range(2)]
    for teacher in (EnsembleTeacher(several), Chorus(torch.zeros(2, 1, 2))):
        EnD(nn.Identity(), teacher, reporter)
    assert not notes
    EnD(nn.Identity(), single, reporter)
    EnD(nn.Identity(), EnsembleTeacher([single]), reporter)
    assert len(notes) == 2
    assert "--ensemble 5" in notes[0]
    assert not is_single(EnsembleTeacher(several))


def test_what_makes_no_sense_is_refused(echo, parrot):
    with pytest.raises(UserError, match="1 or above"):
        EnD(echo, parrot(torch.zeros(1, 2)), temperature=0.5)
    with pytest.raises(UserError, match="shares of the run"):
        EnD(echo, parrot(torch.zeros(1, 2)), hold=0.8, fall=0.4)
    with pytest.raises(ValueError, match=r"\(5, 4\), and the teacher \(5, 100\)"):
        value(EnD(echo, parrot(torch.zeros(5, 100))), torch.zeros(5, 4))


def test_no_labels_are_needed(echo, parrot):
    assert math.isfinite(value(EnD(echo, parrot(torch.randn(5, 4))), torch.randn(5, 4)).item())


def test_a_recording_is_refused_because_it_holds_the_mean_alone():
    for teacher in (RecordedTeacher(), NoisyTeacher(RecordedTeacher(), std=0.1)):
        with pytest.raises(
            UserError, match=r"^end learns from the answers of each member .* --teacher A B C, .* by kd"
        ):
            EnD(nn.Identity(), teacher)


def test_an_ensemble_gives_finite_losses():
    """The conformance check would say so too, if it accepted recordings."""
    torch.manual_seed(0)
    ensemble = EnsembleTeacher([FrozenTeacher(nn.Linear(3, 3)) for _ in range(2)])
    assert value(EnD(nn.Identity(), ensemble), torch.randn(4, 3)).isfinite()
