"""What cannot be recorded, or not into this folder, is refused with the reason, and nothing is written."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tutelage
from tutelage.core.teachers import BlackBoxTeacher, FrozenTeacher, NoisyTeacher
from tutelage.data.images import ResidentImages
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.models.normalization import Normalized
from tutelage.recording import layout, writing
from tutelage.recording.header import Header
from tutelage.recording.teacher import RecordedTeacher
from tutelage.system import files

ROWS = 25


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(layout, "rows_per_shard", lambda row_bytes: ROWS)


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=100, augment="crop:1,flip")


def network(seed=0, classes=10):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def record(folder, data, *, teacher=None, **options):
    settings = {"views": 2, "batch_size": 10, "device": "cpu", "progress": False}
    return tutelage.record(teacher or network(), data=data, out=folder, **settings | options)


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"teacher": network(1)}, "other weights of the teacher"),
        (
            {"teacher": Normalized(network(), (0.5,), (0.5,))},
            "another normalisation of the teacher's inputs",
        ),
        ({"data": {"augment": "flip"}}, "other view parameters: another augmentation (crop:1,flip there, flip here)"),
        ({"data": {"subset": 110}}, "another number of training samples (90 there, 99 here)"),
        ({"data": {"split_seed": 1}}, "other labels: the training samples are others"),
        ({"keep": "top5"}, "another choice of what to keep (full there, top5 here)"),
        ({"values": "float16"}, "another type of stored values"),
        ({"seed": 1}, "another seed (0 there, 1 here)"),
        ({"precision": "bf16-mixed"}, "another precision of the teacher"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_was_made_otherwise_is_refused_with_the_reason(changes, reason, data, tmp_path):
    record(tmp_path, data)
    before = contents(tmp_path)
    other = load_data("digits", **{"subset": 100, "augment": "crop:1,flip"} | changes.pop("data", {}))
    with pytest.raises(UserError) as error:
        record(tmp_path, other, **changes, views=3)
    assert reason in " ".join(str(error.value).split())
    assert contents(tmp_path) == before


@pytest.mark.parametrize("file", ["network.json", "student.safetensors", "model.pth"])
def test_a_folder_that_holds_a_network_does_not_hold_a_recording_as_well(file, data, tmp_path):
    (tmp_path / file).write_text("{}")
    with pytest.raises(UserError, match="holds a network.*choose another folder for the recording"):
        record(tmp_path, data)
    assert list(contents(tmp_path)) == [file]


def test_other_layers_are_refused(data, tmp_path):
    teacher = tutelage.load_network("tiny_cnn,width=4", num_classes=10, in_channels=1)
    record(tmp_path, data, teacher=teacher, layers=["layer2"])
    with pytest.raises(UserError, match="other layers"):
        record(tmp_path, data, teacher=teacher, layers=["layer1"])


def test_a_recording_that_another_process_began_meanwhile_is_not_mixed_in(data, tmp_path, monkeypatch):
    announce = writing._Writer.announce

    def and_then(*arguments):
        announce(*arguments)
        monkeypatch.undo()
        monkeypatch.setattr(layout, "rows_per_shard", lambda row_bytes: ROWS)
        record(tmp_path, data, seed=7)

    monkeypatch.setattr(writing._Writer, "announce", and_then)
    with pytest.raises(UserError, match="another seed"):
        record(tmp_path, data)


def test_of_two_recordings_that_begin_at_once_one_is_refused(data, tmp_path, monkeypatch):
    """The other header appears when this process has seen that there is none."""
    link = files.os.link

    def after_another(source, target):
        monkeypatch.setattr(files.os, "link", link)
        record(tmp_path, data, seed=7)
        link(source, target)

    monkeypatch.setattr(files.os, "link", after_another)
    with pytest.raises(UserError, match=r"another seed \(7 there, 0 here\)"):
        record(tmp_path, data)
    assert Header.read(tmp_path).seed == 7
    record(tmp_path, data, seed=7)


class Query:
    """A query that knows no classes' names: what it says turns with `turned`."""

    def __init__(self, turned=0):
        self.turned = turned

    def __call__(self, inputs):
        return network()(inputs).roll(self.turned, 1)


@pytest.mark.parametrize("views", [1, 2, 3])
def test_another_teacher_without_weights_is_refused_by_what_it_says(views, data, tmp_path):
    record(tmp_path, data, teacher=BlackBoxTeacher(Query()))
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds the recording of another teacher"):
        record(tmp_path, data, teacher=BlackBoxTeacher(Query(1)), views=views)
    assert contents(tmp_path) == before
    assert record(tmp_path, data, teacher=BlackBoxTeacher(Query()), views=3).views == 3


def test_another_teacher_is_refused_by_another_part(data, tmp_path):
    assert record(tmp_path, data, teacher=BlackBoxTeacher(Query()), part="1/2") is None
    with pytest.raises(UserError, match="holds the recording of another teacher"):
        record(tmp_path, data, teacher=BlackBoxTeacher(Query(1)), part="2/2")
    assert record(tmp_path, data, teacher=BlackBoxTeacher(Query()), part="2/2").views == 2


