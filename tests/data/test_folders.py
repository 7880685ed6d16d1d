import os
import shutil

import pytest
from PIL import Image

from tutelage.data.folders import scan_folder
from tutelage.data.sources import load_data
from tutelage.data.walk import walk
from tutelage.errors import Notice, UserError


def scan(root):
    return scan_folder(walk(root))


def move(root, name, to):
    """Put what is in a folder one level further down, or elsewhere."""
    target = root / to
    target.parent.mkdir(parents=True, exist_ok=True)
    (root / name).rename(target)
    return root


def counts(found):
    return {split: sum(map(len, classes.values())) for split, classes in found.splits.items()}


def test_class_folders_are_labels_in_alphabetical_order(make_photos):
    tables = scan(make_photos(("train", "val", "test"))).tables()
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
    deeper = root / "train" / "bee" / "deeper"
    deeper.mkdir()
    shutil.copy(root / "train" / "bee" / "0.png", deeper / "9.PNG")
    assert counts(scan(root)) == {"train": 19}


def test_no_images(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match="No images found"):
        scan(tmp_path)


def test_an_empty_class_folder(make_photos):
    root = make_photos()
    (root / "train" / "dog").mkdir()
    with pytest.raises(UserError, match=r"dog has no images"):
        scan(root)


def test_a_single_class_is_refused(make_photos):
    root = make_photos(("train", "test"), classes=("ant",))
    with pytest.raises(UserError, match="only one class, ant"):
        scan(root)


@pytest.mark.parametrize("kept", ["empty", "absent"])
def test_a_test_split_may_lack_a_class(make_photos, kept):
    root = make_photos(("train", "val", "test"))
    shutil.rmtree(root / "test" / "bee")
    if kept == "empty":
        (root / "test" / "bee").mkdir()
    data = load_data(str(root))
    assert data.class_names == ("ant", "bee", "cat")
    assert sorted(set(data.test.targets.tolist())) == [0, 2]
    assert (data.test.images.amax((1, 2, 3)) // 40 == data.test.targets).all()


def test_a_class_that_only_test_has(make_photos):
    root = make_photos(("train", "test"))
    shutil.rmtree(root / "train" / "bee")
    with pytest.raises(UserError, match="has the class folder 'bee'"):
        scan(root)


def test_columns_make_no_sense(make_photos):
    with pytest.raises(UserError, match="leave out label="):
        load_data(f"{make_photos()},label=fine")


def test_an_unreadable_image_is_named(make_photos):
    root = make_photos()
    (root / "train" / "bee" / "3.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bee/3\.png.*replace it"):
        load_data(str(root))


@pytest.mark.parametrize("splits", [("",), ("train", "test")])
def test_one_level_too_many(make_photos, tmp_path, splits):
    photos = make_photos(splits, name="zip/photos")
    with pytest.raises(UserError, match=rf"one level too many: give {photos}"):
        scan(tmp_path / "zip")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("TrainImages", "TestImages"),
        ("train2017", "eval2017"),
        ("trainset", "testset"),
        ("train", "eval"),
    ],
)
def test_usual_names_of_splits_are_understood_and_told(make_photos, train, test):
    root = make_photos((train, test))
    with pytest.warns(Notice, match=f"{test} is read as the test split"):
        assert counts(scan(root)) == {"train": 18, "test": 18}


@pytest.mark.parametrize("name", ["Training", "TRAIN"])
def test_the_plain_words_need_no_telling(make_photos, name):
    assert sorted(counts(scan(make_photos((name, "Valid", "testing"))))) == ["test", "train", "validation"]


@pytest.mark.parametrize("splits", [("trian", "test"), ("trian", "tset"), ("train", "tset"), ("train", "test", "vla")])
def test_a_misspelt_split_is_named(make_photos, splits):
    strange = next(name for name in splits if name not in ("train", "test"))
    with pytest.raises(UserError, match=rf"{strange}.*name (it|the splits) train, val (and|or) test"):
        scan(make_photos(splits))


def test_splits_without_that_of_training(make_photos):
    root = make_photos(("test", "mine"))
    with pytest.raises(UserError, match=r"has test, .*beside that mine, but no training split: name the folder"):
        scan(root)


