"""The commands that need no data, from the words that are typed to the files that are left."""

import json

import pytest
import torch

from tutelage.cli.main import main
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalization
from tutelage.models.saving import save_network


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    statistics = Normalization(mean=(0.3,), std=(0.2,))
    network = load_network("tiny_cnn", num_classes=10, in_channels=1, normalization=statistics)
    names = [str(number) for number in range(10)]
    save_network(
        tmp_path / "run", network, spec="tiny_cnn", num_classes=10, in_channels=1, class_names=names, input_size=(8, 8)
    )
    return str(tmp_path / "run")


def test_images_are_made_ranked_and_learned_from(run, tmp_path, capsys):
    made = str(tmp_path / "made")
    words = ["synthesize", "--teacher", run, "--out", made, "--per-class", "2", "--iterations", "3", "--copies", "1"]
    assert main([*words, "--snapshots", "2", "--weights", "smoothness=2"]) == 0
    assert f"--data {made}" in capsys.readouterr().out
    about = json.loads((tmp_path / "made" / "synthesis.json").read_text())
    assert about["settings"]["weights"] == {"class": 1, "smoothness": 2, "statistics": 1}
    assert (tmp_path / "made-at-2" / "data").is_dir()
    out = str(tmp_path / "near")
    words = ["similarity", "--teacher", run, "--data", "digits", made, "noise", "--batch-size", "20", "--images", "20"]
    assert main([*words, "--out", out]) == 0
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "near" / "similarity.json").read_text())["rows"]
    assert {row["name"] for row in rows} == {"digits", "made", "noise"}
    assert [row["divergence"] for row in rows] == sorted(row["divergence"] for row in rows)
    assert all(f"{row['divergence']:.4f}" in shown for row in rows)
    words = ["distill", "data-free", "--teacher", run, "--student", "tiny_cnn,width=4", "--data", made, "--epochs", "1"]
    words += ["--test-data", "digits", "--validation", "0", "--batch-size", "10", "--out", str(tmp_path / "student")]
    assert main(words) == 0
    content = json.loads((tmp_path / "student" / "comparison.json").read_text())
    assert content["data"]["splits"]["test"]["count"] == 599 if "splits" in content["data"] else True


def test_wrong_words_are_told(run, tmp_path, capsys):
    words = ["synthesize", "--teacher", run, "--out", str(tmp_path / "made")]
    for flags, told in (
        (["--snapshots", "a"], "--snapshots a must be whole numbers"),
        (["--weights", "class"], "write NAME=NUMBER"),
        (["--scheme", "inceptions"], "Did you mean 'inception'"),
    ):
        assert main([*words, *flags]) == 2
        assert told in capsys.readouterr().err.replace("\n", " ")
    assert main(["similarity", "--teacher", run, "--data"]) == 2
