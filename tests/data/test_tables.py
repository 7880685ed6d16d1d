import datasets
import pytest
import torch

from tutelage.data.sources import load_data
from tutelage.data.tables import as_tables
from tutelage.errors import Notice, UserError


def as_images(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_parquet_comes_back_byte_for_byte(make_parquet):
    folder, pixels = make_parquet({"train": 30, "validation": 9, "test": 12})
    data = load_data(str(folder))
    for split, images in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        assert torch.equal(images.images, as_images(pixels[split]))
        assert images.targets.tolist() == [row % 3 for row in range(len(images))]
    assert data.class_names == ("ant", "bee", "cat")
    assert (data.in_channels, data.image_size, data.num_classes) == (3, (8, 8), 3)


def test_text_labels_are_numbered(make_parquet):
    labels = {"train": ["cat", "ant", "bee"] * 10, "test": ["bee", "cat", "ant"]}
    folder, _ = make_parquet({"train": 30, "test": 3}, labels=labels, features=datasets.Value("string"))
    data = load_data(str(folder), validation=0)
    assert data.class_names == ("ant", "bee", "cat")
    assert data.train.targets[:3].tolist() == [2, 0, 1]
    assert data.test.targets.tolist() == [1, 2, 0]


def test_whole_number_labels_are_classes(make_parquet):
    folder, _ = make_parquet({"train": 30, "test": 3}, features=datasets.Value("int64"))
    assert load_data(str(folder)).class_names == ("0", "1", "2")


def test_hidden_test_labels_are_no_test_split(make_parquet):
    labels = {"train": [0, 1, 2] * 10, "test": [-1] * 6}
    folder, _ = make_parquet({"train": 30, "test": 6}, labels=labels, features=datasets.Value("int64"))
    assert load_data(str(folder), validation=0).count("test") == 6
    assert load_data(str(folder), validation=0).count("train") == 24


@pytest.mark.parametrize(
    ("labels", "feature", "message"),
    [
        ([0, 1, 2, -1], "int64", "Row 3.*label -1"),
        ([0.5, 1, 2, 0], "float32", "label=NAME"),
        ([0, 1, 2, 3], "int64", "Row 3.*the class '3', which training does not have"),
    ],
)
def test_labels_that_make_no_sense(make_parquet, labels, feature, message):
    rows = {"train": [0, 1, 2] * 10, "test": labels}
    folder, _ = make_parquet({"train": 30, "test": 4}, labels=rows, features=datasets.Value(feature))
    with pytest.raises(UserError, match=message):
        load_data(str(folder))


def test_a_text_class_that_training_does_not_have(make_parquet):
    labels = {"train": ["ant", "bee"] * 10, "test": ["ant", "cat"]}
    folder, _ = make_parquet({"train": 20, "test": 2}, labels=labels, features=datasets.Value("string"))
    with pytest.raises(UserError, match="'cat'"):
        load_data(str(folder))


def test_columns_can_be_named(make_parquet):
    folder, _ = make_parquet({"train": 30, "test": 3}, label="species", features=datasets.Value("int64"))
    with pytest.raises(UserError, match=r"no label column.*label=NAME"):
        load_data(str(folder))
    assert load_data(f"{folder},label=species,image=img").num_classes == 3
    with pytest.raises(UserError, match="Did you mean 'species'"):
        load_data(f"{folder},label=specie")
    with pytest.raises(UserError, match="'img'"):
        load_data(f"{folder},label=species,image=image")


def test_the_only_class_label_is_found(make_parquet):
    folder, _ = make_parquet({"train": 30, "test": 3}, label="species")
    assert load_data(str(folder)).class_names == ("ant", "bee", "cat")


def test_the_only_split_is_learned_from(make_parquet):
    folder, _ = make_parquet({"test": 60})
    with pytest.warns(Notice, match=r"table has only the split test, which is used for training"):
        data = load_data(str(folder))
    assert [data.count(split) for split in ("train", "validation", "test")] == [43, 5, 12]


def test_an_empty_split(make_parquet):
    folder, _ = make_parquet({"train": 30, "test": 0})
    with pytest.raises(UserError, match="at least one row in each split"):
        load_data(str(folder))
    whole = datasets.load_dataset("parquet", data_files=str(folder / "train-00000-of-00001.parquet"))["train"]
    with pytest.raises(UserError, match="'test' of zoo is empty"):
        as_tables({"train": whole, "test": whole.select([])}, image=None, label=None, spec="zoo")


def test_no_image_column(tmp_path):
    datasets.Dataset.from_dict({"age": [1.5, 2.5], "label": [0, 1]}).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(UserError, match="no image column"):
        load_data(str(tmp_path))


def test_splits_that_are_not_read_are_told(make_parquet):
    whole = datasets.load_dataset(str(make_parquet({"train": 30})[0]))["train"]
    with pytest.warns(Notice, match="zoo also has the splits extra, which are not read"):
        found = as_tables({"train": whole, "test": whole, "extra": whole}, image=None, label=None, spec="zoo")
    assert list(found.splits) == ["train", "test"]
    with pytest.raises(UserError, match="zoo has the split 'tset': call it"):
        as_tables({"train": whole, "tset": whole}, image=None, label=None, spec="zoo")
    with pytest.raises(UserError, match="name the one to learn from 'train'"):
        as_tables({"trian": whole, "test": whole}, image=None, label=None, spec="zoo")
