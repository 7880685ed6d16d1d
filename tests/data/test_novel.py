"""Data of which some classes are known, and others are to be found."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data.novel import SEEN, known_only, with_novel
from tutelage.data.resolve import resolve_data
from tutelage.errors import UserError
from tutelage.testing.toys import toy_data


def labels(data, split):
    return data.split(split).targets.tolist()


def own(classes, count=24, start=0):
    """Return samples of classes by turns; each image holds the number of its class."""
    found = [classes[number % len(classes)] for number in range(count)]
    return [(torch.full((3, 6, 8), (label + 1) / 10), label) for label in found]


def test_labels_of_the_last_classes_are_hidden_in_training_alone():
    data = with_novel(toy_data(), 2)
    assert (data.task.name, data.task.known, data.num_classes) == ("discovery", 4, 6)
    assert data.class_names == ("class 0", "class 1", "class 2", "class 3", "novel 1", "novel 2")
    assert data.task.hidden == ("class 4", "class 5")
    assert labels(data, "train") == [label if label < 4 else -1 for label in labels(toy_data(), "train")]
    assert labels(data, "test") == labels(toy_data(), "test")
    assert set(labels(data, "validation")) == {0, 1, 2, 3}
    # The hidden labels are a split to measure by, of the very images.
    assert labels(data, SEEN) == [label for label in labels(toy_data(), "train") if label >= 4]
    assert torch.equal(data.split(SEEN).images, toy_data().train.images[data.train.targets == -1])
    assert data.measured == ("validation", SEEN, "test")
    assert data.offers == {"targets", "images", "novel"}


def test_a_number_is_a_number_of_classes_and_never_a_name():
    named = replace(toy_data(), class_names=tuple("012345"))
    assert with_novel(named, "2").task.hidden == ("4", "5")
    assert with_novel(named, "2+").task.hidden == with_novel(named, ["2"]).task.hidden == ("2",)


@pytest.mark.parametrize("novel", ["class 1+class 3", ["class 3", "class 1"]])
def test_named_classes_come_last_in_the_order_of_the_data(novel):
    data = with_novel(toy_data(), novel)
    assert data.class_names[:4] == ("class 0", "class 2", "class 4", "class 5")
    assert data.task.hidden == ("class 1", "class 3")
    assert labels(data, "test")[:6] == [0, 4, 1, 5, 2, 3]
    assert labels(data, "train")[:6] == [0, -1, 1, -1, 2, 3]


def test_other_novel_classes_are_other_data():
    found = [with_novel(toy_data(), novel).fingerprint for novel in (1, 2, "class 1+class 3")]
    assert len({*found, toy_data().fingerprint}) == 4
    assert with_novel(toy_data(), 2).fingerprint == found[1]


def test_validation_is_held_out_of_labelled_samples_alone():
    data = with_novel(toy_data().with_splits(validation=None), 2, validation=0.25)
    assert len(data.validation) == 8
    assert sorted(labels(data, "validation")) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert labels(data, "train").count(-1) == 16
    assert data.count("train") == 48 - 8
    # The statistics are those of the samples that stay.
    assert data.mean != toy_data().mean


def test_hidden_labels_have_no_part_in_training_data():
    """What training sees of two datasets is the same if they differ in hidden labels alone."""
    one = toy_data()
    swapped = one.train.targets.clone()
    swapped[one.train.targets == 4], swapped[one.train.targets == 5] = 5, 4
    other = one.with_splits(train=one.train.with_targets(swapped), validation=None)
    both = [with_novel(data, 2, validation=0.25) for data in (one.with_splits(validation=None), other)]
    for split in ("train", "validation"):
        assert labels(both[0], split) == labels(both[1], split)
        assert torch.equal(both[0].split(split).images, both[1].split(split).images)
    assert labels(both[0], SEEN) != labels(both[1], SEEN)


def test_unlabelled_samples_are_the_novel_ones():
    data = resolve_data(own([0, 1, -1]), task="discovery", novel=2, test=own([0, 1, 2, 3]), validation=0.25)
    assert (data.task.known, data.num_classes, data.task.hidden) == (2, 4, ())
    assert labels(data, "train").count(-1) == 8
    assert set(labels(data, "validation")) == {0, 1}
    assert SEEN not in data.splits
    assert data.task.primary == "accuracy"
    assert data.train.read_batch([0])[0].dtype == torch.float32


def test_without_labelled_novel_samples_rows_are_compared_by_known_classes_and_nothing_is_chosen():
    data = resolve_data(own([0, 1, -1]), task="discovery", novel=2, test=own([0, 1]))
    assert data.task.primary == "known_accuracy"
    assert data.validation is None


def test_a_folder_of_unlabelled_images_beside_a_folder_of_classes(tmp_path):
    chance = np.random.default_rng(0)
    for place, count in (("known/ant", 20), ("known/bee", 20), ("more", 10)):
        (tmp_path / place).mkdir(parents=True)
        for number in range(count):
            pixels = chance.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{number}.png")
    found = resolve_data(str(tmp_path / "known"), task="discovery", novel="3", unlabelled=str(tmp_path / "more"))
    assert found.class_names == ("ant", "bee", "novel 1", "novel 2", "novel 3")
    # A fifth of the images without labels is held out for a test, as of any data.
    assert labels(found, "train").count(-1) == 8
    assert found.task.primary == "known_accuracy"


def test_known_classes_alone_are_a_classification():
    data = known_only(with_novel(toy_data(), 2))
    assert (data.task.name, data.num_classes, len(data.class_names)) == ("classification", 4, 4)
    assert set(data.splits) == {"train", "validation", "test"}
    for split in data.splits:
        assert set(labels(data, split)) == {0, 1, 2, 3}


def test_a_task_travels_with_what_it_knows():
    task = with_novel(toy_data(), 2).task
    twin = pickle.loads(pickle.dumps(task))
    assert vars(twin) == vars(task)


@pytest.mark.parametrize(
    ("novel", "words"),
    [
        (0, "novel=0: toy has 6 classes, of which two or more must stay known. Give a number from 1 to 4"),
        (5, "novel=5: toy has 6 classes"),
        ("class 9", "There is no novel class named 'class 9'. Did you mean"),
        ("class 1+class 1", "names a class twice"),
        ([f"class {number}" for number in range(5)], "Of the 6 classes of toy, 5 are novel: two or more"),
    ],
)
def test_wrong_classes_are_refused(novel, words):
    with pytest.raises(UserError, match=words.replace("+", r"\+")):
        with_novel(toy_data(), novel)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"novel": "0"}, "Give the number of these classes"),
        ({"novel": "0+1"}, "0 is a known class, whose samples have labels"),
        ({"novel": 9}, "9 novel classes cannot be found in 8 unlabelled training samples of data"),
        ({"novel": 2, "test": own([0, 5])}, "test split has the label 5, but 2 known classes and 2 novel ones are"),
        ({}, "The task discovery looks for novel classes: say how many"),
        ({"novel": 2, "task": "regression"}, "choose --task discovery, or leave out --novel"),
        ({"novel": 2, "metric": "mcc"}, "neither foreign data nor other metrics"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        resolve_data(own([0, 1, -1]), **{"task": "discovery", **arguments})


def test_data_without_classes_and_loaders_are_refused():
    images = [image for image, _ in own([0])]
    with pytest.raises(UserError, match="no class for each sample"):
        resolve_data(images, task="discovery", novel=2)
    loader = torch.utils.data.DataLoader(own([0, 1, -1]), batch_size=8)
    with pytest.raises(UserError, match="DataLoader"):
        resolve_data(loader, task="discovery", novel=2)
