"""Whatever goes wrong at the command line ends in one clear screen that names the fix."""

import os
import pickle

import pytest
import torch
from PIL import Image

from tutelage.cli.main import main
from tutelage.models.loading import load_network
from tutelage.models.saving import save_network

STUDENT = ["--student", "tiny_cnn,width=4"]
DATA = ["--data", "digits", "--subset", "200"]
SHORT = ["--epochs", "1", "--batch_size", "64"]
WORDS = [*STUDENT, *DATA, *SHORT]


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def screen(capfd):
    def run(*words, code=2):
        capfd.readouterr()
        assert main(list(words)) == code
        found = capfd.readouterr().err
        assert "Traceback" not in found
        assert found.startswith("error: ")
        return " ".join(found.split())

    return run


def photos(root, *, size=(8, 8), each=12):
    for name in ("cat", "dog"):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(each):
            image = Image.new("RGB", size, (number * 9, 0, 0))
            image.putpixel((0, 0), (0, 200, 0))
            image.save(folder / f"{number}.png")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["distil"], "no command named 'distil'. Did you mean 'distill'"),
        (["distill"], "Name a method first"),
        (["distill", "kdd", *WORDS], "no method named 'kdd'. Did you mean 'kd'"),
        (["distill", "kd", "--temprature", "3", *WORDS], "no flag named '--temprature'. Did you mean '--temperature'"),
        (["distill", "kd", *WORDS], "needs a teacher: pass --teacher"),
        (["distill", "kd", "--teacher", "tiny_cnn", "--ensemble", "0", *WORDS], "ensemble=0 must be 1 or more"),
        (["distill", "kd", "--teacher", "tiny_cnn", "--teachers", "surest", *WORDS], "name two or more"),
        (
            ["distill", "kd", "--teacher", "a", "b", "--teachers", "weighted", "--teacher-weights", "2", "x", *WORDS],
            "--teacher-weights 2 x must be numbers",
        ),
        (["distill", "kd", "--teacher", "a", "b", "--teacher-weights", "2", *WORDS], "are for teachers=weighted"),
        (["distill", "supervised", *STUDENT], "--data is missing"),
        (["distill", "supervised", *DATA], "--student is missing"),
        (
            ["distill", "supervised", "--student", "tiny_cn", *DATA],
            "no network named 'tiny_cn'. Did you mean 'tiny_cnn'",
        ),
        (["distill", "supervised", *STUDENT, "--data", "digit"], "no data at 'digit'. Did you mean 'digits'?"),
        (["distill", "supervised", *WORDS, "--epochs", "-1"], "epochs=-1 must be above zero"),
        (["distill", "supervised", *WORDS, "--epochs", "two"], "--epochs two does not fit: it takes a whole number"),
        (["distill", "supervised", *WORDS, "--validation", "2"], "validation is 2: give the share"),
        (["distill", "supervised", *STUDENT, "--data", "digits", "--subset", "few"], "a whole number or none"),
        (
            ["compare", "supervised", "tf-kd-reg:alpha=3", *WORDS],
            "tf-kd-reg:alpha=3.0: alpha=3.0 must be between 0 and 1",
        ),
        (
            ["compare", "kd:alpha=3", "--teacher", "tiny_cnn", *WORDS],
            "kd:alpha=3.0: alpha=3.0 must be between 0 and 1",
        ),
        (["distill", "supervised", *WORDS, "--lr", "fast"], "--lr fast does not fit: it takes a number"),
        (["distill", "supervised", *WORDS, "--optimizer", "adam"], "it takes one of sgd, adamw"),
        (["distill", "supervised", *WORDS, "--momentum", "-1"], "momentum=-1.0 must be zero or above"),
        (["distill", "supervised", *WORDS, "--device", "gpu"], "no device named 'gpu'. Did you mean 'cpu'"),
        (
            ["distill", "supervised", *WORDS, "--preset", "tf-kd-ref"],
            "no preset named 'tf-kd-ref'. Did you mean 'tf-kd-reg'",
        ),
        (["distill", "tf-kd-reg", "--alpha", "3", *WORDS], "alpha=3.0 must be between 0 and 1"),
        (
            ["compare", "supervised", "kd:temprature=3", *WORDS],
            "no option of kd named 'temprature'. Did you mean 'temperature'",
        ),
        (
            ["compare", "supervised", "kd:alpha=x", *WORDS],
            "An option of kd does not fit: alpha=x, which takes a number.",
        ),
        (["compare", "supervised", "--seeds", "0", *WORDS], "needs at least one seed"),
        (["compare", *WORDS], "name at least one method"),
        (["compare", "supervised", "--baseline", "kd", *WORDS], "no row named 'kd'"),
        (["demo", "--seeds", "0"], "needs at least one seed"),
        (["report", "nowhere"], "no comparison at nowhere"),
        (["evaluate", "tiny_cnn", *DATA], "comes without weights"),
        (["cite", "kdd"], "no method named 'kdd'"),
        (["doctor", "kd", *STUDENT, *DATA], "needs a teacher"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistyped_words_name_what_was_meant(words, expected, screen, tmp_path):
    assert expected in screen(*words)
    assert not list(tmp_path.rglob("*.pt")), "nothing was trained"
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: [1\n", "is not YAML"),
        (b"training:\n  lr: 1\n", "must be flat"),
        (b"- lr\n", "must be flat"),
        (b"epochz: 3\n", "no flag (in the preset my.yaml) named '--epochz'. Did you mean '--epochs'"),
        (b"\xff\xfe\x80", "is not YAML"),
        (b"epochs: many\n", "--epochs many does not fit"),
    ],
)
def test_malformed_preset(content, expected, screen, tmp_path):
    (tmp_path / "my.yaml").write_bytes(content)
    assert expected in screen("distill", "supervised", "--preset", "my.yaml", *WORDS)


