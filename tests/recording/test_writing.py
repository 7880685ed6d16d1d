"""Recordings are what a plain loop over samples and views would write, however often they were stopped and shared."""

import signal
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.data import images as images_module
from tutelage.data.augment import Augmentation
from tutelage.data.images import as_inputs
from tutelage.data.plan import RECORDED
from tutelage.data.resolve import resolve_data
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.recording import layout, shards, writing
from tutelage.recording.header import Header
from tutelage.recording.identity import TeacherIdentity
from tutelage.recording.planning import Unit
from tutelage.system.chance import generator
from tutelage.system.interrupt import Interrupted

ROWS, BATCH = 25, 10


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(layout, "rows_per_shard", lambda row_bytes: ROWS)


@pytest.fixture(scope="module")
def data():
    return load_data("digits", subset=100, augment="crop:1,flip")


class Exact(nn.Module):
    """Answers that no order of summation changes: sums of whole numbers, in float64."""

    def __init__(self, seed=0, classes=10):
        super().__init__()
        weight = torch.randint(-8, 9, (64, classes), generator=torch.Generator().manual_seed(seed))
        self.register_buffer("weight", weight.double())

    def forward(self, inputs):
        return ((inputs.flatten(1).double() * 255).round() @ self.weight / 1024).float()


def record(folder, data, *, teacher=None, **options):
    settings = {"keep": "full", "views": 2, "batch_size": BATCH, "device": "cpu", "progress": False}
    return tutelage.record(teacher or Exact(), data=data, out=folder, **settings | options)


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def rows_of(recording, view):
    header = recording.header
    return np.concatenate([shards.opened(recording.folder, header, view, shard) for shard in range(header.shards)])


def test_the_rows_are_those_of_a_plain_loop(data, tmp_path):
    recording = record(tmp_path, data, views=3)
    augmentation, teacher = Augmentation.parse("crop:1,flip"), Exact()
    assert (recording.header.samples, recording.header.shards) == (90, 4)
    for view in range(3):
        rows = rows_of(recording, view)
        for sample in range(90):
            shard, place = divmod(sample, ROWS)
            chance = generator(0, RECORDED, view, shard)
            drawn = augmentation.sample(chance, min(ROWS, 90 - shard * ROWS), (8, 8))[place : place + 1]
            pixels = augmentation.apply(data.train.images[sample : sample + 1], drawn)
            np.testing.assert_array_equal(rows["parameters"][sample], drawn[0].numpy())
            np.testing.assert_array_equal(rows["logits"][sample], teacher(as_inputs(pixels))[0].numpy())
    assert not np.array_equal(rows_of(recording, 0)["parameters"], rows_of(recording, 1)["parameters"])


def test_replayed_pixels_are_those_that_the_teacher_saw(data, tmp_path):
    """What a loader makes of the recorded parameters, asked again, gives the recorded answer, bit for bit."""
    recording = record(tmp_path, data, views=2)
    loader = replace(data, recording=recording).loader("train", batch_size=16, train=True)
    seen = 0
    for epoch in range(2):
        for batch in loader.epoch(epoch):
            assert torch.equal(Exact()(batch.inputs), batch.teacher.logits)
            seen += len(batch)
    assert seen == 2 * 90


def test_a_real_network_is_recorded_as_it_answers(data, tmp_path):
    teacher = tutelage.load_network("tiny_cnn,width=4", num_classes=10, in_channels=1)
    recording = record(tmp_path, data, teacher=teacher, layers=["layer2", "embedding"], views=1)
    parameters, output = recording.read(torch.arange(90), torch.zeros(90, dtype=torch.int64))
    inputs = as_inputs(data.augmentation.apply(data.train.images, parameters))
    extractor = tutelage.FeatureExtractor(teacher.eval(), ["layer2", "embedding"], example=data.example(2))
    with torch.no_grad():
        expected = extractor(inputs)
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-4, atol=1e-5)
    for layer in ("layer2", "embedding"):
        torch.testing.assert_close(output.features[layer], expected.features[layer], rtol=1e-4, atol=1e-5)


