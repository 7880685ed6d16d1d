"""`tutelage record`, as it is typed: help, errors, signals, parts, and a screen that says what it does."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tutelage.cli.main import main
from tutelage.recording.reading import Recording

DATA = ["--data", "digits", "--subset", "200"]
RECORD = ["record", "--teacher", "runs/teacher", *DATA, "--augment", "crop:1", "--precision", "32-true"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    words = ["distill", "supervised", "--student", "tiny_cnn,width=4", *DATA, "--epochs", "1", "--batch_size", "64"]
    assert main([*words, "--out", str(folder / "teacher")]) == 0
    return folder


@pytest.fixture(autouse=True)
def _beside_the_teacher(teacher, tmp_path, monkeypatch):
    (tmp_path / "runs").symlink_to(teacher)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def screen(capfd):
    def run(*words, code=0):
        capfd.readouterr()
        assert main(list(words)) == code
        found = capfd.readouterr()
        assert "Traceback" not in found.err
        return " ".join((found.err if code else found.out).split())

    return run


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_help_has_every_flag_and_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["record", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    flags = ["teacher", "data", "views", "keep", "out", "values", "layers", "part", "seed", "batch_size", "precision"]
    for flag in [*flags, "validation", "subset", "image_size", "augment", "channels_last", "compile", "workers"]:
        assert f"--{flag.replace('_', '-')}" in said
    assert "examples:" in said
    assert "--foreign" not in said


def test_the_overview_names_it(capsys):
    assert main([]) == 0
    assert re.search(r"record +Record a teacher's answers", capsys.readouterr().out)


def test_a_recording_from_end_to_end(screen, tmp_path):
    said = screen(*RECORD, "--views", "3", "--keep", "top5", "--values", "float16", "--out", "recorded")
    # 2 parameters of 4 bytes, 5 classes of 2, 5 probabilities of 2.
    assert "3 views of 180 samples, top5 in float16: 15.1 kB, 15.1 kB of it now" in said
    assert re.search(r"done recording [\d,]+ images/s", said)
    assert "recording recorded (3 views)" in said
    assert Recording("recorded").verify() == []
    again = screen(*RECORD, "--views", "3", "--keep", "top5", "--values", "float16", "--out", "recorded")
    assert "of it now" not in again
    grown = screen(*RECORD, "--views", "4", "--keep", "top5", "--values", "float16", "--out", "recorded")
    assert "4 views of 180 samples, top5 in float16: 20.2 kB, 5.0 kB of it now" in grown


def test_layers_and_ensembles(screen):
    screen(*RECORD, "--views", "1", "--layers", "layer1+layer2", "--out", "layers")
    assert list(Recording("layers").header.layers) == ["layer1", "layer2"]
    words = ["record", "--teacher", "runs/teacher", "runs/teacher", *DATA]
    screen(*words, "--views", "1", "--out", "ensemble")
    teacher = Path("runs/teacher").absolute()
    assert Recording("ensemble").header.teacher.source == f"{teacher} + {teacher}"


def test_parts_share_a_folder(screen, tmp_path):
    said = screen(*RECORD, "--views", "2", "--part", "1/2", "--out", "shared")
    assert "recording shared (1 view)" in said
    assert "recording shared (2 views)" in screen(*RECORD, "--views", "2", "--part", "2/2", "--out", "shared")
    screen(*RECORD, "--views", "2", "--out", "alone")
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_a_part_that_finishes_no_view_says_so(screen):
    said = screen(*RECORD, "--views", "1", "--part", "2/2", "--out", "shared")
    assert "no view is finished: other parts are still to be recorded" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["record", *DATA, "--out", "new"], "--teacher is missing"),
        (["record", "--teacher", "runs/teacher", *DATA], "--out is missing"),
        (["record", "--teacher", "runs/teacher", "--out", "new"], "--data is missing"),
        (["record", "--teacher", "tiny_cnn", *DATA, "--out", "new"], "Train it first"),
        (["record", "--teacher", "recording:runs/recording", *DATA, "--out", "new"], "There is no recording"),
        (["record", "--teacher", "runs/techer", *DATA, "--out", "new"], "runs/techer"),
        ([*RECORD, "--out", "new", "--view", "3"], "no flag named '--view'. Did you mean '--views'"),
        ([*RECORD, "--out", "new", "--keep", "tp5"], "no scheme of what to keep named 'tp5'. Did you mean 'top5'"),
        ([*RECORD, "--out", "new", "--values", "float64"], "it takes one of float32, float16"),
        ([*RECORD, "--out", "new", "--views", "none"], "it takes a whole number"),
        ([*RECORD, "--out", "new", "--part", "3/2"], "part=3/2 does not fit"),
        ([*RECORD, "--out", "new", "--layers", "layer9"], "no layer named 'layer9'"),
        ([*RECORD, "--out", "new", "--threads", "0"], "threads=0"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_what_is_mistyped_is_told(words, expected, screen, tmp_path):
    assert expected in screen(*words, code=2)
    assert not (tmp_path / "new").exists()


def test_another_recording_in_the_folder_is_refused(screen):
    screen(*RECORD, "--views", "1", "--out", "recorded")
    said = screen(*RECORD, "--views", "1", "--keep", "hard", "--out", "recorded", code=2)
    assert "another choice of what to keep (full there, hard here)" in said
    assert "choose another folder with --out" in said


def shell(*words):
    code = "import sys; from tutelage.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


LONG = [*RECORD, "--views", "16", "--batch_size", "2"]


@pytest.fixture(scope="module")
def straight(teacher):
    words = [word.replace("runs/teacher", str(teacher / "teacher")) for word in LONG]
    assert main([*words, "--out", str(teacher / "straight")]) == 0
    return contents(teacher / "straight")


def test_parts_that_run_at_the_same_time_write_what_one_would(straight, tmp_path):
    processes = [shell(*LONG, "--part", f"{number}/2", "--out", "shared") for number in (1, 2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    # The header says how the teacher was named.
    assert {**contents(tmp_path / "shared"), "recording.json": b""} == {**straight, "recording.json": b""}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_command_leaves_whole_shards_and_goes_on(number, code, straight, screen, tmp_path):
    process = shell(*LONG, "--out", "stopped")
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("stopped/view-0001/*.sha256")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    if number != signal.SIGKILL:
        stopped = re.search(r"Stopped\. (\d+) of 16 shards are written to stopped\. Run the same command", errors)
        assert "Traceback" not in errors
        assert stopped
        assert len(list(tmp_path.glob("stopped/*/*.npy"))) == int(stopped[1]) < 16
        assert not list(tmp_path.glob("stopped/**/.*"))
    screen(*LONG, "--out", "stopped")
    # What a killed process was writing lies there hidden; the header says how the teacher was named.
    left = {name: content for name, content in contents(tmp_path / "stopped").items() if "/." not in name}
    assert {**left, "recording.json": b""} == {**straight, "recording.json": b""}