def test_unreadable_image_is_named(screen, tmp_path):
    photos(tmp_path / "photos")
    (tmp_path / "photos" / "dog" / "3.png").write_bytes(b"no image")
    found = screen("distill", "supervised", *STUDENT, "--data", "photos", *SHORT)
    assert "dog/3.png (row 17 of split 'train') is not an image" in found
    assert "replace it or remove it" in found


def test_a_class_that_training_lacks_is_named(screen, tmp_path):
    photos(tmp_path / "photos" / "train")
    photos(tmp_path / "photos" / "test")
    (tmp_path / "photos" / "test" / "dog").rename(tmp_path / "photos" / "test" / "cow")
    found = screen("distill", "supervised", *STUDENT, "--data", "photos", *SHORT)
    assert "photos/test has the class folder 'cow'" in found


def test_empty_dataset(screen, tmp_path):
    (tmp_path / "photos").mkdir()
    assert "No images found" in screen("distill", "supervised", *STUDENT, "--data", "photos", *SHORT)


def test_teacher_with_another_number_of_classes(screen, tmp_path):
    network = load_network("tiny_cnn", num_classes=7, in_channels=1)
    save_network(tmp_path / "run", network, spec="tiny_cnn", num_classes=7, in_channels=1)
    found = screen("distill", "kd", "--teacher", "run", *WORDS)
    assert "shape (2, 7), but digits has 10 classes" in found
    assert "--teacher-classes FILE" in found
    torch.save(network.model.state_dict(), tmp_path / "seven.pth")
    found = screen("distill", "kd", "--teacher", "tiny_cnn@seven.pth", *WORDS)
    assert "the checkpoint has 7 classes, the data 10" in found


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_malicious_weights_are_refused_and_never_executed(writer, screen, tmp_path):
    content, file, trap = {"weight": Malicious(tmp_path / "executed")}, tmp_path / "weights.pth", tmp_path / "executed"
    if writer == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file)
    found = screen("distill", "kd", "--teacher", "tiny_cnn@weights.pth", *WORDS)
    assert "pickled Python objects" in found
    assert "weights_only" not in found, "PyTorch's advice to switch the protection off is not repeated"
    assert not trap.exists()
    pickle.loads(pickle.dumps(content))
    assert trap.exists(), "the trap works, so it was not sprung"


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_damaged_weights(name, screen, tmp_path):
    (tmp_path / name).write_bytes(b"\0" * 20)
    assert "weights" in screen("distill", "kd", "--teacher", f"tiny_cnn@{name}", *WORDS)


def test_malicious_checkpoint_is_refused_and_never_executed(screen, tmp_path):
    words = ["distill", "supervised", *WORDS, "--out", "runs"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tutelage.training.run.Run._finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(words) == 130
    stage = next((tmp_path / "runs").rglob("fingerprint.json")).parent
    torch.save({"method": Malicious(tmp_path / "executed")}, stage / "checkpoint.pt")
    found = screen(*words)
    assert "checkpoint.pt is damaged, or was not written by Tutelage" in found
    assert "Delete it" in found
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content", [b'{"rows": [', b"[]", b'{"rows": [{"label": 3, "runs": 7}]}', b"\xff\xfe\x80", b""]
)
def test_damaged_comparison(content, screen, tmp_path):
    (tmp_path / "comparison.json").write_bytes(content)
    assert "omparison" in screen("report", ".")
    assert not (tmp_path / "report.html").exists()


def test_nan_loss_names_the_remedies(screen):
    found = screen("distill", "supervised", *WORDS, "--lr", "1e9", "--epochs", "3", "--warmup_epochs", "0")
    for remedy in ("--lr", "--clip-norm 1", "--precision 32-true"):
        assert remedy in found


@pytest.mark.parametrize("place", ["file/runs", "/proc/runs"])
def test_folder_that_cannot_be_written(place, screen, tmp_path):
    (tmp_path / "file").write_text("")
    found = screen("distill", "supervised", *WORDS, "--out", place)
    assert "could not be written" in found
    assert "--out" in found


def test_full_disk_while_saving_a_checkpoint_leaves_what_was_there(screen, tmp_path, monkeypatch):
    words = ["distill", "supervised", *WORDS, "--epochs", "2", "--out", "runs"]

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        found = screen(*words, "--checkpoint_seconds", "0")
    assert "No space left on device. Free some space or choose another folder with --out" in found
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert main(words) == 0, "with space again, the same command goes on"