def test_a_compiled_teacher_says_the_same_and_is_compiled_for_whole_batches(data, tmp_path, monkeypatch):
    teacher = tutelage.load_network("tiny_cnn,width=4", num_classes=10, in_channels=1)
    plain = record(tmp_path / "plain", data, teacher=teacher, views=1, compile="off")
    whole, compile = [], tutelage.FeatureExtractor.compile
    monkeypatch.setattr(
        tutelage.FeatureExtractor, "compile", lambda self, **sizes: whole.append(sizes) or compile(self, **sizes)
    )
    compiled = record(tmp_path / "compiled", data, teacher=teacher, views=1, compile="on")
    # Not for the two samples and the sixteen that it is asked about before, nor for a shard's last batch.
    assert whole == [{"whole": (BATCH,)}]
    every = torch.arange(90), torch.zeros(90, dtype=torch.int64)
    torch.testing.assert_close(compiled.read(*every)[1].logits, plain.read(*every)[1].logits, rtol=1e-4, atol=1e-5)


def test_memory_is_kept_unless_that_is_turned_off(data, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(writing, "kept_memory", lambda wanted: asked.append(wanted) or nullcontext())
    monkeypatch.setattr("tutelage.training.decisions.can_keep_memory", lambda: True)
    for number, settings in enumerate(({}, {"keep_memory": "off"})):
        record(tmp_path / str(number), data, views=1, **settings)
    assert asked == [True, False]


@pytest.mark.parametrize("keep", ["hard", "smoothed", "top3", "top3-renormalized"])
@pytest.mark.parametrize("values", ["float32", "float16"])
def test_schemes_keep_what_the_header_says(keep, values, data, tmp_path):
    recording = record(tmp_path, data, keep=keep, values=values, views=1)
    whole = record(tmp_path / "full", data, views=1)
    every = torch.arange(90), torch.zeros(90, dtype=torch.int64)
    assert recording.header.keep == keep
    assert torch.equal(recording.read(*every)[1].logits.argmax(1), whole.read(*every)[1].logits.argmax(1))
    assert torch.equal(recording.read(*every)[0], whole.read(*every)[0])


def test_no_augmentation_is_a_view_too(tmp_path):
    plain = load_data("digits", subset=100, augment="none")
    recording = record(tmp_path, plain, views=1)
    parameters, output = recording.read(torch.arange(90), torch.zeros(90, dtype=torch.int64))
    assert parameters.shape == (90, 0)
    assert torch.equal(output.logits, Exact()(as_inputs(plain.train.images)))


class Stopping(tutelage.Teacher):
    """Answers as `Exact`, and is interrupted at a batch."""

    def __init__(self, at, number=signal.SIGINT):
        super().__init__()
        self.exact, self.left, self.number = Exact(), at, number

    def forward(self, batch):
        # Before the work begins, it is asked about two samples, and about sixteen.
        works = 2 < len(batch) <= BATCH
        self.left -= works
        if self.left == 0 and works:
            signal.raise_signal(self.number)
        return tutelage.Output(logits=self.exact(batch.inputs))


@pytest.fixture
def as_exact(monkeypatch):
    """Lets a teacher that stops pass for the one that does not."""
    identity = TeacherIdentity(name="t", source="t", weights="1", normalization="")
    monkeypatch.setattr(TeacherIdentity, "of", lambda *_, **__: identity)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 2, 4, 13, 17])
