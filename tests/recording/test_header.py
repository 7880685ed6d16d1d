import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.recording.header import Header, check, check_data, differences
from tutelage.recording.identity import DataIdentity
from tutelage.testing.toys import toy_header

HEADER = toy_header(
    values="float16",
    precision="bf16-mixed",
    layers={"layer1": (4, 2, 2)},
    stages={"layer1": (4, 2, 2), "layer2": (8, 1, 1)},
)
OTHER = {
    "keep": ("full", "another choice of what to keep (top5 there, full here)"),
    "values": ("float32", "another type of stored values (float16 there, float32 here)"),
    "classes": (11, "another number of classes (10 there, 11 here)"),
    "samples": (60, "another number of training samples (50 there, 60 here)"),
    "rows_per_shard": (10, "another number of rows per shard (20 there, 10 here)"),
    "augmentation": ("none", "other view parameters: another augmentation (crop:1 there, none here)"),
    "parameters": (3, "other view parameters"),
    "image_size": ((9, 8), "another size of the images ((8, 8) there, (9, 8) here)"),
    "seed": (1, "another seed (0 there, 1 here)"),
    "precision": ("32-true", "another precision of the teacher (bf16-mixed there, 32-true here)"),
    "teacher": (replace(HEADER.teacher, weights="abd"), "other weights of the teacher"),
    "data": (replace(HEADER.data, labels="x"), "other labels"),
    "layers": ({}, "other layers"),
}


def test_what_is_stored_comes_back(tmp_path):
    HEADER.write(tmp_path)
    assert Header.read(tmp_path) == HEADER
    assert json.loads((tmp_path / "recording.json").read_text())["version"] == 1


def test_a_header_knows_its_rows():
    assert HEADER.row_dtype.itemsize == 2 * 4 + 5 * (2 + 2) + 16 * 2
    assert HEADER.shards == 3
    assert HEADER.rows(2) == range(40, 50)


def stored(folder, **changes):
    HEADER.write(folder)
    content = json.loads((folder / "recording.json").read_text()) | changes
    (folder / "recording.json").write_text(json.dumps({key: item for key, item in content.items() if item is not None}))


@pytest.mark.parametrize("version", [2, "1", None])
def test_another_version_of_the_format_is_refused(version, tmp_path):
    stored(tmp_path, version=version)
    with pytest.raises(UserError, match=f"format is version {version}.* reads version 1"):
        Header.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seed": None}, "seed"),
        ({"seed": "0"}, "seed='0' is not of type int"),
        ({"seed": True}, "seed=True is not of type int"),
        ({"extra": 1}, "extra"),
        ({"teacher": {"name": "net"}}, "missing"),
        ({"teacher": [1]}, ""),
        (
            {"teacher": {"name": "net", "source": "s", "weights": 3, "normalization": ""}},
            "weights=3 is not of type str",
        ),
        ({"data": None}, "data"),
        ({"data": "digits"}, ""),
        ({"data": {"name": "d", "labels": "", "probes": "", "pixels": ""}}, "class_names"),
        ({"data": {"name": "d", "class_names": [1], "labels": "", "probes": "", "pixels": ""}}, "class_names=1"),
        ({"data": {"name": "d", "class_names": 2, "labels": "", "probes": "", "pixels": ""}}, ""),
        ({"image_size": 3}, ""),
        ({"image_size": [8]}, "not a height and a width"),
        ({"image_size": [8, 0]}, "image_size=0 is below 1"),
        ({"image_size": "88"}, "image_size='8'"),
        ({"layers": [1]}, ""),
        ({"layers": {"layer1": 3}}, ""),
        ({"layers": {"layer1": ["x"]}}, "layer1='x'"),
        ({"layers": {"layer1": [4, -2]}}, "layer1=-2 is below 1"),
        ({"layers": {"layer1": [10**9, 10**9, 10**9]}}, ""),
        ({"layers": {"layer1": [[4]]}}, "layer1=.4. is not of type int"),
        ({"stages": 1}, ""),
        ({"stages": {"layer1": [0]}}, "layer1=0 is below 1"),
        ({"keep": 5}, "keep=5 is not of type str"),
        ({"keep": "top20"}, "keeps 20 classes"),
        ({"keep": "most"}, "no scheme"),
        ({"values": "float8"}, "float8"),
        ({"values": ["float32"]}, "values="),
        ({"classes": "10"}, "classes='10'"),
        ({"classes": 0}, "classes=0 is below 1"),
        ({"samples": -1}, "samples=-1"),
        ({"samples": 1.5}, "samples=1.5"),
        ({"rows_per_shard": 0}, "rows_per_shard=0"),
        ({"parameters": -1}, "parameters=-1"),
        ({"parameters": 3}, "parameters=3 does not belong to crop:1"),
        ({"augmentation": "crop:x"}, ""),
        ({"augmentation": {}}, "augmentation="),
        ({"precision": 32}, "precision=32"),
    ],
    ids=str,
)
def test_a_damaged_or_incomplete_header_is_refused_with_the_reason(changes, why, tmp_path):
    stored(tmp_path, **changes)
    with pytest.raises(UserError, match=f"Its header is damaged or incomplete .*{why}.*: restore it from a copy"):
        Header.read(tmp_path)


