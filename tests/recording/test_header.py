import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.recording.header import DataIdentity, Header, TeacherIdentity, check, check_data, differences

TEACHER = TeacherIdentity(name="net", source="runs/teacher", weights="abc", normalization="0.5:0.25")
HEADER = Header(
    keep="top5",
    values="float16",
    classes=10,
    samples=50,
    rows_per_shard=20,
    augmentation="crop:1",
    parameters=2,
    image_size=(8, 8),
    seed=0,
    precision="bf16-mixed",
    teacher=TEACHER,
    data=DataIdentity(name="digits", fingerprint="def", pixels="012"),
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
    "teacher": (replace(TEACHER, weights="abd"), "other weights of the teacher"),
    "data": (DataIdentity(name="cifar10", fingerprint="x", pixels="y"), "another dataset (digits there, cifar10 here)"),
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
    with pytest.raises(UserError, match=f"version {version} of the format.* reads version 1"):
        Header.read(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"seed": None}, {"teacher": {"name": "net"}}, {"layers": [1]}, {"extra": 1}, {"data": None}, {"image_size": 3}],
    ids=str,
)
def test_an_incomplete_header_is_refused(changes, tmp_path):
    stored(tmp_path, **changes)
    with pytest.raises(UserError, match="its header is incomplete|Its header is incomplete"):
        Header.read(tmp_path)


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
        "r holds a recording that was made otherwise:",
        "  other view parameters: another augmentation (crop:1 there, none here)",
        "  another seed (0 there, 1 here)",
        "Repeat the flags that it was made with, or choose another folder with --out.",
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
    with pytest.raises(UserError, match=r"another dataset: digits(.|\n)*another number of training samples"):
        check_data(Path("r"), fitting, load_data("digits", subset=500))
    with pytest.raises(UserError, match=r"another dataset(.|\n)*another size of the images \(\(8, 8\) there, \(9, 9\)"):
        check_data(Path("r"), fitting, load_data("digits", image_size=9))
    with pytest.raises(UserError, match="another number of classes"):
        check_data(Path("r"), fitting, replace(data, num_classes=12))
