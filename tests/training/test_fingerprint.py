"""What makes two pieces of work the same work."""

import pytest
import torch
from torch import nn

from tutelage.core.teachers import FrozenTeacher
from tutelage.errors import UserError
from tutelage.methods.dkd import DKD
from tutelage.methods.fitnet import FitNetDistillation
from tutelage.methods.kd import KD
from tutelage.models.normalization import Normalized
from tutelage.system.files import write_json
from tutelage.training import fingerprint


def method(*, student=0, teacher=1, mean=0.5, **options):
    torch.manual_seed(student)
    network = Normalized(nn.Conv2d(1, 3, 1), (mean,), (1.0,))
    torch.manual_seed(teacher)
    return KD(network, FrozenTeacher(nn.Conv2d(1, 3, 1)), **options)


def test_the_same_work_has_the_same_fingerprint():
    assert fingerprint.of_method(method()) == fingerprint.of_method(method())


@pytest.mark.parametrize(
    "change",
    [{"student": 2}, {"teacher": 2}, {"mean": 0.4}, {"alpha": 0.5}, {"temperature": 3.0}, {"reduction": "mean"}],
)
def test_whatever_changes_the_result_changes_it(change):
    assert fingerprint.of_method(method()) != fingerprint.of_method(method(**change))


def test_train_and_eval_mode_are_the_same_work():
    assert fingerprint.of_method(method().eval()) == fingerprint.of_method(method().train())


def test_differences_are_named_by_path():
    lines = fingerprint.difference({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4})
    assert lines == ["a.c: 2 then, 5 now", "d: 3 then, None now", "e: None then, 4 now"]


def test_check_refuses_other_work_and_accepts_the_same(tmp_path):
    file = tmp_path / "fingerprint.json"
    fingerprint.check(file, {"lr": 0.1})
    write_json(file, {"lr": 0.1, "sizes": (1, 2)})
    fingerprint.check(file, {"lr": 0.1, "sizes": (1, 2)})
    with pytest.raises(UserError, match=r"lr: 0.1 then, 0.2 now\n.*--out"):
        fingerprint.check(file, {"lr": 0.2, "sizes": (1, 2)})


def scheduled(build, **options):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten())
    return fingerprint.of_method(build(student, FrozenTeacher(nn.Conv2d(1, 3, 1)), **options))


@pytest.mark.parametrize(
    ("build", "change"),
    [
        (DKD, {"beta": 2.0}),
        (DKD, {"ramp_epochs": 3}),
        (FitNetDistillation, {"kd_start": 3.0}),
        (FitNetDistillation, {"kd_end": 0.5}),
    ],
)
def test_a_schedule_is_what_it_was_made_from(build, change):
    assert scheduled(build) == scheduled(build)
    assert scheduled(build) != scheduled(build, **change)