def test_stopped_and_resumed_is_uninterrupted_byte_for_byte(at, number, data, tmp_path, as_exact):
    record(tmp_path / "straight", data)
    straight = contents(tmp_path / "straight")
    # 4 shards of 3, 3, 3 and 2 batches, for each of two views.
    complete = [3, 6, 9, 11, 14, 17, 20, 22]
    written = sum(end < at for end in complete)
    with pytest.raises(Interrupted, match=rf"Stopped\. {written} of 8 shards are written to .*same command") as stop:
        record(tmp_path / "stopped", data, teacher=Stopping(at, number))
    assert stop.value.signal == number
    left = contents(tmp_path / "stopped")
    assert len(left) == 1 + 2 * written
    assert left.items() <= straight.items()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "stopped").rglob("*.npy")}
    record(tmp_path / "stopped", data)
    assert contents(tmp_path / "stopped") == straight
    assert all(file.stat().st_mtime_ns == moment for file, moment in before.items())


def test_two_parts_are_one(data, tmp_path):
    record(tmp_path / "one", data, views=3)
    # The first part cannot finish a view: the second has every other shard.
    assert record(tmp_path / "two", data, views=3, part="1/2") is None
    recording = record(tmp_path / "two", data, views=3, part="2/2")
    assert recording.views == 3
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_part_tells_what_is_damaged(data, tmp_path, monkeypatch):
    record(tmp_path, data, views=1, part="1/2")
    write = writing._Writer.write

    def and_then(*arguments, **others):
        write(*arguments, **others)
        (tmp_path / "recording.json").write_text("{")

    monkeypatch.setattr(writing._Writer, "write", and_then)
    with pytest.raises(UserError, match=r"recording\.json is damaged"):
        record(tmp_path, data, views=1, part="2/2")


def test_more_views_are_added_and_leave_the_old_ones(data, tmp_path):
    record(tmp_path / "grown", data, views=2)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "grown").rglob("*") if file.is_file()}
    assert record(tmp_path / "grown", data, views=5).views == 5
    assert all(file.stat().st_mtime_ns == moment for file, moment in before.items())
    record(tmp_path / "once", data, views=5)
    assert contents(tmp_path / "grown") == contents(tmp_path / "once")


def test_a_recording_keeps_the_rows_of_its_shards(data, tmp_path, monkeypatch):
    record(tmp_path, data, views=1)
    monkeypatch.setattr(layout, "rows_per_shard", lambda row_bytes: 7)
    assert record(tmp_path, data, views=2).views == 2
    assert len({file.stat().st_size for file in tmp_path.glob("*/shard-0000.npy")}) == 1


def test_fewer_views_than_there_are_leave_all(data, tmp_path):
    record(tmp_path, data, views=3)
    before = contents(tmp_path)
    assert record(tmp_path, data, views=1).views == 3
    assert contents(tmp_path) == before


@pytest.mark.parametrize("harm", ["bit", "cut", "gone", "checksum"])
def test_damage_is_named_and_mended(harm, data, tmp_path, capsys):
    record(tmp_path, data)
    whole = contents(tmp_path)
    file = layout.shard_path(tmp_path, 1, 2)
    if harm == "bit":
        file.write_bytes(file.read_bytes()[:-1] + b"\x99")
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif harm == "gone":
        file.unlink()
    else:
        layout.checksum_path(file).write_text("")
    record(tmp_path, data, progress=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "view-0001/shard-0002.npy is written again" in said
    assert said.count("written again") == 1
    assert contents(tmp_path) == whole
    record(tmp_path, data, progress=True)
    assert "written again" not in capsys.readouterr().out


def test_layers_in_another_order_are_the_same_rows(data, tmp_path):
    teacher = tutelage.load_network("tiny_cnn,width=4", num_classes=10, in_channels=1)
    one = record(tmp_path / "one", data, teacher=teacher, layers=["embedding", "layer1"], views=1)
    before = contents(tmp_path / "one")
    record(tmp_path / "one", data, teacher=teacher, layers=["layer1", "embedding"], views=1)
    assert contents(tmp_path / "one") == before
    assert list(one.header.layers) == ["layer1", "embedding"]
    assert set(one.header.stages) > {"layer1"}


def test_what_is_damaged_is_mended_although_it_cannot_be_compared(data, tmp_path):
    record(tmp_path, data, views=1)
    whole = contents(tmp_path)
    for shard in range(4):
        layout.shard_path(tmp_path, 0, shard).write_bytes(b"")
    record(tmp_path, data, views=1)
    assert contents(tmp_path) == whole


def test_what_is_there_needs_no_room(data, tmp_path, monkeypatch):
    record(tmp_path, data)
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda place: SimpleNamespace(free=0))
    record(tmp_path, data)


