"""What a comparison says of its task, and what of that was measured."""

import pytest

from tutelage.data.task import Metric, task_named
from tutelage.report.measured import measured_of

ERROR = {"title": "error", "short": "err.", "higher_is_better": False}


def told(*scores, metrics=("error",), primary="error", **more):
    best = {score: {"mean": 0.5, "std": None, "n": 1} for score in scores}
    task = {"name": "mine", "primary": primary, "metrics": dict.fromkeys(metrics, ERROR)}
    return {"task": task, "rows": [{"label": "a", "summary": {"best": best}, "runs": [{"seed": 0}], **more}]}


def test_a_comparison_that_names_no_task_is_of_classification(full):
    measured = measured_of(full)
    assert (measured.task, measured.primary, measured.score) == ("classification", "accuracy", "test_accuracy")
    assert (measured.title, measured.choosing_title) == ("test accuracy", "validation accuracy")
    assert [name for name, _ in measured.others] == ["test_nll", "test_ece"]
    assert measured.outputs == ("class", "classes")
    full["task"] = task_named("classification").describe()
    assert measured_of(full) == measured


def test_metrics_are_made_again_from_plain_values(regression):
    measured = measured_of(regression)
    assert measured.metric == Metric(title="RMSE", short="RMSE", unit="metres", higher_is_better=False, digits=3)
    assert [name for name, _ in measured.others] == ["test_mae", "test_r2"]
    assert measured.is_tested


@pytest.mark.parametrize(
    ("scores", "split", "chosen_on"),
    [
        (["test_error", "validation_error"], "test", "validation"),
        (["validation_error"], "validation", "validation"),
        (["validation-mismatched_error", "validation-matched_error"], "validation-matched", "validation-matched"),
        (["validation-other_error", "validation_error"], "validation", "validation"),
        (["test_error"], "test", ""),
        (["train_error", "test_other"], "", ""),
        ([], "", ""),
    ],
)
def test_the_split_that_is_shown(scores, split, chosen_on):
    measured = measured_of(told(*scores))
    assert (measured.split, measured.chosen_on) == (split, chosen_on)


def test_a_score_of_a_longer_name_is_another_metrics():
    assert measured_of(told("test_top5_error", metrics=("error", "top5_error"))).split == ""
    both = measured_of(told("test_top5_error", "test_error", metrics=("error", "top5_error")))
    assert both.others == (("test_top5_error", Metric(**ERROR)),)


def test_what_single_runs_noted_tells_what_chose_the_epoch():
    comparison = told("test_error", runs=[{"seed": 0, "history": {"validation_error": [0.5]}}])
    assert measured_of(comparison).chosen_on == "validation"


def test_before_a_run_has_finished_nothing_is_said_to_be_unmeasured():
    assert measured_of(told(runs=[])).split == "test"
    assert measured_of(told(runs=[], primary="")).split == ""


def test_digits_fit_the_values_of_all_rows():
    comparison = told("test_error")
    comparison["task"]["metrics"]["error"] = ERROR | {"significant": True}
    assert measured_of(comparison).metric.digits == 4
    comparison["rows"][0]["summary"]["best"]["test_error"]["mean"] = 1234.5
    assert measured_of(comparison).metric.digits == 0


@pytest.mark.parametrize("task", [{"name": "x"}, {"metrics": 3, "primary": ["a"]}, {"metrics": {"a": None}}])
def test_a_task_that_says_little_measures_nothing(full, task):
    measured = measured_of(full | {"task": task})
    assert measured.split == ""
    assert measured.metric.title == "score"
    assert measured.outputs == ("output", "outputs")


def test_what_a_later_version_says_of_a_metric_is_left_out():
    comparison = told("test_error")
    comparison["task"]["metrics"]["error"] = ERROR | {"colour": "red"}
    assert measured_of(comparison).metric == Metric(**ERROR)
