import shutil

import pytest

from tutelage.data.names import parse_spec
from tutelage.data.place import LocalPlace
from tutelage.errors import UserError


def place(path, **options):
    where = parse_spec(str(path))
    return LocalPlace(where, where.path, **options)


def test_images_and_tables_are_told_apart(make_photos, make_parquet):
    photos, (tables, _) = make_photos(), make_parquet({"train": 30})
    assert place(photos).tables().splits["train"].features["label"].names == ["ant", "bee", "cat"]
    assert place(tables).tables().image == "img"


def test_tables_in_hidden_folders_do_not_count(make_photos, make_parquet):
    photos, (tables, _) = make_photos(), make_parquet({"train": 30})
    shutil.copytree(tables, photos / ".cache")
    assert len(place(photos).tables().splits["train"]) == 18


def test_classes_that_are_put_away_may_be_one(make_photos):
    photos = make_photos(classes=("all",))
    with pytest.raises(UserError, match="only one class"):
        place(photos)
    assert len(place(photos, has_classes=False).tables().splits["train"]) == 6


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(UserError, match="is a file: give a folder"):
        place(tmp_path / "photo.png")
