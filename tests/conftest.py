"""What all tests share."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

SHARED_DATA = Path(os.environ.get("TUTELAGE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _named_code(tmp_path_factory, monkeypatch):
    """Factories that tests name are not remembered for the person who runs them."""
    ledger = tmp_path_factory.getbasetemp() / "named-code"
    monkeypatch.setattr("tutelage.models.trust._ledger", lambda: ledger)


@pytest.fixture
def shared_data():
    """The folder of development datasets; the test skips where it is absent."""
    if not SHARED_DATA.exists():
        pytest.skip(f"the development datasets are not at {SHARED_DATA} (set TUTELAGE_SHARED_DATA)")
    return SHARED_DATA


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "a", "good", "bad", "."]


@pytest.fixture
def bert(tmp_path):
    """Make folders of tiny BERTs with random weights and a tokenizer; the test skips without transformers."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'tutelage[text]'")

    def make(name="bert", *, layers=4, hidden=8, labels=2, seed=0, words=WORDS, classifier=True):
        torch.manual_seed(seed)
        kind = transformers.BertForSequenceClassification if classifier else transformers.BertModel
        sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2, "num_labels": labels}
        limits = {"vocab_size": len(words), "intermediate_size": 2 * hidden, "max_position_embeddings": 16}
        kind(transformers.BertConfig(**sizes, **limits)).save_pretrained(tmp_path / name)
        tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words)})
        tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.fixture
def gpt(tmp_path):
    """Make folders of tiny networks of GPT-2's kind and a tokenizer; the test skips without transformers."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'tutelage[text]'")

    def make(name="gpt", *, layers=2, hidden=8, seed=0, words=WORDS, rows=None):
        torch.manual_seed(seed)
        sizes = {"n_embd": hidden, "n_layer": layers, "n_head": 2, "n_positions": 16, "vocab_size": rows or len(words)}
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(tmp_path / name)
        tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words)})
        tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.fixture
def reviews(tmp_path):
    """Make a folder of short reviews in JSON lines, whose last word tells the label."""
    import json

    def make(name="reviews", *, count=24, **columns):
        folder = tmp_path / name
        folder.mkdir()
        for split in ("train", "validation", "test"):
            rows = []
            for number in range(count):
                word = ("bad", "good")[number % 2]
                text = "the film " * (number % 3) + f"a {word}"
                rows.append({"sentence": text, "label": word} | {key: of(number) for key, of in columns.items()})
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return folder

    return make


hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    # A new counterexample belongs to whoever looks for one, not to an unrelated change.
    hypothesis.settings.load_profile("ci")
