"""Files appear whole or not at all."""

import errno
import stat
import zipfile

import pytest
import torch

from tutelage.errors import UserError
from tutelage.system.files import atomic, damaged_entry, read_json, whole, write_json


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "file"
    with atomic(target) as file:
        file.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


@pytest.mark.parametrize("links", [True, False])
def test_what_is_there_stays_where_nothing_is_replaced(links, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if not links:
        monkeypatch.setattr("os.link", refused)
    for content in (b"first", b"second"):
        with atomic(tmp_path / "file", replace=False) as file:
            file.write(content)
    write_json(tmp_path / "file", {}, replace=False)
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with atomic(tmp_path / "file") as file:
        file.write(b"third")
    assert (tmp_path / "file").read_bytes() == b"third"


def test_a_disk_that_is_full_for_the_name_too_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.link", full)
    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(UserError, match="No space left"), atomic(tmp_path / "file", replace=False) as file:
        file.write(b"x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt(), ValueError("mine")])
def test_an_error_leaves_what_was_there_and_passes(error, tmp_path):
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(type(error)), atomic(tmp_path / "file") as file:
        file.write(b"half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


@pytest.mark.parametrize(
    "write", [lambda file: file.write(b"x"), lambda file: torch.save({"x": torch.ones(9999)}, file)]
)
def test_a_full_disk_is_told_with_the_remedy_and_leaves_nothing(write, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*--out"), atomic(tmp_path / "file") as file:
        write(file)
    assert not list(tmp_path.iterdir())


def test_the_error_that_torch_hides_a_full_disk_behind_is_seen_through(tmp_path):
    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="No space left"), atomic(tmp_path / "file"):
        torch.save({"x": torch.ones(9999)}, Full())
    assert not list(tmp_path.iterdir())


def test_json_round_trip_and_damage(tmp_path):
    write_json(tmp_path / "f.json", {"a": [1, 2.5, None, "ü"]})
    assert read_json(tmp_path / "f.json") == {"a": [1, 2.5, None, "ü"]}
    (tmp_path / "f.json").write_text("{")
    with pytest.raises(UserError, match=r"f\.json is damaged"):
        read_json(tmp_path / "f.json")


def test_an_entry_that_is_not_what_was_written_is_found(tmp_path):
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("one", b"abcdefgh")
        archive.writestr("two", b"ijklmnop")
    assert damaged_entry(file) is None
    file.write_bytes(file.read_bytes().replace(b"ijkl", b"ijkm"))
    assert damaged_entry(file) == "two"


def test_a_folder_or_a_file_takes_its_name_when_it_is_whole(tmp_path):
    target = tmp_path / "made" / "thing"
    for content in ("one", "two"):
        with whole(target) as place:
            place.mkdir()
            (place / "file").write_text(content)
            assert target.exists() is (content == "two")
        assert (target / "file").read_text() == content
    with whole(target) as place:
        place.write_text("a file in its place")
    assert target.read_text() == "a file in its place"
    with pytest.raises(RuntimeError), whole(target) as place:
        place.mkdir()
        raise RuntimeError
    # What was there stays, and nothing lies beside it.
    assert [path.name for path in target.parent.iterdir()] == ["thing"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"), whole(tmp_path / "file" / "thing"):
        pass
