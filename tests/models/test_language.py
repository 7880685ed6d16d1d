import sys

import pytest
import torch

from tutelage.errors import UserError
from tutelage.models.language import build_language, kept_layers, language_classes
from tutelage.models.loading import load_network
from tutelage.models.spec import NetworkSpec

INPUTS = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}


def load(spec, classes=2, **options):
    return load_network(spec, num_classes=classes, in_channels=0, **options).eval()


def logits(network, inputs=INPUTS):
    with torch.no_grad():
        return network(**inputs).logits


@pytest.mark.parametrize(
    ("wanted", "layers", "kept"),
    [
        (6, 12, [1, 3, 5, 7, 9, 11]),
        (12, 12, list(range(12))),
        (1, 4, [3]),
        (3, 4, [0, 1, 3]),
        ("2+4+6", 6, [1, 3, 5]),
        ("1+7", 6, []),
        ("2+1", 6, []),
        (0, 6, []),
        (7, 6, []),
        (True, 6, []),
        ("two", 6, []),
    ],
)
def test_layers_that_are_kept(wanted, layers, kept):
    assert kept_layers(wanted, layers) == kept


def test_a_folder_is_loaded_as_transformers_loads_it(bert):
    folder = bert()
    from transformers import AutoModelForSequenceClassification

    own = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert torch.equal(logits(load(f"transformers:{folder}")), logits(own))


def test_fewer_layers_start_from_those_of_the_folder(bert):
    folder = bert()
    whole = load(f"transformers:{folder}").model
    half = load(f"transformers:{folder},layers=2").model
    assert half.config.num_hidden_layers == 2
    for position, source in enumerate((1, 3)):
        ours, theirs = half.bert.encoder.layer[position], whole.bert.encoder.layer[source]
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not torch.equal(logits(half), logits(whole))


def test_a_fresh_small_one(bert):
    folder = bert()
    torch.manual_seed(1)
    small = load(f"transformers:{folder},layers=1,hidden=4,heads=1", classes=3).model
    assert (small.config.hidden_size, small.config.intermediate_size, small.num_labels) == (4, 8, 3)
    torch.manual_seed(1)
    again = load(f"transformers:{folder},layers=1,hidden=4,heads=1", classes=3).model
    assert torch.equal(logits(small), logits(again))


def test_what_counts_as_trained(bert):
    folder = bert(labels=3)
    assert language_classes(folder) == ("LABEL_0", "LABEL_1", "LABEL_2")
    spec = f"transformers:{folder}"
    assert NetworkSpec.parse(spec).trained_for(3)
    # The classifier is new, or layers are missing, or all weights are new.
    assert not NetworkSpec.parse(spec).trained_for(2)
    assert not NetworkSpec.parse(f"{spec},layers=2").trained_for(3)
    assert not NetworkSpec.parse(f"{spec},hidden=4").uses_pretrained
    assert not NetworkSpec.parse(f"{spec},pretrained=false").trained_for(3)
    backbone = bert("backbone", classifier=False)
    assert language_classes(backbone) is None
    assert not NetworkSpec.parse(f"transformers:{backbone}").trained_for(2)


def test_another_number_of_classes_gets_a_new_classifier_on_the_same_body(bert):
    folder = bert()
    torch.manual_seed(1)
    network, own = load(f"transformers:{folder}", classes=5).model, load(f"transformers:{folder}").model
    assert logits(network).shape == (1, 5)
    body = zip(network.bert.parameters(), own.bert.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in body)


def test_classes_are_read_by_name(bert):
    folder = bert()
    import json
    from pathlib import Path

    file = Path(folder) / "config.json"
    config = json.loads(file.read_text()) | {"id2label": {"0": "good", "1": "bad"}, "label2id": {"good": 0, "bad": 1}}
    file.write_text(json.dumps(config))
    plain = load(f"transformers:{folder}", class_names=("good", "bad"))
    with pytest.warns(UserWarning, match="in another order"):
        turned = load(f"transformers:{folder}", class_names=("bad", "good"))
    assert torch.allclose(logits(turned), logits(plain).flip(1))
    with pytest.raises(UserError, match="other classes than the data"):
        load(f"transformers:{folder}", class_names=("cat", "dog"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (",layers=9", "has 4 layers, so layers=9 is not possible"),
        (",hiden=3", "has no option 'hiden'"),
        (",hidden=0", "of 1 or more"),
        (",hidden=5", "2 heads cannot share a width of 5"),
        (",hidden=4,pretrained=true", "the pretrained weights do not fit"),
    ],
)
def test_what_is_wrong_is_said(bert, options, words):
    folder = bert()
    with pytest.raises(UserError, match=words):
        load(f"transformers:{folder}{options}")


def test_no_folder_and_no_weights(bert, tmp_path):
    from pathlib import Path

    folder = Path(bert())
    with pytest.raises(UserError, match="There is no folder"):
        load(f"transformers:{tmp_path}/nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="add `,pretrained=false`"):
        load(f"transformers:{folder}")
    assert logits(load(f"transformers:{folder},pretrained=false")).shape == (1, 2)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "transformers" else sys.modules[name])
    with pytest.raises(UserError, match=r"pip install 'tutelage\[text\]'"):
        build_language("bert", num_classes=2, pretrained=False, options={})
