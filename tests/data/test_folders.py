import shutil

import pytest

from tutelage.data.folders import scan_folder
from tutelage.data.sources import load_data
from tutelage.errors import UserError


def test_class_folders_are_labels_in_alphabetical_order(make_photos):
    tables = scan_folder(make_photos(("train", "val", "test")))
    assert sorted(tables.splits) == ["test", "train", "validation"]
    assert tables.splits["train"].features["label"].names == ["ant", "bee", "cat"]
    assert tables.splits["train"]["label"][:] == [0] * 6 + [1] * 6 + [2] * 6


def test_images_lie_by_their_labels(make_photos):
    data = load_data(str(make_photos(("train", "val", "test"))))
    for split in (data.train, data.validation, data.test):
        assert len(split) == 18
        assert (split.images.amax((1, 2, 3)) // 40 == split.targets).all()
    assert data.image_size == (10, 12)
    assert data.class_names == ("ant", "bee", "cat")


def test_without_split_folders_the_rest_is_held_out(make_photos):
    data = load_data(str(make_photos(("",), count=20)), validation=0.2)
    assert [data.count(split) for split in ("train", "validation", "test")] == [38, 10, 12]


def test_nested_images_and_other_files(make_photos):
    root = make_photos()
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    (root / "train" / ".hidden").mkdir()
    deeper = root / "train" / "bee" / "deeper"
    deeper.mkdir()
    shutil.copy(root / "train" / "bee" / "0.png", deeper / "9.PNG")
    assert len(scan_folder(root).splits["train"]) == 19


def test_no_images(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match="No images found"):
        scan_folder(tmp_path)


def test_an_empty_class_folder(make_photos):
    root = make_photos()
    (root / "train" / "dog").mkdir()
    with pytest.raises(UserError, match=r"dog has no images"):
        scan_folder(root)


def test_a_class_missing_in_test(make_photos):
    root = make_photos(("train", "test"))
    shutil.rmtree(root / "test" / "bee")
    with pytest.raises(UserError, match="no class folder 'bee'"):
        scan_folder(root)


def test_a_class_that_only_test_has(make_photos):
    root = make_photos(("train", "test"))
    shutil.rmtree(root / "train" / "bee")
    with pytest.raises(UserError, match="has the class folder 'bee'"):
        scan_folder(root)


def test_columns_make_no_sense(make_photos):
    with pytest.raises(UserError, match="leave out label="):
        load_data(f"{make_photos()},label=fine")


def test_an_unreadable_image_is_named(make_photos):
    root = make_photos()
    (root / "train" / "bee" / "3.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bee/3\.png.*replace it"):
        load_data(str(root))
