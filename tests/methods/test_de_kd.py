import pytest
from torch import nn

from tutelage.errors import UserError
from tutelage.methods.de_kd import de_kd
from tutelage.methods.kd import KD
from tutelage.methods.supervised import Supervised
from tutelage.training.state import Stop


def test_a_teacher_that_is_stopped_early_teaches(run, make, with_test):
    student = nn.Linear(4, 3)
    network = de_kd(run, student, make, with_test, teacher_epochs=3, temperature=20.0, alpha=0.95)
    poor, distill = run.fits
    assert poor.options == {"stop": Stop(after=3), "keep": "last"}
    assert isinstance(poor.method, Supervised)
    assert isinstance(distill.method, KD)
    assert distill.method.teacher.network is make.networks[0]
    assert network is student
    assert (distill.method.temperature, distill.method.weights["kd"]) == (20.0, 0.95)


def test_the_teachers_scores_are_noted(run, make, with_test):
    de_kd(run, nn.Linear(4, 3), make, with_test)
    assert run.evaluated == [("poor-teacher-scores", make.networks[0])]
    assert run.notes == {"teacher_scores": {"accuracy": 0.25, "nll": 1.0, "ece": 0.5}}


def test_nothing_is_noted_without_test_data(run, make, without_test):
    de_kd(run, nn.Linear(4, 3), make, without_test)
    assert run.notes == {}


def test_stop_by_accuracy(run, make, without_test):
    without_test.validation = ["samples"]
    de_kd(run, nn.Linear(4, 3), make, without_test, teacher_accuracy=0.15)
    assert run.fits[0].options["stop"] == Stop(after=None, at_score=0.15)


def test_a_teacher_of_no_epochs_is_refused(run, make, without_test):
    with pytest.raises(UserError, match="teacher_epochs=0"):
        de_kd(run, nn.Linear(4, 3), make, without_test, teacher_epochs=0)
    assert run.fits == []