def test_a_teacher_that_answers_at_random_is_refused(data, tmp_path):
    with pytest.raises(UserError, match="different answers to the same question"):
        record(tmp_path / "new", data, teacher=NoisyTeacher(FrozenTeacher(network()), std=0.01))
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_noticed_and_nothing_is_written(data, tmp_path, monkeypatch):
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"needs 9\.4 kB, and its disk has 1\.0 kB left: free some space, .*--keep"):
        record(tmp_path / "new" / "deep", data)
    assert not (tmp_path / "new").exists()


def test_the_disk_must_have_room_for_what_all_parts_write(data, tmp_path, monkeypatch):
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda place: SimpleNamespace(free=6000))
    for part in ("1/2", "2/2"):
        with pytest.raises(UserError, match=r"needs 9\.4 kB, and its disk has 6\.0 kB left"):
            record(tmp_path / "new", data, part=part)
    record(tmp_path / "new", data, views=1)
    record(tmp_path / "new", data, views=2)


def test_views_that_would_all_be_the_same_are_refused(tmp_path):
    pairs, whole = TensorDataset(torch.rand(30, 1, 8, 8), torch.arange(30) % 10), {"validation": 0}
    with pytest.raises(UserError, match=r"all 2 would be the same\. Record one \(--views 1\), or augment"):
        record(tmp_path / "new", pairs, **whole)
    assert not (tmp_path / "new").exists()
    assert record(tmp_path / "one", pairs, views=None, **whole).views == 1
    assert record(tmp_path / "two", pairs, augment="crop:1", **whole).views == 2
    assert record(tmp_path / "usual", pairs, augment="crop:1", views=None, **whole).views == 8


def test_loaders_and_chance_in_transforms_are_refused(data, tmp_path):
    pairs = TensorDataset(torch.rand(30, 1, 8, 8), torch.arange(30) % 10)
    with pytest.raises(UserError, match="a DataLoader gives no positions: pass the dataset"):
        record(tmp_path, DataLoader(pairs, batch_size=10))

    class Drawing(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image + torch.rand(()), label

    with pytest.raises(UserError, match="differ each time they are read"):
        record(tmp_path, as_data(Drawing(*pairs.tensors), hold_out=0), views=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 0}, "views=0 must be above zero"),
        ({"keep": "top"}, "no scheme of what to keep named 'top'"),
        ({"keep": "top20"}, "keeps 20 classes, but there are 10"),
        ({"values": "float8"}, "no type of stored values named 'float8'"),
        ({"part": "3/2"}, "part=3/2 does not fit"),
        ({"lr": 0.1}, "no setting named 'lr'"),
        ({"batch_size": 0}, "batch_size=0 must be above zero"),
        ({"device": "gpu"}, "no device named 'gpu'"),
        ({"teacher": network(classes=3)}, "has 10 classes"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(options, message, data, tmp_path):
    with pytest.raises(UserError, match=message):
        record(tmp_path / "new", data, **options)
    assert not (tmp_path / "new").exists()


def test_a_recording_cannot_be_asked(data, tmp_path):
    recording = record(tmp_path / "one", data)
    for teacher in (recording, f"recording:{recording.folder}", RecordedTeacher(recording)):
        with pytest.raises(UserError, match="name the network"):
            record(tmp_path / "two", data, teacher=teacher)


def test_shards_without_their_header_are_not_taken_for_another_teachers(data, tmp_path):
    record(tmp_path, data, views=1)
    (tmp_path / "recording.json").unlink()
    before = contents(tmp_path)
    for teacher, views in ((network(), 1), (network(1), 2)):
        with pytest.raises(UserError, match="holds shards but no recording.json.*delete the folder"):
            record(tmp_path, data, teacher=teacher, views=views)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("task", "targets"), [("multi-label", torch.zeros(12, 2)), ("regression", torch.rand(12, 2))])
def test_answers_that_are_no_distribution_of_classes_are_recorded_whole(task, targets, tmp_path):
    images = torch.randint(256, (12, 1, 8, 8), dtype=torch.uint8)
    data = as_data(ResidentImages(images, targets), task=task, hold_out=0, num_classes=2)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    settings = {"data": data, "views": 1, "device": "cpu", "progress": False}
    with pytest.raises(UserError, match=r"keep=top1 .* one of several classes.*--keep full"):
        tutelage.record(teacher, out=tmp_path / "top", keep="top1", **settings)
    assert not (tmp_path / "top").exists()
    recording = tutelage.record(teacher, out=tmp_path / "full", keep="full", **settings)
    _, output = recording.read(torch.arange(12), torch.zeros(12, dtype=torch.int64))
    torch.testing.assert_close(output.logits, teacher(images / 255).detach(), rtol=1e-4, atol=1e-5)
