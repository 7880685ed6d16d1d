"""Data judged by another metric: it chooses the epoch, compares rows and heads the table."""

import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.data.judging import judged
from tutelage.data.sources import load_data
from tutelage.data.task import TASKS, task_named
from tutelage.data.wrap import as_data
from tutelage.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.mark.parametrize("name", TASKS)
def test_every_metric_that_may_judge_is_measured_after_every_epoch(name):
    usual = task_named(name)
    judges = usual.judges or usual.watched
    assert set(usual.watched) <= set(judges)
    for metric in judges:
        task = usual.judged_by([metric], outputs=2)
        assert task.primary == metric
        assert task.primary in task.watched
        assert set(task.watched) <= set(task.metrics)
        assert set(usual.metrics) <= set(task.metrics)
        assert pickle.loads(pickle.dumps(task)).describe() == task.describe()


def test_the_usual_metric_changes_nothing(digits):
    assert judged(digits, "accuracy") is digits
    assert task_named("classification").judged_by(["accuracy"], outputs=2) is task_named("classification")


def test_another_metric_makes_other_data_and_the_usual_one_comes_back(digits):
    other = judged(digits, "macro-f1 + mcc")
    assert (other.task.primary, other.task.watched[:2]) == ("macro_f1", ("macro_f1", "mcc"))
    assert other.fingerprint not in (digits.fingerprint, judged(digits, "macro-f1").fingerprint)
    assert judged(other, "accuracy").task is digits.task
    assert load_data("digits", metric="macro-f1+mcc").fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("metric", "message"),
    [("map", "no metric of the task 'classification' named 'map'"), ("f1", "there are 10"), ("", "named ''")],
)
def test_a_metric_that_does_not_exist_is_told(digits, metric, message):
    with pytest.raises(UserError, match=message):
        judged(digits, metric)


def test_it_chooses_the_epoch_and_heads_table_report_and_evaluation(tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(120, 1, 2, 2)
    data = TensorDataset(inputs, (inputs[:, 0, 0, 0] > 1).long())
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    settings = {"epochs": 2, "batch_size": 20, "seeds": 1, "progress": False, "out": tmp_path, "device": "cpu"}
    found = tutelage.compare(["supervised"], student=network, data=data, test=data, metric="mcc", **settings)
    assert found["task"]["primary"] == "mcc"
    run = found["rows"][0]["runs"][0]
    course = run["history"]["validation_mcc"]
    assert run["best_epoch"] == 1 + max(range(2), key=lambda epoch: course[epoch])
    assert "test_mcc" in found["rows"][0]["summary"]["best"]
    assert "test MCC" in (tmp_path / "report.html").read_text()
    scores = tutelage.evaluate(network, data=data, metric="mcc+f1")
    assert list(scores.scores)[0:1] == ["accuracy"]
    assert -1 <= scores.mcc <= 1
    assert 0 <= scores.f1 <= 1


def test_numbers_are_judged_by_correlation():
    data = as_data(TensorDataset(torch.randn(20, 1, 2, 2), torch.randn(20, 1)), task="regression", hold_out=0)
    assert judged(data, "pearson+spearman").task.watched == ("pearson", "spearman", "mae", "mse")


def test_a_task_with_options_keeps_them():
    task = task_named("depth").configured({"loss": "berhu"}).judged_by(["rmse"], outputs=1)
    again = pickle.loads(pickle.dumps(task))
    for one in (task, again):
        assert (one.primary, one.salt) == ("rmse", b"depth berhu")
    assert task.judged_by(["abs_rel"], outputs=1).salt == b"depth berhu"
