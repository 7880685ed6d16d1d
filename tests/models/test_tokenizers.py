import warnings

import pytest
import torch
from torch import nn

import tutelage
from tutelage.data.sources import load_data
from tutelage.data.texts import TokenSamples
from tutelage.errors import Notice, UserError
from tutelage.models import tokenizers
from tutelage.models.tokenizers import encoded_for

# As in tests/conftest.py.
FEW = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bad", "good"]
TEXT = [2, 5, 6, 5, 6, 7, 9, 3]


def encoded(reviews, spec, teachers=(), options="", **columns):
    return encoded_for(load_data(f"{reviews(**columns)}{options}"), [spec], teachers)


def test_texts_become_the_tokens_of_the_students_tokenizer(bert, reviews):
    data = encoded(reviews, f"transformers:{bert()}")
    assert isinstance(data.train, TokenSamples)
    inputs, targets = data.train.read_batch(torch.tensor([2, 0]))
    assert inputs["input_ids"].tolist() == [TEXT, [2, 7, 9, 3, 0, 0, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1] * 8, [1] * 4 + [0] * 4]
    assert targets.tolist() == [0, 0]
    assert data.example(2)["input_ids"].shape == (2, 6)


def test_pairs_are_one_sequence_of_two_kinds(bert, reviews):
    data = encoded(reviews, f"transformers:{bert()}", other=lambda number: "good")
    inputs, _ = data.train.read_batch(torch.tensor([0]))
    assert inputs["input_ids"].tolist() == [[2, 7, 9, 3, 8, 3]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]


def test_long_texts_are_cut_and_told(bert, reviews):
    spec = f"transformers:{bert()}"
    with pytest.warns(Notice, match="have 5 tokens or more"):
        data = encoded(reviews, spec, options=",tokens=5")
    inputs, _ = data.train.read_batch(torch.tensor([2]))
    assert inputs["input_ids"].tolist() == [[2, 5, 6, 5, 3]]
    # The network has 16 positions.
    with pytest.warns(Notice, match="have 16 tokens or more"):
        long = encoded_for(load_data(f"{reviews('long', other=lambda number: 'a ' * 40)},text=other"), [spec])
    assert int(long.train.lengths.max()) == 16


def test_tokens_are_part_of_what_the_data_are(bert, reviews):
    raw = load_data(str(reviews()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        one, again, other = (
            encoded_for(raw, [spec])
            for spec in (
                f"transformers:{bert()}",
                f"transformers:{bert('again', layers=1)}",
                f"transformers:{bert('other', words=['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'bad', 'good'])}",
            )
        )
    assert one.fingerprint == again.fingerprint
    assert len({raw.fingerprint, one.fingerprint, other.fingerprint}) == 3


def test_students_of_several_tokenizers_are_refused_and_so_are_teachers(bert, reviews):
    one, other = (f"transformers:{bert(name, words=words)}" for name, words in (("one", FEW), ("other", FEW[:-1])))
    data = load_data(str(reviews()))
    with pytest.raises(UserError, match="choose networks of one tokenizer"):
        encoded_for(data, [one, other])
    with pytest.raises(UserError, match="choose networks of one tokenizer"):
        encoded_for(data, [f"transformers:{bert()}"], [one, other])
    # Of a network of the user's own, nobody knows which tokens it reads.
    with pytest.raises(UserError, match="choose networks of one tokenizer"):
        encoded_for(data, [one], [other, nn.Linear(1, 1)])


def test_networks_without_a_tokenizer_are_refused(reviews):
    with pytest.raises(UserError, match="resnet20 reads images, and these data are texts"):
        encoded(reviews, "resnet20")
    with pytest.raises(UserError, match="its own tokenizer"):
        encoded_for(load_data(str(reviews("more"))), [nn.Linear(2, 2)])


def test_what_texts_cannot_do_yet_is_said(bert, reviews, tmp_path):
    data, teacher = str(reviews()), f"transformers:{bert()}"
    with pytest.raises(UserError, match="Recordings hold views of images"):
        tutelage.record(teacher, data=data, out=tmp_path / "recording", progress=False)
    with pytest.raises(UserError, match="Foreign data are images"):
        tutelage.distill("supervised", student=teacher, data=data, foreign="digits", epochs=1, progress=False)


def test_a_module_of_transformers_brings_its_tokenizer(bert, reviews):
    from transformers import AutoModelForSequenceClassification

    module = AutoModelForSequenceClassification.from_pretrained(bert())
    assert isinstance(encoded_for(load_data(str(reviews())), [module]).train, TokenSamples)


def test_images_stay_as_they_are():
    data = load_data("digits")
    assert encoded_for(data, ["resnet20"]) is data


def test_distillation_from_name_to_folder(bert, reviews, tmp_path):
    """A teacher is trained, taught from, evaluated and opened again, with nothing but names and folders."""
    folder, data = bert(), str(reviews(count=96))
    fast = {"batch_size": 8, "optimizer": "adamw", "lr": 0.01, "progress": False}
    tutelage.distill(
        "supervised", student=f"transformers:{folder}", data=data, out=tmp_path / "teacher", epochs=12, **fast
    )
    assert tutelage.evaluate(str(tmp_path / "teacher"), data=data).scores["accuracy"] > 0.9
    student = tutelage.distill(
        "kd",
        student=f"transformers:{tmp_path / 'teacher'},layers=2",
        teacher=str(tmp_path / "teacher"),
        data=data,
        out=tmp_path / "kd",
        epochs=2,
        **fast,
    )
    from transformers import AutoModelForSequenceClassification

    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "kd").eval()
    inputs = {"input_ids": torch.tensor([TEXT]), "attention_mask": torch.ones(1, 8, dtype=torch.int64)}
    with torch.no_grad():
        assert torch.equal(opened(**inputs).logits, student(**inputs).logits)
    assert (tmp_path / "kd" / "report.html").exists()


def test_tokens_of_many_texts_are_made_once(bert, reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokenizers, "LEAST", 20)
    data, spec = load_data(f"{reviews()},tokens=5"), f"transformers:{bert()}"
    with pytest.warns(Notice, match="have 5 tokens or more"):
        first = encoded_for(data, [spec])
    kept = sorted((tmp_path / "cache").glob("tokens-*"))
    # Of three splits, whose texts are the same.
    assert len(kept) == 1
    monkeypatch.setattr(tokenizers._Tokenizer, "_split", None)
    with pytest.warns(Notice, match="have 5 tokens or more"):
        again = encoded_for(data, [spec])
    rows = torch.arange(24)
    for one, other in zip(first.train.read_batch(rows), again.train.read_batch(rows)):
        if isinstance(one, dict):
            assert all((one[name] == other[name]).all() for name in one)
    with pytest.raises(TypeError):
        encoded_for(load_data(f"{reviews('other')},tokens=6"), [spec])
