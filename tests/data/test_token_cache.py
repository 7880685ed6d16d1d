"""Tokens on disk: kept once, read again as they were, deleted when there are too many."""

import os

import pytest
import torch

from tutelage.data import token_cache
from tutelage.data.texts import Tokens
from tutelage.data.token_cache import keep_tokens, recall_tokens, token_key


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tokens(count=3):
    columns = {"input_ids": torch.arange(6).int(), "token_type_ids": torch.ones(6).int()}
    return Tokens(columns, {"input_ids": 7, "token_type_ids": 0}, torch.tensor([1] * (count - 1) + [7 - count]))


def test_what_is_kept_comes_back(folder):
    assert recall_tokens("key") is None
    keep_tokens("key", tokens())
    found = recall_tokens("key")
    assert (found.lengths == tokens().lengths).all()
    assert found.padding == tokens().padding
    assert all((found.columns[name] == values).all() for name, values in tokens().columns.items())
    assert [file.name for file in folder.iterdir()] == ["tokens-key.safetensors"]


def test_a_damaged_file_is_as_good_as_none(folder):
    keep_tokens("key", tokens())
    (folder / "tokens-key.safetensors").write_bytes(b"half of i")
    assert recall_tokens("key") is None


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file"))
    keep_tokens("key", tokens())
    assert recall_tokens("key") is None


def test_files_that_were_not_used_for_longest_are_deleted(folder, monkeypatch):
    for number, key in enumerate(("old", "used", "new")):
        keep_tokens(key, tokens())
        os.utime(folder / f"tokens-{key}.safetensors", (number, number))
    (folder / "other").touch()
    assert recall_tokens("old") is not None
    size = (folder / "tokens-old.safetensors").stat().st_size
    monkeypatch.setattr(token_cache, "MOST_MIB", 3.5 * size / 2**20)
    keep_tokens("newest", tokens())
    assert {file.name for file in folder.iterdir()} == {
        "other", *(f"tokens-{key}.safetensors" for key in ("old", "new", "newest"))
    }  # fmt: skip


def test_the_key_tells_texts_columns_and_tokenizers_apart():
    keys = [
        token_key([["ab", "c"]], tokenizer="x"),
        token_key([["a", "bc"]], tokenizer="x"),
        token_key([["ab"], ["c"]], tokenizer="x"),
        token_key([["ab", "c"]], tokenizer="y"),
    ]
    assert len(set(keys)) == 4
    assert token_key([["ab", "c"]], tokenizer="x") == keys[0]
