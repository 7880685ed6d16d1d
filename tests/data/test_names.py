import pytest

from tutelage.data.names import parse_spec
from tutelage.errors import Notice, UserError


def test_names():
    assert parse_spec("digits").name == "digits"
    assert parse_spec("cifar100").hub == "uoft-cs/cifar100"
    assert parse_spec("fashion-mnist").name == "fashion-mnist"
    assert parse_spec("hf:owner/Some_Name").hub == "owner/Some_Name"
    assert parse_spec("owner/Some_Name").name == "some-name"


def test_folders_and_columns(tmp_path):
    (tmp_path / "fashion_mnist").mkdir()
    spec = parse_spec(f"{tmp_path}/fashion_mnist, label=coarse_label ,image=img")
    assert (spec.name, spec.label, spec.image) == ("fashion-mnist", "coarse_label", "img")
    assert spec.path == tmp_path / "fashion_mnist"


def test_a_local_folder_wins_over_the_hub(tmp_path, monkeypatch):
    (tmp_path / "owner" / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_spec("owner/photos").path is not None
    with pytest.raises(UserError, match="owner/photos"):
        parse_spec("owner/photo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar1000", "'cifar10"),
        ("digit", "'digits'"),
        ("", "no name"),
        ("digits,label=x", "no columns"),
        ("cifar10,lable=x", "'label'"),
        ("cifar10,label", "label=COLUMN"),
        ("/nowhere/at/all", "There is no folder '/nowhere/at' either"),
        ("./zzzz", "folder of Parquet"),
    ],
)
def test_wrong_texts_say_what_to_write(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        parse_spec(text)


def test_the_nearest_folder_is_named(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=f"Did you mean '{tmp_path}/photos'"):
        parse_spec(f"{tmp_path}/photo")


def test_a_folder_may_have_commas_in_its_name(tmp_path):
    for name in ("summer, 2020", "a,label=b"):
        folder = tmp_path / name
        folder.mkdir()
        assert parse_spec(str(folder)).path == folder
        spec = parse_spec(f"{folder},label=kind")
        assert (spec.path, spec.label) == (folder, "kind")


def test_a_column_is_given_once():
    with pytest.raises(UserError, match="label is given twice in the data 'cifar10,label=a,label=b'"):
        parse_spec("cifar10,label=a,label=b")


@pytest.mark.parametrize("name", ["photos, 2021", "photos [v2]", "a,b", "photos,label"])
def test_a_folder_may_have_commas_and_brackets_in_its_name(tmp_path, name):
    (tmp_path / name).mkdir()
    assert parse_spec(f"{tmp_path}/{name}").path == tmp_path / name
    spec = parse_spec(f"{tmp_path}/{name},label=coarse")
    assert (spec.path, spec.label) == (tmp_path / name, "coarse")


def test_a_folder_called_as_a_dataset_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10").mkdir()
    with pytest.warns(Notice, match=r"For the folder of that name here, write \./cifar10"):
        assert parse_spec("cifar10").hub == "uoft-cs/cifar10"
    assert parse_spec("./cifar10").path is not None


def test_a_text_that_is_too_long_for_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="There are no data at"):
        parse_spec("x" * 5000)
