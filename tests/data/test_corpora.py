import json

import pytest
import torch

from tutelage.data.corpora import COUNTED, NextTokens, RawCorpus, in_blocks
from tutelage.data.sources import load_data
from tutelage.data.texts import Tokens, TokenSamples
from tutelage.errors import Notice, UserError


def write(folder, rows, name="train.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def rows(count=20, **columns):
    return [{name: of(number) for name, of in columns.items()} for number in range(count)]


def corpus(spec):
    return load_data(spec, task="language")


def tokens(*texts, counted=None):
    flat = torch.tensor([token for text in texts for token in text])
    columns = {"input_ids": flat, COUNTED: torch.ones_like(flat) if counted is None else torch.tensor(counted)}
    return Tokens(columns, {"input_ids": 0, COUNTED: 0}, torch.tensor([len(text) for text in texts]))


def test_lines_of_plain_text(tmp_path):
    (tmp_path / "train.txt").write_text("one\n\ntwo words\nthree\n" * 10)
    (tmp_path / "test.txt").write_text("four\n")
    with pytest.warns(Notice, match="10 empty texts of the split 'train'"):
        data = corpus(str(tmp_path))
    assert isinstance(data.train, RawCorpus)
    # A tenth is held out by lines.
    assert (data.count("train"), data.count("validation"), data.count("test")) == (27, 3, 1)
    assert data.unlabelled == frozenset()
    assert data.offers == {"targets", "answers", "tokens", "next-tokens"}
    with pytest.warns(Notice, match="empty texts"):
        assert corpus(str(tmp_path / "train.txt")).count("test") == 6


def test_the_only_column_of_text_is_read_and_labels_are_not(tmp_path):
    folder = write(tmp_path, rows(sentence=str, label=lambda number: number % 2))
    assert sorted(corpus(folder).test.columns[0], key=int)[0].isdecimal()
    folder = write(tmp_path / "two", rows(text=str, title=lambda number: "title"))
    assert "title" not in corpus(folder).train.columns[0], "a column called text is the usual one"
    assert set(corpus(f"{folder},text=title").train.columns[0]) == {"title"}


def test_prompts_and_completions(tmp_path):
    folder = write(tmp_path, rows(completion=lambda number: f"c{number}", prompt=lambda number: f"p{number}"))
    prompts, completions = corpus(folder).train.columns
    assert all(one[0] == "p" and other == f"c{one[1:]}" for one, other in zip(prompts, completions, strict=True))
    with pytest.raises(UserError, match="a completion belongs to its prompt"):
        corpus(f"{folder},blocks=8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (",text=one+two+number", "holds no text"),
        (",text=one+two+three", "name one of texts, or PROMPT"),
        (",text=ones", "Did you mean 'one'"),
        ("", "has the text columns one, two, three"),
        (",text=one,label=two", "leave out label=, because these texts are their own labels"),
        (",text=one,tokens=4,blocks=4", "leave out tokens="),
        (",text=one,blocks=none", "blocks=none is no number of tokens"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, options, words):
    folder = write(tmp_path, rows(one=str, two=str, three=str, number=int))
    with pytest.raises(UserError, match=words):
        corpus(folder + options)


def test_other_data_and_other_tasks_are_refused(tmp_path):
    with pytest.raises(UserError, match="are images, and the task 'language' reads texts"):
        corpus("digits")
    folder = write(tmp_path, rows(text=str, label=lambda number: number % 2))
    with pytest.raises(UserError, match="the task 'classification' keeps apart"):
        load_data(f"{folder},blocks=8")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no texts: give plain text"):
        corpus(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="no column of texts, only number"):
        corpus(write(tmp_path / "numbers", rows(number=int)))
    with pytest.raises(UserError, match="holds no text in the column 'text'"):
        corpus(write(tmp_path / "blank", rows(text=lambda number: " ")))


def test_blocks_are_other_data(tmp_path):
    folder = write(tmp_path, rows(text=str))
    found = {corpus(folder + options).fingerprint for options in ("", ",blocks=8", ",blocks=9", ",tokens=8")}
    assert len(found) == 4


def test_a_batch_and_what_comes_next():
    samples = NextTokens(tokens([5, 6, 7], [8, 9], [3, 4, 5, 6], counted=[1, 1, 1, 0, 0, 0, 0, 1, 1]), None)
    inputs, targets = samples.read_batch(torch.tensor([0, 2, 1]))
    assert inputs["input_ids"].tolist() == [[5, 6, 7, 0], [3, 4, 5, 6], [8, 9, 0, 0]]
    assert targets.tolist() == [[6, 7, -1, -1], [-1, 5, 6, -1], [-1, -1, -1, -1]]
    assert set(inputs) == {"input_ids", "attention_mask"}
    chosen = samples.select([2, 0]).to("cpu")
    assert isinstance(chosen, NextTokens)
    assert chosen.has_targets
    assert chosen.read_batch(torch.tensor([1]))[1].tolist() == [[6, 7, -1]]


def test_targets_can_be_left_out_and_not_replaced():
    samples = NextTokens(tokens([5, 6, 7], [8, 9]), None).select([1])
    hidden = samples.with_targets(None)
    assert type(hidden) is TokenSamples
    inputs, targets = hidden.read_batch(torch.tensor([0]))
    assert (inputs["input_ids"].tolist(), targets) == ([[8, 9]], None)
    assert not hidden.has_targets
    raw = RawCorpus([["a"]])
    assert not raw.with_targets(None).has_targets
    for one in (samples, raw):
        with pytest.raises(UserError, match="cannot be replaced"):
            one.with_targets(torch.zeros(1))


def test_blocks_lose_no_token_but_a_last_one_alone():
    texts = tokens([1, 2, 3], [4, 5], [6, 7, 8, 9])
    blocks = in_blocks(texts, 4)
    assert blocks.lengths.tolist() == [4, 4]
    assert blocks.columns["input_ids"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert in_blocks(texts, 6).lengths.tolist() == [6, 3]
    assert in_blocks(texts, 100).lengths.tolist() == [9]
