"""A booby trap lies behind every way to load what a stranger may have saved: nothing that only a file names is run."""

import json
import pickle
import sys
from functools import partial

import numpy as np
import pytest
import torch

import tutelage
from tutelage.cli.main import main
from tutelage.errors import UserError
from tutelage.models.loading import load_network
from tutelage.models.saving import METADATA, save_network
from tutelage.models.weights import read_weights

QUICK = ["--data", "digits", "--subset", "120", "--epochs", "1", "--batch_size", "20", "--device", "cpu"]
SETTINGS = {"epochs": 1, "batch_size": 20, "device": "cpu", "progress": False}
SIZES = {"num_classes": 10, "in_channels": 1}
TRAP = """
import pathlib
pathlib.Path({marker!r}).touch()
from tutelage.models.zoo.tiny import tiny_cnn

def net(num_classes=10, in_channels=1):
    return tiny_cnn(num_classes, in_channels=in_channels, width=2)
"""
COMPOSED = ",layer=stages.2,classifier=classifier,channels=4,embedding=4,factor=2,size=(1, 1),relu=True,bias=True"


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """What the trap leaves behind when its code is run."""
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / "trap.py").write_text(TRAP.format(marker=str(marker)))
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/trap_module.py").write_text(TRAP.format(marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path / "beside")
    yield marker
    sys.modules.pop("trap_module", None)


def specs(tmp_path):
    """Return the names of code that a stranger may write into a file."""
    file = f"{tmp_path}/trap.py:net"
    return {
        "file": file,
        "relative": "trap.py:net",
        "module": "trap_module:net",
        "standard": "os:getcwd",
        "simkd": f"simkd,student='{file}'{COMPOSED}",
        "exit": f"exit,student='{file}',layer=stages.0,calls=1,layout=('map', 4, None),unused='',branch=residual,"
        "path=((4, 4, 4),),width=4,relu=True,separable=False",
        "within": f"""simkd,student="simkd,student='{file}'{COMPOSED}"{COMPOSED}""",
    }


KINDS = ["file", "relative", "module", "standard", "simkd", "exit", "within"]


def stranger(folder, spec):
    """Leave a saved network in a folder, which says that it is built by code."""
    network = load_network("tiny_cnn,width=2", **SIZES)
    save_network(folder, network, spec="tiny_cnn,width=2", **SIZES)
    content = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps(content | {"spec": spec}))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_network_runs_no_code(kind, marker, tmp_path):
    spec = specs(tmp_path)[kind]
    folder = str(stranger(tmp_path / "run", spec))
    with pytest.raises(UserError, match=r"Nothing was run\. If you trust it, add --trust-code") as refused:
        load_network(folder, **SIZES)
    shown = {"file": "trap.py:net", "relative": f"{tmp_path}/trap.py:net", "module": "trap_module:net"}
    assert shown.get(kind, "os:getcwd" if kind == "standard" else f"{tmp_path}/trap.py:net") in str(refused.value)
    assert str(tmp_path / "run" / METADATA) in str(refused.value)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["file", "relative", "module"])
def test_a_trusted_one_does_once_and_no_more(kind, marker, tmp_path):
    folder = str(stranger(tmp_path / "run", specs(tmp_path)[kind]))
    assert load_network(folder, trust_code=True, **SIZES) is not None
    assert marker.exists()
    with pytest.raises(UserError, match="Nothing was run"):
        load_network(folder, **SIZES)


def test_code_that_was_named_before_is_known_again(marker, tmp_path):
    folder = str(stranger(tmp_path / "run", "trap.py:net"))
    load_network("trap.py:net", **SIZES)
    assert load_network(folder, **SIZES) is not None
    # With other options it would be another call, which nobody made.
    stranger(tmp_path / "run", "trap.py:net,in_channels=2")
    with pytest.raises(UserError, match=r"trap\.py:net,in_channels=2"):
        load_network(folder, **SIZES)


