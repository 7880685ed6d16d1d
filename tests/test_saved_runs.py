"""Runs, recordings and networks that an earlier version saved are taken up as they are.

`fixtures/a6e12e9` was written by the commit of that name, by the commands in `MADE_BY`, in a folder `/saved`.
"""

import shlex
import shutil
from pathlib import Path

import pytest

import tutelage
from tutelage.cli.main import main

SAVED = Path(__file__).parent / "fixtures" / "a6e12e9"
COMMON = "--data digits --epochs 1 --batch_size 64 --threads 1 --device cpu"
MADE_BY = {
    "teacher": f"distill supervised --student tiny_cnn,width=6 {COMMON} --augment crop:1",
    "kd": f"distill kd --student tiny_cnn,width=3 --teacher runs/teacher {COMMON} --augment crop:1",
    "at": f"distill at --student tiny_cnn,width=3 --teacher runs/teacher {COMMON} --augment crop:1",
    "simkd": f"distill simkd --student tiny_cnn,width=3 --teacher runs/teacher {COMMON} --augment crop:1",
    "byot": f"distill byot --student resnet8,width=2 {COMMON} --augment crop:1",
    "tf": f"distill tf-kd-self --student tiny_cnn,width=3 {COMMON} --augment crop:1",
    "recorded": f"distill kd --student tiny_cnn,width=3 --teacher recording:runs/recording {COMMON}",
    "compare": f"compare supervised kd --student tiny_cnn,width=3 --teacher runs/teacher {COMMON} --augment crop:1"
    " --seeds 2",
}


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The working folder in which everything was saved, under `runs`."""
    shutil.copytree(SAVED, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.mark.parametrize("name", MADE_BY)
def test_the_same_command_finds_its_work_done(name, saved, monkeypatch):
    folder = saved / name
    before = {file: file.read_bytes() for file in sorted(folder.rglob("student.safetensors"))}
    results = {file: file.read_text() for file in sorted(folder.rglob("result.json"))}
    assert before
    assert results
    monkeypatch.setattr("tutelage.training.run.Driver", lambda *_, **__: pytest.fail("a finished stage trains again"))
    assert main([*shlex.split(MADE_BY[name]), "--out", f"runs/{name}"]) == 0
    assert {file: file.read_bytes() for file in sorted(folder.rglob("student.safetensors"))} == before
    assert {file: file.read_text() for file in sorted(folder.rglob("result.json"))} == results


@pytest.mark.parametrize("name", ["teacher", "kd", "simkd", "byot", "byot/members/exit-1", "recorded"])
def test_saved_networks_score_what_they_scored(name, saved):
    found = tutelage.evaluate(f"runs/{name}", data="digits")
    assert 0.05 < found.accuracy <= 1


def test_a_saved_recording_serves_another_student(saved):
    settings = {"data": "digits", "epochs": 1, "batch_size": 64, "progress": False, "device": "cpu"}
    student = tutelage.distill("kd", student="tiny_cnn,width=4", teacher="recording:runs/recording", **settings)
    assert student is not None
