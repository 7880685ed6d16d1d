"""What every task says of itself, and how metrics are written."""

import copy
import pickle
from types import SimpleNamespace
from typing import get_args

import pytest

from tutelage.data import task as tasks
from tutelage.data.offers import Offer
from tutelage.data.task import TASKS, Metric, task_named
from tutelage.errors import UserError


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_all_that_others_ask_of_it(name):
    task = task_named(name)
    assert task.name == name
    assert task.primary in task.metrics
    assert task.primary in task.watched
    assert set(task.watched) <= set(task.metrics)
    assert task.offers <= set(get_args(Offer))
    assert ("maps" in task.offers) == task.has_maps
    assert all(metric.title for metric in task.metrics.values())
    assert task.salt or name == "classification"
    assert task.meter().compute() == {}, "nothing was measured yet"


@pytest.mark.parametrize("name", TASKS)
def test_what_a_comparison_says_of_it_can_be_read_again(name):
    task = task_named(name)
    told = task.describe()
    assert {key: Metric(**values) for key, values in told["metrics"].items()} == dict(task.metrics)
    assert told["primary"] == task.primary
    assert next(iter(task.score_names())) == f"validation_{next(iter(task.metrics))}"


@pytest.mark.parametrize("name", TASKS)
def test_there_is_one_of_each_in_every_process_and_copy(name):
    task = task_named(name)
    assert copy.deepcopy(task) is task
    assert pickle.loads(pickle.dumps(task)) is task


def test_salts_differ_so_that_other_readings_are_other_data():
    salts = [task_named(name).salt for name in TASKS]
    assert len(set(salts)) == len(salts)


def test_a_task_that_does_not_exist_is_told():
    with pytest.raises(UserError, match="no task named 'multilabel'. Did you mean 'multi-label'"):
        task_named("multilabel")


def test_installed_packages_add_tasks(monkeypatch):
    own = SimpleNamespace(name="own")
    point = SimpleNamespace(name="own", load=lambda: own)
    monkeypatch.setattr(tasks, "entry_points", lambda group: [point] if group == "tutelage.tasks" else [])
    assert task_named("own") is own


def test_shares_are_shown_in_per_cent_and_differ_by_points():
    share = Metric(title="accuracy", unit="share", digits=2)
    assert (share.text(0.12345), share.difference_unit) == ("12.35 %", "points")
    assert share.better(0.2, 0.1)
    metres = Metric(title="error", unit="metres", higher_is_better=False, digits=3)
    assert (metres.text(0.12345), metres.difference_unit) == ("0.123 metres", "metres")
    assert metres.better(0.1, 0.2)
    assert Metric(title="R²").text(0.5) == "0.5000"


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_nothing_is_better_than_itself_and_nan_is_better_than_nothing(value):
    for metric in (Metric(title="up"), Metric(title="down", higher_is_better=False)):
        assert not metric.better(value, value)
        assert not metric.better(float("nan"), 0.5)
