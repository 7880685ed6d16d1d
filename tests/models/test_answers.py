"""How networks are asked, and the logits in whatever they return."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models.answers import answer, call, logits_of, uncompiled
from tutelage.models.blueprint import check_takes
from tutelage.models.ensemble import Ensemble
from tutelage.models.heads import check_classes
from tutelage.models.normalization import Normalized
from tutelage.models.size import measure, size_for


def test_a_tensor_or_what_holds_logits_is_understood():
    logits = torch.zeros(2, 3)
    assert logits_of(logits) is logits
    assert logits_of(SimpleNamespace(logits=logits)) is logits


def test_other_answers_are_refused():
    with pytest.raises(UserError, match="returned a tuple"):
        logits_of((torch.zeros(2, 3),))


def test_a_network_comes_out_of_its_compiled_form():
    network = nn.Linear(2, 2)
    assert uncompiled(torch.compile(network)) is network
    assert uncompiled(network) is network


class Text(nn.Module):
    """Takes words and their mask by name, and answers with an object."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[:, :, None]
        mean = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        return SimpleNamespace(logits=self.head(mean))


@pytest.fixture
def words():
    return {
        "input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }


def test_the_answer_of_a_segmentation_network_is_its_entry_out():
    logits = torch.zeros(2, 3, 4, 4)
    assert logits_of({"out": logits, "aux": torch.ones(2)}) is logits
    assert logits_of({"logits": logits, "loss": torch.ones(())}) is logits
    with pytest.raises(UserError, match='returned a dict: .* a mapping with "logits" or "out"'):
        logits_of({"logits": 3})


def test_a_mapping_goes_by_keyword_and_a_tensor_as_it_is(words):
    network = Text()
    assert torch.equal(answer(network, words), network(**words).logits)
    assert isinstance(call(network, words), SimpleNamespace)
    linear = nn.Linear(4, 2)
    assert torch.equal(answer(linear, torch.ones(1, 4)), linear(torch.ones(1, 4)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: Normalized(network, (0.0,), (1.0,)),
        lambda network: Normalized(network, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)),
    ],
)
def test_words_pass_through_wrappers(wrap, words):
    network = Text()
    assert torch.equal(answer(wrap(network), words), answer(network, words))


def test_words_pass_through_an_ensemble(words):
    networks = [Text(), Text()]
    ensemble = Ensemble(networks)
    expected = torch.stack([network(**words).logits.softmax(1) for network in networks]).mean(0)
    torch.testing.assert_close(answer(ensemble, words).softmax(1), expected)
    torch.testing.assert_close(ensemble(words), answer(ensemble, words))
    assert torch.equal(ensemble.member_logits(words)[1], networks[1](**words).logits)


def test_words_are_measured_and_checked(words):
    class Words:
        name, in_channels, image_size = "words", 0, (0, 0)

        def example(self, samples):
            return {name: value[:samples] for name, value in words.items()}

    assert check_takes(Text(), Words(), who="student").shape == (2, 3)
    assert measure(Text(), words).multiply_adds == 4 * 3
    assert size_for(Text(), Words()) == measure(Text(), words)


def test_images_by_name_are_normalised_and_nothing_else():
    class Named(nn.Module):
        def forward(self, pixel_values, scale):
            return pixel_values.mean((2, 3)) * scale

    network = Normalized(Named(), (0.5,), (0.25,))
    images = torch.rand(2, 3, 4, 4)
    found = answer(network, {"pixel_values": images, "scale": torch.tensor(2.0)})
    torch.testing.assert_close(found, (images.mean((2, 3)) - 0.5) / 0.25 * 2)
    with pytest.raises(UserError, match="not clear whether 'scale' of shape"):
        network(pixel_values=images, scale=torch.ones(2, 3, 4, 4))
    with pytest.raises(UserError, match="divide by 255"):
        network(pixel_values=images.byte(), scale=1)


def test_the_classes_of_a_foreign_network_are_found_in_whatever_it_answers():
    class Segmenting(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.aux = nn.Conv2d(3, 7, 1), nn.Linear(2, 4)

        def forward(self, inputs):
            return {"out": self.body(inputs)}

    check_classes(Segmenting(), 7, in_channels=3, source="seg")
    with pytest.raises(UserError, match="returns 7 classes, but the data have 5"):
        check_classes(Segmenting(), 5, in_channels=3, source="seg")