def test_the_header_of_whoever_was_first_stays(tmp_path):
    HEADER.write(tmp_path)
    replace(HEADER, seed=1).write(tmp_path)
    assert Header.read(tmp_path) == HEADER
    assert [file.name for file in tmp_path.iterdir()] == ["recording.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_damaged_header_is_named(content, tmp_path):
    (tmp_path / "recording.json").write_text(content)
    with pytest.raises(UserError, match="recording.json is damaged"):
        Header.read(tmp_path)


def test_a_folder_without_a_recording_is_told(tmp_path):
    with pytest.raises(UserError, match="no recording in .*tutelage record"):
        Header.read(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no recording in"):
        Header.read(tmp_path / "file")


def test_every_fact_is_compared():
    # The stages follow from the teacher.
    assert OTHER.keys() == {field.name for field in fields(Header)} - {"stages"}
    assert differences(HEADER, replace(HEADER)) == []


@pytest.mark.parametrize("name", OTHER)
def test_a_difference_is_told_in_words(name):
    value, line = OTHER[name]
    [found] = differences(HEADER, replace(HEADER, **{name: value}))
    assert found.startswith(line)


def test_all_differences_are_told_at_once():
    check(Path("r"), HEADER, HEADER)
    with pytest.raises(UserError) as error:
        check(Path("r"), HEADER, replace(HEADER, seed=1, augmentation="none"))
    assert str(error.value).splitlines() == [
        "r holds a recording that was made differently:",
        "  other view parameters: another augmentation (crop:1 there, none here)",
        "  another seed (0 there, 1 here)",
        "Use the flags that it was made with, or choose another folder with --out.",
    ]


@pytest.fixture(scope="module")
def data():
    return load_data("digits")


@pytest.fixture
def fitting(data):
    return replace(HEADER, samples=data.count("train"), data=DataIdentity.of(data))


def test_the_same_data_are_accepted(data, fitting):
    check_data(Path("r"), fitting, data)
    check_data(Path("r"), fitting, data, augmentation="crop:1")


def test_other_data_are_refused(data, fitting):
    with pytest.raises(UserError, match=r"another augmentation \(crop:1 there, none here\)\nTrain on the data"):
        check_data(Path("r"), fitting, data, augmentation="none")
    with pytest.raises(UserError, match=r"data:\n  another number of training samples"):
        check_data(Path("r"), fitting, load_data("digits", subset=500))
    with pytest.raises(UserError, match=r"data:\n  other labels: .*\n  other pixels: .*\nTrain"):
        check_data(Path("r"), fitting, load_data("digits", split_seed=1))
    with pytest.raises(UserError, match=r"data:\n  another size of the images \(\(8, 8\) there, \(9, 9\)"):
        check_data(Path("r"), fitting, load_data("digits", image_size=9))
    with pytest.raises(UserError, match="another number of classes"):
        check_data(Path("r"), fitting, replace(data, num_classes=12))
