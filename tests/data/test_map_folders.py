"""Folders of images and masks."""

import pytest

from tutelage.data.map_folders import scan_pairs
from tutelage.data.walk import walk
from tutelage.errors import Notice, UserError


def files(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return walk(root)


def names(found):
    return {split: [image.rpartition("/")[2] for image, _ in pairs] for split, pairs in found.splits.items()}


def test_a_folder_of_each(tmp_path):
    found = scan_pairs(files(tmp_path, "images/b.jpg", "images/a.JPG", "masks/a.png", "masks/b.png"))
    assert names(found) == {"train": ["a.JPG", "b.jpg"]}
    assert found.splits["train"][0][1].endswith("masks/a.png")


def test_splits_within_or_around(tmp_path):
    within = files(tmp_path / "1", "images/train/a.jpg", "masks/train/a.png", "images/val/b.jpg", "masks/val/b.png")
    around = files(tmp_path / "2", "train/images/a.jpg", "train/masks/a.png", "val/img/b.jpg", "val/labels/b.png")
    assert names(scan_pairs(within)) == names(scan_pairs(around)) == {"train": ["a.jpg"], "validation": ["b.jpg"]}


def test_as_in_ade20k(tmp_path):
    tree = files(tmp_path, "images/training/a.jpg", "annotations/training/a.png", "images/validation/b.jpg",
                 "annotations/validation/b.png")  # fmt: skip
    assert names(scan_pairs(tree)) == {"train": ["a.jpg"], "validation": ["b.jpg"]}


def test_deeper_folders_keep_their_pairs(tmp_path):
    found = scan_pairs(
        files(tmp_path, "images/city/1.jpg", "images/farm/1.jpg", "masks/city/1.png", "masks/farm/1.png")
    )
    assert [mask.rpartition("masks/")[2] for _, mask in found.splits["train"]] == ["city/1.png", "farm/1.png"]


def test_masks_without_images_are_told(tmp_path):
    with pytest.warns(Notice, match=r"1 masks without an image are not read, such as .*b\.png"):
        scan_pairs(files(tmp_path, "images/a.jpg", "masks/a.png", "masks/b.png"))


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (
            ["images/a.jpg", "images/b.jpg", "masks/a.png"],
            r"1 of 2 images have no mask, such as .*b\.jpg: it should be",
        ),
        (["images/a.jpg"], "lay images and masks out as"),
        (["cat/a.jpg", "dog/a.jpg"], "holds cat, dog: lay images and masks out as"),
        (["images/a.jpg", "images/a.png", "masks/a.png"], "have the same name but for the ending"),
        (["images/a.jpg", "masks/a.png", "labels/a.png"], "which may mean the same"),
        (["images/train/a.jpg", "images/val/a.jpg", "masks/train/a.png"], "has the folder val, and .* has not"),
        (["val/images/a.jpg", "val/masks/a.png"], "holds val: lay images and masks out"),
        (["images/a.txt", "masks/a.png"], "There are no images in"),
    ],
)
def test_other_layouts_are_refused(tmp_path, paths, said):
    with pytest.raises(UserError, match=said):
        scan_pairs(files(tmp_path, *paths))


def test_columns_are_for_tables(tmp_path):
    with pytest.raises(UserError, match="leave out label= and image="):
        scan_pairs(files(tmp_path, "images/a.jpg", "masks/a.png"), label="mask")