def test_sizes_and_decisions_are_told_before(data, tmp_path, capsys):
    record(tmp_path, data, progress=True)
    said = capsys.readouterr().out
    # 3 parameters and 10 logits of 4 bytes.
    assert "2 views of 90 samples, full in float32: 9.4 kB, 9.4 kB of it now" in said
    assert "channels-last" in said
    assert "images/s" in said
    record(tmp_path, data, progress=True, views=3)
    assert "3 views of 90 samples, full in float32: 14.0 kB, 4.7 kB of it now" in capsys.readouterr().out


def test_a_users_own_dataset_is_recorded_by_position(tmp_path):
    pairs = TensorDataset(torch.randint(0, 256, (60, 1, 8, 8)).to(torch.uint8), torch.arange(60) % 10)
    data = resolve_data(pairs, validation=0.5)
    recording = record(tmp_path, data, views=1)
    _, output = recording.read(torch.arange(30), torch.zeros(30, dtype=torch.int64))
    kept = torch.stack([data.train[index][0] for index in range(30)])
    assert torch.equal(output.logits, Exact()(kept))


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_images_are_decoded_once_for_all_views_of_a_group(workers, tmp_path, monkeypatch):
    for name, start in (("cat", 0), ("dog", 100)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            colour = (start + number, 3 * number, 7)
            image = Image.new("RGB", (9, 8), colour)
            image.putpixel((0, 0), (255, 255, 255))
            image.save(tmp_path / "photos" / name / f"{number}.png")
    data = load_data(str(tmp_path / "photos"), image_size=8, validation=0, resident_limit_mib=0, augment="crop:1,flip")
    decoded, samples = [], data.count("train")
    read_image = images_module.read_image

    def counting(cell, where):
        decoded.append(where)
        return read_image(cell, where)

    monkeypatch.setattr(images_module, "read_image", counting)

    class Mean(nn.Module):
        def forward(self, inputs):
            return (inputs * 255).round().double().sum((2, 3))[:, :2].float()

    monkeypatch.setattr(writing, "_VIEWS_AT_ONCE", 2)
    recording = record(tmp_path / "r", data, teacher=Mean(), views=3, workers=workers)
    if not workers:
        # Two groups, of two views and of one. Beside them the header looks at all of so few images twice, the checks of
        # the teacher five times at two and twice at sixteen, and what it costs is seen on one.
        assert len(decoded) == 2 * samples + 2 * samples + 5 * 2 + 2 * 16 + 1
    parameters, output = recording.read(torch.arange(samples), torch.full((samples,), 2))
    pixels, _ = data.train.read_batch(range(samples))
    assert torch.equal(output.logits, Mean()(as_inputs(data.augmentation.apply(pixels, parameters))))


def test_groups_and_batches_of_other_sizes_write_the_same(data, tmp_path, monkeypatch):
    record(tmp_path / "one", data, views=3)
    monkeypatch.setattr(
        writing, "units", lambda shards, *, views, at_once, part: [Unit(shard, (0, 1, 2)) for shard in range(shards)]
    )
    record(tmp_path / "other", data, views=3, batch_size=7)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_the_header_is_all_that_a_reader_needs(data, tmp_path):
    record(tmp_path, data, keep="top5")
    header = Header.read(tmp_path)
    assert (header.keep, header.samples, header.seed, header.precision) == ("top5", 90, 0, "32-true")
    assert (header.augmentation, header.parameters, header.image_size) == ("crop:1,flip", 3, (8, 8))
    assert header.data.name == data.name
    assert header.teacher.name == "Exact"
