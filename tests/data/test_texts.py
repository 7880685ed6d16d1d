import pytest
import torch

from tutelage.data.texts import RawTexts, Tokens, TokenSamples, texts_digest
from tutelage.errors import UserError

ROWS = [[5, 6, 7], [8], [9, 10], [1, 2, 3, 4]]


def samples(targets=True):
    flat = torch.tensor([token for row in ROWS for token in row]).int()
    tokens = Tokens({"input_ids": flat, "kinds": flat % 2}, {"input_ids": 0, "kinds": 3}, torch.tensor([3, 1, 2, 4]))
    return TokenSamples(tokens, torch.arange(4) if targets else None)


def test_a_batch_is_padded_to_its_own_longest_text():
    inputs, targets = samples().read_batch(torch.tensor([2, 1]))
    assert inputs["input_ids"].tolist() == [[9, 10], [8, 0]]
    assert inputs["kinds"].tolist() == [[1, 0], [0, 3]]
    assert inputs["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert targets.tolist() == [2, 1]
    assert all(value.dtype == torch.int64 for value in inputs.values())


def test_chosen_texts_are_the_same_texts():
    chosen = samples().select([3, 0])
    inputs, targets = chosen.read_batch(torch.tensor([1, 0, 1]))
    assert inputs["input_ids"].tolist() == [[5, 6, 7, 0], [1, 2, 3, 4], [5, 6, 7, 0]]
    assert targets.tolist() == [0, 3, 0]
    assert chosen.lengths.tolist() == [4, 3]
    assert len(chosen) == 2


def test_texts_without_targets():
    inputs, targets = samples().with_targets(None).read_batch(torch.tensor([1]))
    assert inputs["input_ids"].tolist() == [[8]]
    assert targets is None
    assert samples(targets=False).to("cpu").targets is None


def test_no_texts_make_an_empty_batch():
    inputs, targets = samples().read_batch(torch.tensor([], dtype=torch.int64))
    assert inputs["input_ids"].shape == (0, 0)
    assert len(targets) == 0


def test_raw_texts_are_refused_by_a_network_without_a_tokenizer():
    with pytest.raises(UserError, match="transformers:NAME"):
        RawTexts([["a", "b"]], None).read_batch([0])


def test_raw_texts_keep_columns_targets_and_limit():
    raw = RawTexts([["a", "b", "c"], ["x", "y", "z"]], torch.tensor([0, 1, 2]), limit=7).select([2, 0])
    assert raw.columns == (["c", "a"], ["z", "x"])
    assert raw.targets.tolist() == [2, 0]
    assert raw.limit == 7
    assert raw.with_targets(None).targets is None


def test_the_digest_sees_where_a_text_ends():
    one, other = (texts_digest({"train": RawTexts([texts], None)}) for texts in (["ab", "c"], ["a", "bc"]))
    assert one != other
    assert one == texts_digest({"train": RawTexts([["ab", "c"]], None)})
    assert one != texts_digest({"train": RawTexts([["ab", "c"]], None, limit=3)})
    assert one != texts_digest({"train": RawTexts([["ab", "c"]], torch.tensor([0, 1]))})
