"""From texts to the tokens that a network continues, and networks of transformers that do so."""

import json

import pytest
import torch

from tutelage.data.sources import load_data
from tutelage.errors import Notice, UserError
from tutelage.models.blueprint import blueprint
from tutelage.models.corpora import vocabulary_size
from tutelage.models.tokenizers import encoded_for

# As in tests/conftest.py: [CLS] and [SEP] are 2 and 3.
FILM = [2, 5, 6, 7, 9, 3]


def encoded(folder, spec, text="the film a bad", options="", teachers=(), **columns):
    folder.mkdir(exist_ok=True)
    row = {"text": text} | columns
    (folder / "train.jsonl").write_text("\n".join([json.dumps(row)] * 20))
    return encoded_for(load_data(f"{folder}{options}", task="language"), [spec], teachers)


def batch(data, rows=(0,)):
    return data.train.read_batch(torch.tensor(rows))


def test_texts_begin_and_end_as_the_tokenizer_marks_them(gpt, tmp_path):
    data = encoded(tmp_path / "data", f"transformers:{gpt()}")
    inputs, targets = batch(data)
    assert inputs["input_ids"].tolist() == [FILM]
    assert targets.tolist() == [[*FILM[1:], -1]]
    assert (data.num_classes, data.class_names) == (11, ())


def test_texts_of_a_tokenizer_with_an_end_and_no_beginning(gpt, tmp_path):
    import transformers

    folder = gpt()
    words = {"<|endoftext|>": 0, "<unk>": 1, "the": 2, "film": 3}
    from tokenizers import Tokenizer, models, pre_tokenizers

    own = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|endoftext|>")
    fast.save_pretrained(folder)
    inputs, targets = batch(encoded(tmp_path / "data", f"transformers:{folder}", text="the film"))
    # Without a token for padding any other serves, for it never counts.
    assert inputs["input_ids"].tolist() == [[2, 3, 0]]
    assert targets.tolist() == [[3, 0, -1]]


def test_prompts_are_not_learned(gpt, tmp_path):
    columns = {"prompt": "the film", "completion": "a bad"}
    inputs, targets = batch(encoded(tmp_path / "data", f"transformers:{gpt()}", **columns))
    assert inputs["input_ids"].tolist() == [FILM]
    assert targets.tolist() == [[-1, -1, 7, 9, 3, -1]]


def test_blocks_go_on_from_text_to_text(gpt, tmp_path):
    data = encoded(tmp_path / "data", f"transformers:{gpt()}", options=",blocks=8")
    inputs, targets = batch(data, (0, 1))
    assert inputs["input_ids"].flatten().tolist() == (FILM * 3)[:16]
    assert targets[0].tolist() == [*(FILM * 2)[1:8], -1]
    assert set(data.train.lengths.tolist()[:-1]) == {8}
    with pytest.raises(UserError, match="reads 16 tokens at most, and blocks=17"):
        encoded(tmp_path / "data", f"transformers:{gpt()}", options=",blocks=17")


def test_long_texts_are_cut_and_told(gpt, tmp_path):
    with pytest.warns(Notice, match="have more than 4 tokens: what comes after is not read"):
        data = encoded(tmp_path / "data", f"transformers:{gpt()}", options=",tokens=4")
    assert batch(data)[0]["input_ids"].tolist() == [FILM[:4]]


def test_texts_are_cut_for_the_network_that_takes_the_fewest_tokens(gpt, tmp_path):
    short = gpt("short")
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    (tmp_path / "short" / "config.json").write_text(json.dumps(config | {"n_positions": 4}))
    with pytest.warns(Notice, match="have more than 4 tokens"):
        data = encoded(tmp_path / "data", f"transformers:{gpt()}", teachers=[f"transformers:{short}"])
    assert batch(data)[0]["input_ids"].tolist() == [FILM[:4]]


def test_another_vocabulary_of_the_same_size_is_refused(gpt, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "a", "bad", "good", "."]
    other = gpt("other", words=words)
    with pytest.raises(UserError, match=f"transformers:{other} splits these texts into other tokens"):
        encoded(tmp_path / "data", f"transformers:{gpt()}", teachers=[f"transformers:{other}"])