def test_two_folders_of_one_split(make_photos):
    with pytest.raises(UserError, match="val and valid, which both mean the validation split"):
        scan(make_photos(("train", "val", "valid")))


def test_a_class_may_be_called_train(make_photos):
    root = make_photos(("",), classes=("bus", "car", "train"))
    with pytest.warns(Notice, match="train is read as a class"):
        assert scan(root).class_names == ("bus", "car", "train")


def test_a_class_called_train_with_folders_in_it_is_refused(make_photos):
    root = make_photos(("",), classes=("bus", "car"))
    for inner in ("steam", "electric"):
        shutil.copytree(root / "bus", root / "train" / inner)
    with pytest.raises(UserError, match=r"has train, named like a split, and beside it bus, car"):
        scan(root)


def test_flat_folders_named_as_splits_are_refused(make_photos):
    with pytest.raises(UserError, match=r"has test, train, which are named like splits but hold images"):
        scan(make_photos(("",), classes=("train", "test")))
    with pytest.raises(UserError, match=r"has test, which are named like splits"):
        scan(make_photos(("",), classes=("ant", "bee", "test"), name="other"))


def test_a_flat_test_folder_beside_training_is_refused(make_photos):
    root = make_photos(("train",))
    shutil.copytree(root / "train" / "ant", root / "test")
    with pytest.raises(UserError, match=r"test is named like a split, but holds images"):
        scan(root)


def test_what_lies_beside_clear_splits_is_told(make_photos):
    root = make_photos(("train", "test", "extra"))
    with pytest.warns(Notice, match="extra beside the splits is not read"):
        assert counts(scan(root)) == {"train": 18, "test": 18}
    shutil.rmtree(root / "extra")
    (root / "annotations").mkdir()
    (root / "annotations" / "list.json").write_text("[]")
    assert counts(scan(root)) == {"train": 18, "test": 18}


def test_class_folders_that_hold_only_folders(make_photos, tmp_path):
    make_photos(("",), name="kinds/insects")
    make_photos(("",), classes=("dog", "cow"), name="kinds/mammals")
    with pytest.raises(UserError, match=r"class folders insects, mammals, which hold only folders"):
        scan(tmp_path / "kinds")


def test_one_class_folder_that_holds_only_folders(make_photos):
    root = make_photos()
    (root / "train" / "bee" / "summer").mkdir()
    for image in (root / "train" / "bee").glob("*.png"):
        image.rename(image.parent / "summer" / image.name)
    with pytest.raises(UserError, match=r"class folders bee, which hold only folders, such as .*bee/summer"):
        scan(root)


def test_the_same_folder_in_every_class_is_looked_through(make_photos):
    root = make_photos(classes=("brain", "bee"))
    for name in ("brain", "bee"):
        (root / "train" / name / "images").mkdir()
        for image in (root / "train" / name).glob("*.png"):
            image.rename(image.parent / "images" / image.name)
    for folder in (root, root / "train"):
        with pytest.warns(Notice, match="of each class are read from the folder images"):
            assert scan(folder).class_names == ("bee", "brain")


def test_class_folders_that_are_numbers(make_photos):
    root = make_photos(("",), classes=("1", "2", "10"))
    with pytest.warns(Notice, match="are sorted as text: 1, 10, 2. The outputs of a network"):
        assert scan(root).class_names == ("1", "10", "2")
    assert scan(make_photos(("",), classes=("01", "02", "10"), name="padded")).class_names == ("01", "02", "10")


def test_files_called_as_splits_are_images(make_photos):
    root = make_photos(("",))
    shutil.copy(root / "ant" / "0.png", root / "ant" / "train.png")
    shutil.copy(root / "bee" / "0.png", root / "bee" / "test image.png")
    assert counts(scan(root)) == {"train": 20}


@pytest.mark.parametrize("left", [400, 20])
def test_a_truncated_image_is_named(make_photos, left):
    root = make_photos(size=(64, 64))
    file = root / "train" / "bee" / "6.jpg"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(UserError, match=r"bee/6\.jpg .*(cannot be read|is not an image)"):
        load_data(str(root), validation=0)


