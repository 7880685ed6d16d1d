"""A row's numbers."""

from types import SimpleNamespace

import pytest

from tutelage.data.task import task_named
from tutelage.experiments.rows import UNSIZED, record, summarise
from tutelage.training.run import Fitted

CLASSIFICATION = task_named("classification")

EXIT = {"spec": "resnet8", "parameters": 10, "multiply_adds": 20}


def run_of(seed, accuracy, seconds=1.0):
    scores = {"test_accuracy": accuracy, "test_nll": 1.0, "test_ece": 0.1}
    shown = {"best": scores, "last": scores, "members": []}
    return {"seed": seed, "seconds": seconds, "images_per_second": 10.0, **shown}


def row(label, *accuracies, seconds=(1.0, 1.0, 1.0)):
    pairs = zip(accuracies, seconds)
    return {"label": label, "runs": [run_of(seed, accuracy, time) for seed, (accuracy, time) in enumerate(pairs)]}


def test_differences_are_paired_by_seed():
    found = summarise(row("kd", 0.5, 0.6, 0.7), row("supervised", 0.4, 0.5, 0.6), CLASSIFICATION)
    assert found["paired"]["best"]["mean"] == pytest.approx(0.1)
    assert found["best"]["test_accuracy"]["mean"] == pytest.approx(0.6)
    fewer = summarise(row("kd", 0.5, 0.6, 0.7), row("supervised", 0.4, 0.5), CLASSIFICATION)
    assert fewer["paired"]["best"]["mean"] == pytest.approx(0.1), "only seeds that both have are compared"


def test_cost_is_the_typical_one_for_the_first_training_also_pays_for_the_start():
    found = summarise(
        row("kd", 0.5, 0.6, 0.7, seconds=(2, 2, 2)),
        row("supervised", 0.4, 0.5, 0.6, seconds=(90, 1, 1)),
        CLASSIFICATION,
    )
    assert found["relative_cost"] == 2


def test_a_baseline_is_not_compared_with_itself_and_a_row_without_one_with_nothing():
    same = row("supervised", 0.4, 0.5)
    assert summarise(same, same, CLASSIFICATION)["paired"] is None
    assert summarise(same, same, CLASSIFICATION)["relative_cost"] == 1
    assert "relative_cost" not in summarise(same, None, CLASSIFICATION)
    assert "relative_cost" not in summarise(same, {"label": "kd", "runs": []}, CLASSIFICATION)


def test_without_test_data_there_is_nothing_to_pair():
    bare = {**run_of(0, 0.5), "best": {}, "last": {}}
    found = summarise({"label": "kd", "runs": [bare]}, {"label": "supervised", "runs": [bare]}, CLASSIFICATION)
    assert found["paired"] == {"best": None, "last": None}
    assert found["best"] == {}


def test_a_record_holds_the_last_stage_the_time_of_all_and_other_predictions(tmp_path):
    def stage(name, seconds):
        scores = {"test_accuracy": 0.7, "test_accuracy/exit-1": 0.6, "test_nll/exit-1": 2.0}
        kinds = {"best": scores, "last": scores}
        return Fitted(
            name=name, epochs=2, best_epoch=1, seconds=seconds, images_per_second=5.0, history={"lr": [1.0, 0.5]},
            scores=kinds, members={"exit-1": EXIT},
        )  # fmt: skip

    notes = {"members": {"ensemble": {"accuracy": 0.8}}, "teacher_scores": {"accuracy": 0.9}}
    run = SimpleNamespace(
        folder=tmp_path / "runs" / "kd", fitted=[stage("first", 2.0), stage("last", 3.0)], notes=notes
    )
    found = record(run, 4, tmp_path)
    assert found["folder"] == "runs/kd"
    assert found["seconds"] == 5.0
    assert found["history"]["epoch"] == [1, 2]
    assert found["teacher_scores"] == {"accuracy": 0.9}
    exits, ensemble = found["members"]
    assert exits == {"name": "exit-1", **EXIT, "best": exits["best"], "last": exits["best"]}
    assert exits["best"] == {"test_accuracy": 0.6, "test_nll": 2.0}
    assert ensemble == {"name": "ensemble", **UNSIZED, "best": {"test_accuracy": 0.8}, "last": {"test_accuracy": 0.8}}


def test_members_are_summarised_each_over_the_seeds():
    def with_member(run, accuracy):
        scores = {"test_accuracy": accuracy, "validation-mismatched_accuracy": 3.0}
        return {**run, "members": [{"name": "exit-1", **EXIT, "best": scores, "last": {"test_nll": 1.0}}]}

    one = row("byot", 0.5, 0.6)
    one["runs"] = [with_member(run, accuracy) for run, accuracy in zip(one["runs"], (0.2, 0.4), strict=True)]
    (exits,) = summarise(one, None, CLASSIFICATION)["members"]
    assert {key: exits[key] for key in EXIT} == EXIT
    assert exits["best"]["test_accuracy"]["mean"] == pytest.approx(0.3)
    assert exits["best"]["test_accuracy"]["n"] == 2
    assert list(exits["best"]) == ["test_accuracy", "validation-mismatched_accuracy"]
    assert exits["last"]["test_nll"]["mean"] == 1.0
