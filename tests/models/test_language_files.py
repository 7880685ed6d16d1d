import pytest
import torch
from torch import nn

import tutelage
from tutelage.models.language_files import is_language
from tutelage.models.loading import load_network
from tutelage.models.saving import save_network

INPUTS = {
    "input_ids": torch.tensor([[2, 5, 6, 3], [2, 8, 3, 0]]),
    "attention_mask": torch.tensor([[1] * 4, [1] * 3 + [0]]),
}


def save(folder, network, **options):
    save_network(
        folder, network, spec=network.spec, num_classes=2, in_channels=0, class_names=("bad", "good"), **options
    )


def logits(network):
    with torch.no_grad():
        return network.eval()(**INPUTS).logits


def test_a_saved_network_opens_with_transformers_alone(bert, tmp_path):
    network = load_network(f"transformers:{bert()},layers=2", num_classes=2, in_channels=0)
    save(tmp_path / "run", network)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert torch.equal(logits(opened), logits(network))
    assert opened.config.id2label == {0: "bad", 1: "good"}
    assert AutoTokenizer.from_pretrained(tmp_path / "run")("a film")["input_ids"] == [2, 7, 6, 3]


def test_a_run_needs_nothing_but_its_own_folder(bert, tmp_path):
    import shutil

    folder = bert()
    network = load_network(f"transformers:{folder},layers=2", num_classes=2, in_channels=0)
    save(tmp_path / "run", network)
    shutil.rmtree(folder)
    again = load_network(str(tmp_path / "run"), num_classes=2, in_channels=0)
    assert torch.equal(logits(again), logits(network))
    # And a student of fewer layers can start from it.
    student = load_network(f"transformers:{tmp_path / 'run'},layers=1", num_classes=2, in_channels=0)
    first, second = student.model.bert.encoder.layer[0], again.model.bert.encoder.layer[1]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_configuration_names_no_path(bert, tmp_path):
    network = load_network(f"transformers:{bert()}", num_classes=2, in_channels=0)
    save(tmp_path / "run", network)
    assert str(tmp_path) not in (tmp_path / "run" / "config.json").read_text()


def test_other_networks_get_no_such_files(tmp_path):
    assert not is_language(nn.Linear(2, 2))
    network = tutelage.load_network("tiny_cnn", num_classes=2, in_channels=1)
    save_network(tmp_path, network, spec="tiny_cnn", num_classes=2, in_channels=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["network.json", "student.safetensors"]


@pytest.mark.parametrize("classes", [2, 3])
def test_is_language(bert, classes):
    assert is_language(load_network(f"transformers:{bert(labels=classes)}", num_classes=classes, in_channels=0).model)