WAYS = {
    "evaluate": ["evaluate", "RUN", "--data", "digits"],
    "evaluate an ensemble": ["evaluate", "GOOD", "RUN", "--data", "digits"],
    "evaluate a member": ["evaluate", "RUN/members/exit-1", "--data", "digits"],
    "distill from": ["distill", "kd", "--teacher", "RUN", "--student", "tiny_cnn,width=2", *QUICK],
    "distill from an ensemble": ["distill", "kd", "--teacher", "GOOD", "RUN", "--student", "tiny_cnn,width=2", *QUICK],
    "distill": ["distill", "supervised", "--student", "RUN", *QUICK],
    "retrain its architecture": ["distill", "re-kd", "--teacher", "RUN", "--student", "tiny_cnn,width=2", *QUICK],
    "compare": ["compare", "kd", "--teacher", "RUN", "--student", "tiny_cnn,width=2", "--seeds", "1", *QUICK],
    "doctor": ["doctor", "kd", "--teacher", "RUN", "--student", "tiny_cnn,width=2", *QUICK],
    "record": ["record", "--teacher", "RUN", "--data", "digits", "--out", "recording"],
}


@pytest.mark.parametrize("way", WAYS)
def test_commands_run_no_code(way, marker, tmp_path, capsys):
    run, good = stranger(tmp_path / "run", f"{tmp_path}/trap.py:net"), stranger(tmp_path / "good", "tiny_cnn,width=2")
    stranger(run / "members/exit-1", f"{tmp_path}/trap.py:net")
    words = [word.replace("RUN", str(run)).replace("GOOD", str(good)) for word in WAYS[way]]
    assert main(words) == 2
    assert f"{tmp_path}/trap.py:net" in capsys.readouterr().err.replace("\n", "")
    assert not marker.exists()
    assert main([*words, "--trust-code"]) == 0
    assert marker.exists()


