import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tutelage.data.plan import Plan
from tutelage.data.samplers import ShuffledBatches
from tutelage.errors import UserError
from tutelage.recording import reading, shards
from tutelage.recording.layout import checksum_path, shard_path
from tutelage.recording.reading import Recording
from tutelage.testing.toys import toy_header

HEADER = toy_header(keep="full", classes=4, layers={"layer1": (3, 2, 2), "embedding": (6,)})


def answer(view, sample):
    """What the teacher says, made so that each value tells where it stands."""
    return torch.tensor([view, sample, 100 * view + sample, -1.0])


def record(folder, views=3, header=HEADER, unfinished=()):
    header.write(folder)
    for view in range(views):
        for shard in range(header.shards):
            if (view, shard) in unfinished:
                continue
            with shards.writing(folder, header, view, shard) as rows:
                for place, sample in enumerate(header.rows(shard)):
                    row = rows[place : place + 1]
                    row["parameters"] = (view, sample)
                    header.quantization.fill(row, answer(view, sample)[None], values=header.values)
                    for layer, shape in header.layers.items():
                        row[f"feature:{layer}"] = np.full(shape, 1000 * view + sample)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return record(tmp_path_factory.mktemp("recording"))


def read_one(recording, sample, view):
    return recording.read(torch.tensor([sample]), torch.tensor([view]))


def test_each_row_is_that_of_its_sample_and_view(folder):
    recording = Recording(folder)
    indices, views = torch.randint(0, 50, (64,)), torch.randint(0, 3, (64,))
    parameters, output = recording.read(indices, views)
    assert parameters.dtype == output.logits.dtype == torch.float32
    assert parameters.tolist() == [[view, sample] for view, sample in zip(views.tolist(), indices.tolist())]
    expected = torch.stack([answer(view, sample) for view, sample in zip(views.tolist(), indices.tolist())])
    assert output.logits.equal(expected)
    assert {layer: feature.shape[1:] for layer, feature in output.features.items()} == HEADER.layers
    for feature in output.features.values():
        assert feature.dtype == torch.float32
        assert feature.flatten(1).eq((1000 * views + indices)[:, None]).all()


def test_rows_of_one_shard_keep_their_order_and_may_repeat(folder):
    parameters, _ = Recording(folder).read(torch.tensor([7, 3, 7]), torch.tensor([1, 1, 1]))
    assert parameters.tolist() == [[1, 7], [1, 3], [1, 7]]


def test_what_is_read_can_be_changed_without_harm(folder):
    recording = Recording(folder)
    parameters, output = read_one(recording, 3, 1)
    parameters.zero_(), output.logits.zero_(), output.features["layer1"].zero_()
    assert read_one(recording, 3, 1)[0].tolist() == [[1, 3]]
    assert recording.verify() == []


def test_no_row_is_no_error(folder):
    none = torch.empty(0, dtype=torch.int64)
    parameters, output = Recording(folder).read(none, none)
    assert (parameters.shape, output.logits.shape) == ((0, 2), (0, 4))
    assert output.features["layer1"].shape == (0, 3, 2, 2)


@pytest.mark.parametrize("keep", ["hard", "smoothed", "top2", "top2-renormalized"])
@pytest.mark.parametrize("values", ["float32", "float16"])
def test_every_scheme_replays_as_it_was_packed(keep, values, tmp_path):
    header = replace(HEADER, keep=keep, values=values, layers={})
    _, output = read_one(Recording(record(tmp_path, header=header)), 27, 2)
    rows = np.zeros(1, np.dtype(header.quantization.fields(4, values)))
    header.quantization.fill(rows, answer(2, 27)[None], values=values)
    assert output.logits.equal(header.quantization.logits(rows, 4))
    assert output.logits.argmax().item() == 2
    assert not output.features


def test_it_says_what_was_done_to_the_images(folder):
    recording = Recording(folder)
    assert str(recording.augmentation) == "crop:1"
    assert (recording.views, recording.header, recording.note) == (3, HEADER, "")


def test_a_plan_replays_it(folder):
    recording = Recording(folder)
    plan = Plan(
        sampler=ShuffledBatches(50, batch_size=10),
        seed=1,
        augmentation=recording.augmentation,
        size=(8, 8),
        recorded=recording,
    )
    views = []
    for epoch in range(3):
        for planned in plan.epoch(epoch):
            assert planned.answer.logits[:, 1].equal(planned.indices.float())
            views.append(planned.view[:, 0].unique().item())
    assert sorted(set(views)) == [0, 1, 2]
    assert len(views) == 15


def test_an_unfinished_view_is_left_out_and_told(tmp_path):
    recording = Recording(record(tmp_path, unfinished={(1, 0), (1, 2)}))
    assert recording.views == 2
    assert recording.note == "view 1 is unfinished: 1 of 3 shards"
    assert read_one(recording, 5, 1)[0].tolist() == [[2, 5]]


def test_without_a_finished_view_there_is_nothing_to_replay(tmp_path):
    HEADER.write(tmp_path)
    with pytest.raises(UserError, match="no finished view: run"):
        Recording(tmp_path)
    record(tmp_path, views=1, unfinished={(0, 2)})
    with pytest.raises(UserError, match=r"no finished view \(view 0 is unfinished: 2 of 3 shards\): run"):
        Recording(tmp_path)