def test_images_beside_class_folders_are_told(make_photos):
    root = make_photos()
    shutil.copy(root / "train" / "ant" / "0.png", root / "train" / "cover.png")
    with pytest.warns(Notice, match=r"1 images beside the class folders .*cover\.png"):
        assert counts(scan(root)) == {"train": 18}


def test_images_of_unread_kinds_are_told(make_photos):
    root = make_photos()
    (root / "train" / "ant" / "7.HEIC").write_bytes(b"from a telephone")
    with pytest.warns(Notice, match=r"1 images .*ant/7\.HEIC: convert"):
        assert counts(scan(root)) == {"train": 18}


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", "@eaDir"])
def test_hidden_folders_are_not_read(make_photos, hidden):
    root = make_photos()
    for place in (root, root / "train", root / "train" / "ant"):
        shutil.copytree(root / "train" / "cat", place / hidden / "deeper")
    (root / "train" / "ant" / "._0.png").write_bytes(b"no image")
    (root / "train" / "ant" / "Thumbs.db").write_bytes(b"no image")
    found = scan(root)
    assert counts(found) == {"train": 18}
    assert not any(hidden in path for path in found.files())


def test_a_damaged_file_in_a_hidden_folder_does_no_harm(make_photos):
    root = make_photos()
    (root / "train" / "ant" / ".thumbnails").mkdir()
    (root / "train" / "ant" / ".thumbnails" / "1.png").write_bytes(b"no image")
    assert load_data(str(root), validation=0.2).count("test") == 4


def test_the_root_itself_may_be_hidden(make_photos, tmp_path):
    make_photos(name=".hidden/photos")
    assert counts(scan(tmp_path / ".hidden" / "photos")) == {"train": 18}


def test_links_are_followed(make_photos, tmp_path):
    root = make_photos(("train", "test"))
    (tmp_path / "elsewhere").mkdir()
    (root / "train" / "bee").rename(tmp_path / "elsewhere" / "bees")
    (root / "train" / "bee").symlink_to(tmp_path / "elsewhere" / "bees")
    (root / "test").rename(tmp_path / "elsewhere" / "measured")
    (root / "test").symlink_to(tmp_path / "elsewhere" / "measured")
    (root / "train" / "ant" / "0.png").rename(tmp_path / "0.png")
    (root / "train" / "ant" / "0.png").symlink_to(tmp_path / "0.png")
    assert counts(scan(root)) == {"train": 18, "test": 18}


def test_links_that_lead_back_end(make_photos):
    root = make_photos()
    (root / "train" / "ant" / "loop").symlink_to(root)
    (root / "train" / "cat" / "here").symlink_to(".")
    assert counts(scan(root)) == {"train": 18}
    assert load_data(str(root), validation=0.2).count("train") == 11


@pytest.mark.parametrize(
    ("link", "to"), [("train/dog", "train/cat"), ("test", "train"), ("train/ant/more", "train/bee")]
)
def test_two_names_of_one_folder_are_refused(make_photos, link, to):
    root = make_photos()
    (root / link).symlink_to(root / to)
    with pytest.raises(UserError, match="are the same folder, through a link"):
        scan(root)


@pytest.mark.parametrize("link", ["ant/8.png", "dog", "ant/self"])
def test_a_link_to_nothing_is_named(make_photos, link):
    root = make_photos()
    (root / "train" / link).symlink_to("self")
    with pytest.raises(UserError, match=rf"{link} is a link to something that does not exist"):
        scan(root)


def test_a_link_to_nothing_that_is_no_image_does_no_harm(make_photos):
    root = make_photos()
    (root / "train" / "ant" / "notes.txt").symlink_to("gone")
    assert counts(scan(root)) == {"train": 18}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(make_photos):
    root = make_photos()
    (root / "train" / "ant").chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        scan(root)


def test_the_archive_that_the_images_came_in_is_no_table(make_photos):
    root = make_photos()
    (root / "photos.tar").write_bytes(b"the same images again")
    assert load_data(str(root), validation=0.2).count("train") == 11
