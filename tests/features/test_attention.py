import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.errors import UserError
from tutelage.features.attention import ATTENTION, attention_blocks, heard
from tutelage.features.extractor import FeatureExtractor
from tutelage.testing.toys import ToyNetwork, toy_transformer

INPUTS = {
    "input_ids": torch.tensor([[2, 5, 6, 3, 0], [2, 7, 8, 9, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1] * 5]),
}


def network(kind="Bert", implementation="sdpa", **options):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'tutelage[text]'")
    sizes = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 2}
    config = getattr(transformers, f"{kind}Config")(**sizes, intermediate_size=16, **options)
    config._attn_implementation = implementation
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_what_is_read_is_what_transformers_gives(implementation):
    own = network(implementation="eager")(**INPUTS, output_attentions=True).attentions
    read = attention_blocks(network(implementation=implementation), INPUTS)
    assert list(read) == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    for found, expected in zip(read.values(), own, strict=True):
        assert found.shape == (2, 2, 5, 5)
        torch.testing.assert_close(found.exp(), expected.detach())
        # Nothing attends to padding.
        assert (found[0, :, :, 4].exp() == 0).all()


@pytest.mark.parametrize("kind", ["Roberta", "DistilBert", "DebertaV2"])
def test_kin_of_bert_can_be_read(kind):
    options = {"dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 16} if kind == "DistilBert" else {}
    read = attention_blocks(network(kind, "eager", **options), INPUTS)
    assert [name.rpartition(".")[2] for name in read] == ["0", "1"]
    assert all(torch.allclose(found.exp().sum(3), torch.ones(())) for found in read.values())


def test_reading_changes_nothing_and_comes_before_dropout():
    bert = network(attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0).train()
    places = ["bert.encoder.layer.0" + ATTENTION]
    reader = FeatureExtractor(bert, places, example=INPUTS)
    assert reader.shapes[places[0]] == (2, 2, 5, 5)
    torch.manual_seed(0)
    output = reader(INPUTS)
    reader.release()
    torch.manual_seed(0)
    assert torch.equal(output.logits, bert(**INPUTS).logits)
    # The first block sees no dropout but its own, which comes after what is read.
    steady = heard(bert, ["bert.encoder.layer.0"], INPUTS)
    torch.testing.assert_close(output.features[places[0]].detach(), steady["bert.encoder.layer.0"])
    query = bert.bert.encoder.layer[0].attention.self.query
    (gradient,) = torch.autograd.grad(output.features[places[0]][:, :, :, 0].sum(), query.weight)
    assert gradient.abs().sum() > 0


def test_a_reader_stops_early_survives_a_copy_and_is_not_compiled():
    bert = network()
    place = "bert.encoder.layer.0" + ATTENTION
    whole = FeatureExtractor(bert, [place], example=INPUTS)(INPUTS).features[place]
    ended = []
    bert.classifier.register_forward_hook(lambda *_: ended.append(1))
    reader = FeatureExtractor(bert, [place], example=INPUTS, logits=False)
    ended.clear()
    reader.compile(whole=(2,))
    assert torch.equal(reader(INPUTS).features[place], whole)
    assert not ended
    assert torch.equal(copy.deepcopy(reader)(INPUTS).features[place], whole)


def test_a_pass_that_breaks_off_leaves_nothing_behind():
    bert = network()
    place = "bert.encoder.layer.1" + ATTENTION
    reader = FeatureExtractor(bert, [place], example=INPUTS)
    expected = reader(INPUTS).features[place]
    with pytest.raises(IndexError):
        reader({**INPUTS, "input_ids": INPUTS["input_ids"] + 100})
    assert torch.equal(reader(INPUTS).features[place], expected)


class Attending(nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.layers, self.attend = nn.ModuleList([nn.Identity()]), attend
        self.layers[0].forward = self.attend

    def forward(self, inputs):
        return self.layers[0](inputs).mean((1, 2))


Q = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("attend", "scores"),
    [
        (lambda q: F.softmax(q @ q.mT, dim=-1) @ q, Q @ Q.mT),
        (lambda q: torch.softmax(q @ q.mT, 3) @ q, Q @ Q.mT),
        (lambda q: (q @ q.mT).softmax(-1) @ q, Q @ Q.mT),
        (lambda q: nn.Softmax(-1)(q @ q.mT) @ q, Q @ Q.mT),
        (lambda q: F.scaled_dot_product_attention(q, q, q), Q @ Q.mT / 5**0.5),
        (lambda q: F.scaled_dot_product_attention(q, q, q, scale=0.3), Q @ Q.mT * 0.3),
        (
            lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True),
            (Q @ Q.mT / 5**0.5).masked_fill(torch.ones(3, 3).triu(1) > 0, -torch.inf),
        ),
        (
            lambda q: F.scaled_dot_product_attention(q, q[:, :2], q[:, :2], enable_gqa=True),
            Q @ Q[:, [0, 0, 1, 1]].mT / 5**0.5,
        ),
        (
            lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=torch.tensor([[True, True, False]])),
            (Q @ Q.mT / 5**0.5).masked_fill(torch.tensor([False, False, True]), -torch.inf),
        ),
        (
            lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=torch.tensor([[0.0, 1.0, -2.0]])),
            Q @ Q.mT / 5**0.5 + torch.tensor([0.0, 1.0, -2.0]),
        ),
    ],
)
def test_every_way_to_attend(attend, scores):
    (found,) = attention_blocks(Attending(attend), Q).values()
    torch.testing.assert_close(found.exp(), scores.softmax(-1))


def test_one_head_and_a_row_that_hides_everything():
    hidden = torch.full((2, 3, 3), -torch.inf)
    (found,) = attention_blocks(Attending(lambda q: (q.mean(1) @ q.mean(1).mT + hidden).softmax(-1)), Q).values()
    assert found.shape == (2, 1, 3, 3)
    assert torch.isfinite(found).all()


def test_vision_transformers_can_be_read():
    found = attention_blocks(toy_transformer(depth=2), torch.randn(2, 3, 32, 32))
    assert {name: tuple(one.shape) for name, one in found.items()} == {
        "blocks.0": (2, 3, 17, 17),
        "blocks.1": (2, 3, 17, 17),
    }


def test_networks_without_attention_are_refused():
    with pytest.raises(UserError, match="ToyNetwork computes no attention that can be read"):
        attention_blocks(ToyNetwork(), torch.randn(2, 3, 12, 16))
    with pytest.raises(UserError, match=r"layer1 of ToyNetwork computes no attention.*such as kd"):
        FeatureExtractor(ToyNetwork(), ["layer1" + ATTENTION], example=torch.randn(2, 3, 12, 16))
    with pytest.raises(UserError, match="computes no attention"):
        attention_blocks(nn.Sequential(nn.Softmax(-1)), torch.randn(2, 3))
    with pytest.raises(UserError, match=r"'layer1:attention' for the attention within it"):
        FeatureExtractor(ToyNetwork(), ["layer1:out"])