def test_the_first_views_can_be_chosen(folder):
    recording = Recording(folder, views=2)
    assert recording.views == 2
    assert read_one(recording, 5, 1)[0].tolist() == [[1, 5]]
    with pytest.raises(UserError, match="3 views that can be replayed, not 4: use fewer, or add some .*--views 4"):
        Recording(folder, views=4)
    with pytest.raises(UserError, match="views=0"):
        Recording(folder, views=0)


@pytest.mark.parametrize(("sample", "view"), [(50, 0), (-1, 0), (0, 3), (0, -1)])
def test_samples_and_views_that_are_not_there_are_refused(sample, view, folder):
    with pytest.raises(UserError, match="3 views of 50 samples"):
        read_one(Recording(folder), sample, view)


def test_views_that_are_added_later_are_not_seen(tmp_path):
    before = Recording(record(tmp_path, views=1))
    fingerprint = before.fingerprint
    record(tmp_path, views=2)
    assert before.views == 1
    assert Recording(tmp_path).fingerprint != fingerprint
    assert Recording(tmp_path, views=1).fingerprint == fingerprint


def test_the_fingerprint_follows_header_and_content(tmp_path):
    before = Recording(record(tmp_path / "a")).fingerprint
    assert Recording(record(tmp_path / "b")).fingerprint == before
    assert Recording(record(tmp_path / "c", header=replace(HEADER, seed=1))).fingerprint != before
    with shards.writing(tmp_path / "b", HEADER, 2, 1) as rows:
        rows["parameters"] = 7
    assert Recording(tmp_path / "b").fingerprint != before


def damage(folder, view, shard):
    path = shard_path(folder, view, shard)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_shard_is_named_when_it_is_first_read(tmp_path):
    recording = Recording(record(tmp_path))
    damage(tmp_path, 1, 2)
    assert read_one(recording, 30, 1)[0].tolist() == [[1, 30]]
    for _ in range(2):
        with pytest.raises(UserError, match="view-0001/shard-0002.npy is damaged"):
            read_one(recording, 45, 1)
    assert recording.verify() == ["view-0001/shard-0002.npy"]


def test_missing_shards_are_not_damaged(tmp_path):
    recording = Recording(record(tmp_path, unfinished={(1, 0)}))
    checksum_path(shard_path(tmp_path, 1, 2)).unlink()
    assert recording.verify() == []


def test_a_shard_is_opened_and_compared_once(folder, monkeypatch):
    calls, opened = [], shards.opened
    monkeypatch.setattr(shards, "opened", lambda *a, **k: calls.append(k["verify"]) or opened(*a, **k))
    recording = Recording(folder)
    for sample in (3, 4, 5, 25):
        read_one(recording, sample, 0)
    assert calls == [True, True]


def test_few_files_stay_open_and_none_is_compared_twice(folder, monkeypatch):
    calls, opened = [], shards.opened
    monkeypatch.setattr(shards, "opened", lambda *a, **k: calls.append(k["verify"]) or opened(*a, **k))
    monkeypatch.setattr(reading, "_MOST_OPEN", 2)
    recording = Recording(folder)
    for sample, view in ((0, 0), (20, 0), (0, 0), (0, 1), (0, 0), (20, 0)):
        assert read_one(recording, sample, view)[0].tolist() == [[view, sample]]
        assert len(recording._open) <= 2
    assert calls == [True, True, True, False]


@pytest.mark.parametrize("travel", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy])
def test_it_travels_without_its_files(travel, folder):
    recording = Recording(folder)
    for view in range(3):
        recording.read(torch.arange(50), torch.full((50,), view))
    assert len(pickle.dumps(recording)) < 4000
    twin = travel(recording)
    assert not twin._open
    assert twin.fingerprint == recording.fingerprint
    assert read_one(twin, 3, 1)[0].tolist() == [[1, 3]]


def test_there_must_be_a_recording(tmp_path):
    with pytest.raises(UserError, match="no recording in"):
        Recording(tmp_path / "nothing")


def test_layers_that_nobody_reads_stay_on_disk(folder):
    whole = Recording(folder)
    indices, views = torch.tensor([3, 41, 20, 3]), torch.tensor([0, 2, 1, 1])
    parameters, said = whole.read(indices, views)
    for wanted in ([], ["layer1"], ["embedding"], ["layer1", "other"]):
        part = whole.only(wanted)
        found, answer = part.read(indices, views)
        assert torch.equal(found, parameters)
        assert torch.equal(answer.logits, said.logits)
        assert list(answer.features) == [layer for layer in wanted if layer != "other"]
        assert all(torch.equal(answer.features[layer], said.features[layer]) for layer in answer.features)
        assert part._rows(indices.numpy(), views.numpy()).nbytes < whole._rows(indices.numpy(), views.numpy()).nbytes
        # All of one shard are read another way.
        assert torch.equal(part.read(indices[:1], views[:1])[1].logits, said.logits[:1])
        assert len(part.read(indices[:0], views[:0])[0]) == 0
        assert part.fingerprint == whole.fingerprint
        assert torch.equal(pickle.loads(pickle.dumps(part)).read(indices, views)[1].logits, said.logits)
    assert whole.only(["embedding", "layer1"]) is whole
    assert whole.layers == ("layer1", "embedding")