def test_the_size_of_a_vocabulary(gpt):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(gpt())
    assert vocabulary_size(tokenizer) == 11
    tokenizer.add_tokens(["new"])
    assert vocabulary_size(tokenizer) == 12


def test_the_task_makes_a_network_that_continues_texts(gpt, tmp_path):
    folder = gpt(layers=3, hidden=8, rows=16)
    data = encoded(tmp_path / "data", f"transformers:{folder}")
    plan = blueprint(f"transformers:{folder}", data)
    assert plan.trained
    assert not blueprint(f"transformers:{folder},layers=1", data).trained
    inputs, _ = batch(data)
    import transformers

    own = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        network = plan.build(0, "student").eval()
        assert torch.equal(network(**inputs).logits, own(**inputs).logits)
        # Fewer layers, and a fresh small one.
        fewer = blueprint(f"transformers:{folder},layers=2", data).build(0, "student").model
        assert [block.attn.layer_idx for block in fewer.transformer.h] == [0, 1]
        small = blueprint(f"transformers:{folder},layers=1,hidden=4,heads=1", data).build(0, "student").model
        assert (small.config.n_embd, small(**inputs).logits.shape) == (4, (1, 6, 16))


def test_fewer_layers_of_networks_that_share_keys_and_list_their_layers(gpt, tmp_path):
    """As Llama's and Qwen's kinds do, whose configurations tell more of their layers."""
    import transformers

    from tutelage.models.saving import save_network

    folder = gpt()
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**sizes, num_hidden_layers=3, vocab_size=32, max_position_embeddings=16)
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    data = encoded(tmp_path / "data", f"transformers:{folder}")
    inputs, _ = batch(data)
    fewer = blueprint(f"transformers:{folder},layers=1+3", data).build(0, "student").eval()
    assert [layer.self_attn.layer_idx for layer in fewer.model.model.layers] == [0, 1]
    save_network(tmp_path / "run", fewer, spec=fewer.spec, num_classes=data.num_classes, in_channels=0, class_names=())
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run").eval()
    with torch.no_grad():
        torch.testing.assert_close(opened(**inputs).logits, fewer(**inputs).logits)
        # It can write on, remembering what it has read.
        longer = opened.generate(**inputs, max_new_tokens=3, do_sample=False, pad_token_id=0)
        assert longer.shape[1] > inputs["input_ids"].shape[1]
    small = blueprint(f"transformers:{folder},hidden=8,heads=2,layers=2", data).build(0, "student").model.config
    assert (small.num_key_value_heads, small.intermediate_size, len(small.layer_types)) == (1, 12, 2)


def test_an_encoder_learns_to_look_back_alone(bert, tmp_path):
    """Made as it is, BERT would see the tokens that it is to predict."""
    spec = f"transformers:{bert(classifier=False)}"
    data = encoded(tmp_path / "data", spec)
    network = blueprint(spec, data).build(0, "student").eval()
    assert network.model.config.is_decoder
    inputs, _ = batch(data)
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, -1] = 8
    with torch.no_grad():
        one, other = network(**inputs).logits, network(**changed).logits
    torch.testing.assert_close(one[:, :-1], other[:, :-1])


def test_a_network_that_looks_ahead_is_refused(gpt, tmp_path, monkeypatch):
    import transformers

    class Seer(transformers.GPT2LMHeadModel):
        def forward(self, input_ids, attention_mask=None, **options):
            return super().forward(input_ids=input_ids.flip(1), attention_mask=attention_mask, **options)

    monkeypatch.setattr(transformers, "AutoModelForCausalLM", Seer)
    spec = f"transformers:{gpt()}"
    with pytest.raises(UserError, match="sees the tokens that come next"):
        blueprint(spec, encoded(tmp_path / "data", spec)).build(0, "student")


def test_a_network_of_fewer_rows_than_the_vocabulary_is_refused(gpt, tmp_path):
    spec = f"transformers:{gpt(rows=10)}"
    data = encoded(tmp_path / "data", spec, text="the film")
    with pytest.raises(UserError, match="has numbers for 10 tokens, and its tokenizer's vocabulary has 11"):
        blueprint(spec, data).build(0, "student")
