"""Commands in processes of their own: stopped by signals and full disks, and started again."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tutelage.cli.main import main

STUDENT = ["--student", "tiny_cnn,width=4"]
DATA = ["--data", "digits", "--subset", "200"]
SHORT = ["--epochs", "1", "--batch_size", "64"]
WORDS = [*STUDENT, *DATA, *SHORT]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


LIMITED = """
import resource, sys
from tutelage.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(main(sys.argv[1:]))
"""


def shell(*words, code="import sys; from tutelage.cli.main import main; sys.exit(main(sys.argv[1:]))", **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def test_files_that_outgrow_the_disk_for_real(tmp_path):
    pytest.importorskip("resource", reason="file size limits are a thing of POSIX")
    words = [
        "distill",
        "supervised",
        "--student",
        "resnet8",
        *DATA,
        *SHORT,
        "--out",
        "runs",
        "--checkpoint_seconds",
        "0",
    ]
    process = shell(*words, code=LIMITED)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert "could not be written: File too large" in errors
    assert "Traceback" not in errors
    assert {path.suffix for path in (tmp_path / "runs").rglob("*") if path.is_file()} <= {".json"}


STOPPABLE = ["distill", "tf-kd-reg", *STUDENT, *DATA, "--batch_size", "32", "--augment", "crop:1", "--epochs", "12"]
STOPPABLE += ["--precision", "32-true", "--log_every", "1"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    assert main([*STOPPABLE, "--out", str(folder)]) == 0
    return (folder / "student.safetensors").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_command_goes_on_where_it_was(number, code, straight, tmp_path, capfd):
    process = shell(*STOPPABLE, "--checkpoint_seconds", "0", "--out", "stopped")
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("stopped/**/checkpoint.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    if number != signal.SIGKILL:
        said = " ".join(errors.split())
        assert re.search(r"Stopped and saved to .*stopped.* Run the same command again to continue", said)
        assert "Traceback" not in errors
    assert main([*STOPPABLE, "--out", "stopped"]) == 0
    assert "Going on from epoch" in capfd.readouterr().out
    assert (tmp_path / "stopped" / "student.safetensors").read_bytes() == straight
