import errno
import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tutelage.errors import UserError
from tutelage.recording import shards
from tutelage.recording.layout import checksum_path, shard_path
from tutelage.system import files
from tutelage.testing.toys import toy_header

HEADER = toy_header(values="float16", layers={"layer1": (4, 2, 2)})


def write(folder, view=0, shard=0, value=1.0, header=HEADER):
    with shards.writing(folder, header, view, shard) as rows:
        rows["parameters"] = value
        rows["classes"] = np.arange(rows["classes"].shape[1])
    return shard_path(folder, view, shard)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path, 3, 1)
    rows = shards.opened(tmp_path, HEADER, 3, 1)
    assert len(rows) == 20
    assert rows.dtype == HEADER.row_dtype
    assert rows["classes"].tolist() == [[0, 1, 2, 3, 4]] * 20
    assert not rows.flags.writeable
    assert len(shards.opened(tmp_path, HEADER, 3, 1, verify=False)) == 20


def test_the_last_shard_is_as_short_as_its_samples(tmp_path):
    write(tmp_path, shard=2)
    assert len(shards.opened(tmp_path, HEADER, 0, 2)) == 10


def test_plain_numpy_reads_it_without_pickle(tmp_path):
    path = write(tmp_path)
    assert np.load(path, mmap_mode="r", allow_pickle=False)["parameters"].tolist() == [[1, 1]] * 20


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_sha256sum_checks_it(tmp_path):
    path = write(tmp_path)
    command = ["sha256sum", "--strict", "-c", checksum_path(path).name]
    assert subprocess.run(command, cwd=path.parent, check=False, capture_output=True).returncode == 0
    damage(path)
    assert subprocess.run(command, cwd=path.parent, check=False, capture_output=True).returncode == 1


def test_the_checksum_is_that_of_the_file(tmp_path):
    path = write(tmp_path)
    assert shards.checksum(tmp_path, 0, 0) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_what_is_given_up_leaves_nothing(stop, tmp_path):
    with pytest.raises(stop), shards.writing(tmp_path, HEADER, 0, 0) as rows:
        rows["parameters"] = 1
        raise stop
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert shards.state(tmp_path, HEADER, 0, 0) == "missing"


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(UserError, match="No space left on device"):
        write(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_without_its_checksum_a_shard_is_missing(tmp_path):
    path = write(tmp_path)
    assert shards.state(tmp_path, HEADER, 0, 0) == "complete"
    checksum_path(path).unlink()
    assert shards.state(tmp_path, HEADER, 0, 0) == "missing"
    with pytest.raises(UserError, match="its checksum cannot be read"):
        shards.opened(tmp_path, HEADER, 0, 0)


def test_a_shard_that_is_written_again_is_incomplete_until_it_is_there(tmp_path, monkeypatch):
    path, stored = write(tmp_path), shards._store_checksum

    def seen(*arguments):
        assert not checksum_path(path).exists()
        stored(*arguments)

    monkeypatch.setattr(shards, "_store_checksum", seen)
    write(tmp_path, value=2)
    assert shards.opened(tmp_path, HEADER, 0, 0)["parameters"][0, 0] == 2


def damage(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damage, cut, empty, lambda path: damage(path, 3), lambda path: path.unlink()])
def test_any_harm_is_noticed_and_the_shard_named(harm, tmp_path):
    path = write(tmp_path, 3, 1)
    harm(path)
    assert shards.state(tmp_path, HEADER, 3, 1) == "damaged"
    with pytest.raises(UserError, match=r"view-0003/shard-0001.npy is damaged.*`tutelage record` .* made it again"):
        shards.opened(tmp_path, HEADER, 3, 1)


@pytest.mark.parametrize("harm", [cut, empty, lambda path: damage(path, 3)])
def test_a_wrong_shape_is_noticed_without_the_checksum(harm, tmp_path):
    harm(write(tmp_path))
    with pytest.raises(UserError, match="is damaged"):
        shards.opened(tmp_path, HEADER, 0, 0, verify=False)


@pytest.mark.parametrize("change", [{"keep": "top3"}, {"values": "float32"}, {"samples": 15}, {"layers": {}}])
def test_rows_of_another_type_or_number_are_refused(change, tmp_path):
    write(tmp_path, header=replace(HEADER, **change))
    with pytest.raises(UserError, match=r"shard-0000.npy is damaged: it holds \((20|15),\) rows of"):
        shards.opened(tmp_path, HEADER, 0, 0)
    assert shards.state(tmp_path, HEADER, 0, 0) == "damaged"


@pytest.mark.parametrize("content", ["", "\n", "abc  shard-0000.npy\n"])
def test_a_wrong_checksum_file_is_damage(content, tmp_path):
    checksum_path(write(tmp_path)).write_text(content)
    assert shards.state(tmp_path, HEADER, 0, 0) == "damaged"


def test_a_file_of_another_process_gets_its_own_checksum(tmp_path, monkeypatch):
    stored, calls = shards._store_checksum, []

    def overtaken(path, digest):
        # Between our file and our checksum another process puts both of its own.
        if not calls:
            calls.append(path)
            write(tmp_path, value=2)
        stored(path, digest)

    monkeypatch.setattr(shards, "_store_checksum", overtaken)
    write(tmp_path, value=1)
    assert calls
    assert shards.state(tmp_path, HEADER, 0, 0) == "complete"
    assert shards.opened(tmp_path, HEADER, 0, 0)["parameters"][0, 0] == 2


def test_who_writes_the_same_shard_at_the_same_time_does_no_harm(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda value: write(tmp_path, value=value), range(1, 101)))
    assert shards.state(tmp_path, HEADER, 0, 0) == "complete"
    assert len(set(shards.opened(tmp_path, HEADER, 0, 0)["parameters"].flatten().tolist())) == 1
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "shard-0000.npy",
        "shard-0000.npy.sha256",
    ]


def test_views_and_shards_are_counted_by_what_is_complete(tmp_path):
    assert shards.views_present(tmp_path / "nowhere") == []
    for view, shard in ((2, 0), (2, 2), (10, 1)):
        write(tmp_path, view, shard)
    (tmp_path / "view-old").mkdir()
    files.write_json(tmp_path / "view-x.json", {})
    checksum_path(shard_path(tmp_path, 10, 1)).unlink()
    assert shards.views_present(tmp_path) == [2, 10]
    assert [shards.complete_shards(tmp_path, HEADER, view) for view in (0, 2, 10)] == [0, 2, 0]


def test_what_killed_processes_had_begun_is_removed_and_what_is_young_stays(tmp_path):
    write(tmp_path)
    old, young = (tmp_path / "view-0000" / f".shard-0000.npy.{name}" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    shards.sweep(tmp_path)
    assert sorted(path.name for path in (tmp_path / "view-0000").iterdir()) == [
        young.name,
        "shard-0000.npy",
        "shard-0000.npy.sha256",
    ]
    shards.sweep(tmp_path / "nowhere")


def test_too_many_open_files_are_no_damage(tmp_path, monkeypatch):
    write(tmp_path)

    def refuse(*arguments, **named):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(shards.np, "load", refuse)
    with pytest.raises(UserError, match="could not be opened: Too many open files. Allow more"):
        shards.opened(tmp_path, HEADER, 0, 0)