CALLS = {
    "evaluate": lambda run, **trust: tutelage.evaluate(run, data="digits", **trust),
    "distill": lambda run, **trust: tutelage.distill(
        "kd", student="tiny_cnn,width=2", teacher=run, data="digits", **SETTINGS, **trust
    ),
    "distill_all": lambda run, **trust: tutelage.distill_all(
        "supervised", student=run, data="digits", **SETTINGS, **trust
    ),
    "compare": lambda run, **trust: tutelage.compare(
        ["kd"], student="tiny_cnn,width=2", teacher=[run, run], data="digits", seeds=1, **SETTINGS, **trust
    ),
    "record": lambda run, **trust: tutelage.record(
        run, data="digits", out="recording", views=1, progress=False, device="cpu", **trust
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_run_no_code(call, marker, tmp_path):
    run = str(stranger(tmp_path / "run", f"{tmp_path}/trap.py:net"))
    with pytest.raises(UserError, match="trust_code=True in Python"):
        CALLS[call](run)
    assert not marker.exists()
    CALLS[call](run, trust_code=True)
    assert marker.exists()


@pytest.mark.parametrize("source", ["code", "run"])
def test_a_recording_runs_no_code(source, marker, tmp_path, capsys):
    run = stranger(tmp_path / "run", "tiny_cnn,width=2")
    assert main(["record", "--teacher", str(run), "--data", "digits", "--subset", "120", "--out", "recording"]) == 0
    content = json.loads((run / METADATA).read_text()) | {"spec": f"{tmp_path}/trap.py:net"}
    (run / METADATA).write_text(json.dumps(content))
    header = json.loads((tmp_path / "recording/recording.json").read_text())
    header["teacher"]["source"] = str(run) if source == "run" else f"{tmp_path}/trap.py:net@{run}"
    (tmp_path / "recording/recording.json").write_text(json.dumps(header))
    words = ["--teacher", "recording:recording", "--student", "tiny_cnn,width=2", *QUICK]
    for command in ("doctor", "distill"):
        capsys.readouterr()
        assert main([command, "kd", *words]) == 0
        out = capsys.readouterr().out
        assert "was not checked" in " ".join(out.split())
        # A long path is broken at the end of a line.
        assert "trap.py:net" in "".join(out.split())
        assert not marker.exists()
    assert main(["doctor", "kd", *words, "--trust-code"]) == 0
    assert marker.exists()


PRESETS = {
    "student": "student: trap.py:net\nteacher: [tiny_cnn]\n",
    "teacher": "student: tiny_cnn\nteacher: [tiny_cnn, trap.py:net]\n",
    "within": f"student: simkd,student='trap.py:net'{COMPOSED}\n",
    "module": "student: trap_module:net\n",
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs_no_code(name, marker, tmp_path, capsys):
    (tmp_path / "theirs.yaml").write_text(PRESETS[name])
    words = ["distill", "kd", "--preset", "theirs.yaml", *QUICK]
    assert main(words) == 2
    assert "trap" in capsys.readouterr().err
    assert not marker.exists()
    (tmp_path / "theirs.yaml").write_text(PRESETS[name] + "trust_code: true\n")
    assert main(words) == 2
    assert not marker.exists()
    assert main([*words, "--trust-code=false"]) == 2
    assert not marker.exists()


@pytest.mark.parametrize("method", ["trap_module:net", "(fickle-teacher:method=(trap_module:net))"])
def test_a_preset_imports_no_method(method, marker, tmp_path, capsys):
    (tmp_path / "theirs.yaml").write_text(f"method: {method}\n")
    words = ["distill", "soft-randomization", "--preset", "theirs.yaml", "--student", "tiny_cnn", *QUICK]
    assert main(words) == 2
    assert "names code that would run: trap_module:net" in capsys.readouterr().err.replace("\n", "")
    assert not marker.exists()


def test_a_preset_whose_code_the_user_types_as_well_is_taken(marker, tmp_path):
    (tmp_path / "mine.yaml").write_text("student: trap.py:net\n")
    words = ["distill", "supervised", "--preset", "mine.yaml", *QUICK]
    assert main([*words, "--student", "trap.py:net"]) == 0
    assert marker.exists()


def test_a_report_runs_no_code(marker, tmp_path):
    good = stranger(tmp_path / "good", "tiny_cnn,width=2")
    kd = ["compare", "kd", "--teacher", str(good), "--student", "tiny_cnn,width=2", "--seeds", "1", *QUICK]
    assert main([*kd, "--out", "runs"]) == 0
    file = tmp_path / "runs/comparison.json"
    content = json.loads(file.read_text())
    for code in specs(tmp_path).values():
        content["student"]["spec"] = content["teacher"]["spec"] = content["rows"][0]["network"] = code
        content["rows"][0]["method"] = content["rows"][0]["label"] = "trap_module:net"
        file.write_text(json.dumps(content))
        assert main(["report", "runs"]) == 0
    assert not marker.exists()


class Bomb:
    """Unpickling it runs code."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


def test_pickles_are_not_run(marker, tmp_path):
    bomb = Bomb(marker)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "epoch": bomb}, tmp_path / "w.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": bomb}))
    torch.save({"artefact": bomb}, tmp_path / "artefact.pt")
    np.save(tmp_path / "rows.npy", np.array([bomb], dtype=object))
    from tutelage.training import checkpoint

    for load in (
        partial(read_weights, tmp_path / "w.pth"),
        partial(read_weights, tmp_path / "old.pth"),
        partial(checkpoint.load, tmp_path / "artefact.pt"),
        partial(read_weights, tmp_path / "rows.npy"),
    ):
        with pytest.raises(UserError):
            load()
    assert not marker.exists()


def test_a_spec_that_names_its_own_folder_ends(tmp_path):
    folder = stranger(tmp_path / "run", str(tmp_path / "run"))
    with pytest.raises(UserError, match="names a saved network, not an architecture"):
        load_network(str(folder), **SIZES)
