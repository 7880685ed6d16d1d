import os
import shutil
import time

import pytest

from tutelage.data.cache import cache_folder
from tutelage.data.contents import Contents
from tutelage.data.walk import walk


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def files(tmp_path):
    root = tmp_path / "files"
    for name, text in {"a/1": "one", "a/2": "two", "b/1": "six"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def contents(root):
    return Contents.of(walk(root))


def later(monkeypatch, seconds=10):
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + seconds * 10**9)


def times(file):
    state = file.stat()
    return state.st_atime_ns, state.st_mtime_ns


def test_a_changed_byte_is_seen_though_size_and_time_are_kept(files, monkeypatch):
    later(monkeypatch)
    before, kept = contents(files).digest(), times(files / "a" / "1")
    assert contents(files).known() == before
    (files / "a" / "1").write_text("onE")
    os.utime(files / "a" / "1", ns=kept)
    assert contents(files).listing == contents(files).listing
    assert contents(files).known() is None
    assert contents(files).digest() != before


def test_swapped_folders_are_seen(files, monkeypatch):
    later(monkeypatch)
    (files / "a" / "2").unlink()
    before = contents(files).digest()
    (files / "a").rename(files / "c")
    (files / "b").rename(files / "a")
    (files / "c").rename(files / "b")
    assert contents(files).known() is None
    assert contents(files).digest() != before


def test_a_copy_has_the_same_content(files, tmp_path, monkeypatch):
    shutil.copytree(files, tmp_path / "copy")
    assert contents(tmp_path / "copy").state != contents(files).state
    assert contents(tmp_path / "copy").digest() == contents(files).digest()


def test_what_is_known_is_not_read_again(files, monkeypatch):
    later(monkeypatch)
    digest = contents(files).digest()
    monkeypatch.setattr(Contents, "_read", lambda *_: pytest.fail("files were read again"))
    assert contents(files).digest() == digest


def test_files_that_just_changed_are_not_taken_as_known(files):
    contents(files).digest()
    assert contents(files).known() is None


def test_a_damaged_note_and_a_cache_that_cannot_be_written(files, tmp_path, monkeypatch):
    later(monkeypatch)
    digest = contents(files).digest()
    next(cache_folder().glob("content-*")).write_text("")
    assert contents(files).known() is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file" / "cache"))
    assert contents(files).digest() == digest
    assert contents(files).known() is None


def test_the_listing_is_what_fingerprints_of_streamed_data_are_made_of(files):
    state = (files / "b" / "1").stat()
    assert contents(files).listing[-1] == ("b/1", 3, state.st_mtime_ns)
    assert [path for path, _, _ in contents(files).listing] == ["a/1", "a/2", "b/1"]
    assert contents(files / "a" / "1").listing[0][0] == "1"
