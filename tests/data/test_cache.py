import pytest
import torch

from tutelage.data.cache import Decoded, cache_folder, content_digest, key_of, recall, store
from tutelage.data.images import ResidentImages


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    images = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8)
    splits = {"train": ResidentImages(images, torch.arange(6)), "test": ResidentImages(images[:2], torch.arange(2))}
    return Decoded(splits, ("ant", "bee"), content_digest(splits))


def test_what_is_stored_comes_back(decoded):
    assert recall("key") is None
    store("key", decoded)
    back = recall("key")
    assert back.class_names == decoded.class_names
    assert back.digest == decoded.digest == content_digest(back.splits)
    for name, samples in decoded.splits.items():
        assert torch.equal(back.splits[name].images, samples.images)
        assert torch.equal(back.splits[name].targets, samples.targets)


def test_storing_twice_leaves_one_whole_entry(decoded):
    store("key", decoded)
    store("key", decoded)
    assert [path.name for path in cache_folder().iterdir()] == ["decoded-key"]
    assert recall("key") is not None


def test_changing_what_came_back_does_not_change_the_store(decoded):
    store("key", decoded)
    recall("key").splits["train"].images.zero_()
    assert content_digest(recall("key").splits) == decoded.digest


def test_a_damaged_entry_is_forgotten(decoded):
    store("key", decoded)
    (cache_folder() / "decoded-key" / "train-images.npy").write_bytes(b"")
    assert recall("key") is None


def test_a_damaged_entry_is_replaced(decoded):
    store("key", decoded)
    (cache_folder() / "decoded-key" / "about.json").write_text("{")
    store("key", decoded)
    assert recall("key") is not None


def test_a_cache_that_cannot_be_written_is_skipped(decoded, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file" / "cache"))
    store("key", decoded)
    assert recall("key") is None


def test_keys_and_digests_depend_on_all():
    assert key_of(a=1, b=None) == key_of(b=None, a=1) != key_of(a=1, b=2)
    images, targets = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    digests = {
        content_digest({"train": ResidentImages(images, targets)}),
        content_digest({"test": ResidentImages(images, targets)}),
        content_digest({"train": ResidentImages(images + 1, targets)}),
        content_digest({"train": ResidentImages(images, targets + 1)}),
        content_digest({"train": ResidentImages(images.view(2, 1, 1, 4), targets)}),
    }
    assert len(digests) == 5
