import pytest

from tutelage.core.teachers import FrozenTeacher
from tutelage.methods.kd import KD
from tutelage.methods.supervised import Supervised
from tutelage.methods.tf_kd_self import double_training, tf_kd_self


def test_a_fresh_copy_learns_from_the_network_trained_before(run, make, without_test):
    network = tf_kd_self(run, make, without_test, temperature=5.0, alpha=0.8)
    first, second = run.fits
    assert (first.name, second.name) == ("self-teacher", "distill")
    assert isinstance(first.method, Supervised)
    assert isinstance(second.method, KD)
    assert make.parts == ["self-teacher", "student"]
    assert first.method.export() is make.networks[0]
    assert isinstance(second.method.teacher, FrozenTeacher)
    assert second.method.teacher.network is make.networks[0]
    assert network is make.networks[1]
    assert (second.method.temperature, second.method.weights["kd"]) == (5.0, 0.8)
    assert second.method.t_squared
    assert second.method.reduction == "batchmean"


def test_defaults_are_the_authors_for_resnet18_without_their_division(run, make, without_test):
    tf_kd_self(run, make, without_test)
    method = run.fits[1].method
    # alpha 0.95, multiplier 50, divided by 100 classes, beside a cross-entropy of 0.05.
    soft = 0.95 * 50 / 100
    assert method.weights["kd"] == pytest.approx(soft / (soft + 0.05), abs=0.006)
    assert method.temperature == 6.0


def test_double_training_goes_on_from_the_first_weights(run, make, without_test):
    network = double_training(run, make, without_test)
    assert [fit.name for fit in run.fits] == ["first", "distill"]
    assert all(isinstance(fit.method, Supervised) for fit in run.fits)
    assert len(make.networks) == 1
    assert network is make.networks[0]
