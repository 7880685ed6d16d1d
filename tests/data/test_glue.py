"""GLUE's data: the names, the metric of each, and MNLI's two validation splits."""

from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from tutelage.data.glue import GLUE, glue_task
from tutelage.data.names import parse_spec
from tutelage.data.sources import load_data
from tutelage.errors import Notice, UserError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "glue"


def write(folder, classes=("unacceptable", "acceptable"), splits=("train", "validation")):
    folder.mkdir()
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=list(classes)), "idx": Value("int32")})
    for split in splits:
        is_hidden = split.startswith("test")
        rows = range(60 if split == "train" else 6 + len(split))
        labels = [-1 if is_hidden else row % len(classes) for row in rows]
        columns = {"sentence": [f"{split} {row}" for row in rows], "label": labels, "idx": list(rows)}
        Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
    return str(folder)


def test_a_folder_of_glue_is_judged_as_glue_does(tmp_path):
    place = write(tmp_path / "cola")
    with pytest.warns(Notice, match=r"cola of GLUE is judged by mcc; --metric \(metric=\) names another"):
        data = load_data(place)
    assert data.task.primary == "mcc"
    assert load_data(place, metric="accuracy").task.primary == "accuracy"


def test_another_folder_of_that_name_is_not(tmp_path):
    assert load_data(write(tmp_path / "cola", classes=("pepsi", "coke"))).task.primary == "accuracy"
    assert load_data(write(tmp_path / "drinks")).task.primary == "accuracy"


def test_names_on_the_hub(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda place, *, cache_dir, **named: asked.append((place, named)) or {}
    )
    monkeypatch.chdir(tmp_path)
    from tutelage.data.hub import open_hub

    spec = parse_spec("glue/SST-2,tokens=64")
    assert (spec.hub, spec.name, spec.tokens, spec.folder) == ("nyu-mll/glue:sst2", "sst-2", 64, "nyu-mll/glue:sst2")
    open_hub(spec.hub)
    open_hub("owner/name")
    assert asked == [("nyu-mll/glue", {"name": "sst2"}), ("owner/name", {})]
    assert glue_task("nyu-mll/glue:mrpc", ("not_equivalent", "equivalent")) is GLUE["mrpc"]
    with pytest.raises(UserError, match="no task of GLUE named 'glue/colla'. Did you mean 'glue/cola'"):
        parse_spec("glue/colla")


def test_both_validation_splits_of_mnli_are_read_and_the_matched_one_chooses(tmp_path):
    splits = ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
    place = write(tmp_path / "mnli", ("entailment", "neutral", "contradiction"), splits)
    data = load_data(place)
    # Its test labels are hidden, so a test split is held out of the training texts.
    assert data.measured == ("validation", "validation-mismatched", "test")
    assert data.count("validation") == 6 + len("validation_matched")
    assert data.count("validation-mismatched") == 6 + len("validation_mismatched")
    assert data.task.primary == "accuracy"


def test_sentences_of_glue_themselves():
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not there")
    with pytest.warns(Notice, match="stsb of GLUE is judged by pearson"):
        data = load_data(str(SHARED / "stsb"), task="regression")
    assert data.task.watched[:2] == ("pearson", "spearman")
    assert [data.count(split) for split in ("train", "validation", "test")] == [5749, 1500, 1379]
