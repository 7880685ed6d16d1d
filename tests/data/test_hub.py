import datasets
import pytest

from tutelage.data.contents import Contents
from tutelage.data.sources import load_data
from tutelage.data.walk import walk
from tutelage.errors import UserError


def test_a_failed_download_points_to_a_local_folder(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match="give the local folder instead"):
        load_data("cifar10")


def test_a_hub_dataset_is_loaded_by_name(monkeypatch, make_parquet):
    folder, _ = make_parquet({"train": 30, "test": 6})
    real, asked = datasets.load_dataset, []

    def load(name, **options):
        asked.append(name)
        return real(str(folder), **options)

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = load_data("owner/animals")
    assert asked == ["owner/animals"]
    assert (data.name, data.num_classes, data.count("test")) == ("animals", 3, 6)
    assert load_data("owner/animals").fingerprint == data.fingerprint


def test_a_parquet_file_and_a_saved_dataset(make_parquet, tmp_path):
    folder, _ = make_parquet({"train": 30})
    assert load_data(str(folder / "train-00000-of-00001.parquet"), validation=0).count("train") == 24
    saved = tmp_path / "saved"
    datasets.load_dataset(str(folder)).save_to_disk(str(saved))
    assert load_data(str(saved), validation=0).count("train") == 24


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "train.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="cannot be read as a dataset"):
        load_data(str(tmp_path))


def test_nothing_is_written_next_to_the_data(make_parquet):
    folder, _ = make_parquet({"train": 30, "test": 6})
    before = Contents.of(walk(folder)).listing
    load_data(str(folder))
    assert Contents.of(walk(folder)).listing == before


def test_an_unwritable_hugging_face_cache_is_no_obstacle(make_parquet, tmp_path, monkeypatch):
    folder, _ = make_parquet({"train": 30, "test": 6})
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    assert load_data(str(folder)).num_classes == 3


def test_progress_bars_stay_as_they_were(make_parquet, capfd):
    from datasets.utils.tqdm import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    folder, _ = make_parquet({"train": 30, "test": 6})
    capfd.readouterr()
    load_data(str(folder))
    assert capfd.readouterr() == ("", "")
    assert are_progress_bars_disabled() == before
