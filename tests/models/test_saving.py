import json

import pytest
import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models import Normalization, Normalized, load_network, load_weights, read_metadata, save_network
from tutelage.models.saving import holds_network
from tutelage.models.zoo.tiny import tiny_cnn

STATISTICS = Normalization(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def save(folder, spec="tiny_cnn,width=4,normalize=imagenet", **options):
    network = Normalized(tiny_cnn(10, width=4), STATISTICS.mean, STATISTICS.std).eval()
    save_network(folder, network, spec=spec, num_classes=10, in_channels=3, **options)
    return network


def test_folders_with_a_network_are_known(tmp_path):
    assert not holds_network(tmp_path / "absent")
    (tmp_path / "recording.json").touch()
    assert not holds_network(tmp_path)
    save(tmp_path / "run")
    assert holds_network(tmp_path / "run")
    assert not holds_network(tmp_path)


def test_round_trip_by_folder_and_by_file(tmp_path):
    network = save(tmp_path / "run", class_names=["a", "b"], input_size=(32, 32))
    inputs = torch.rand(2, 3, 8, 8)
    for path in (tmp_path / "run", tmp_path / "run" / "student.safetensors"):
        again = load_network(str(path), num_classes=10, normalization=Normalization.named("none")).eval()
        assert again.normalization == STATISTICS
        assert torch.equal(again(inputs), network(inputs))
    metadata = read_metadata(tmp_path / "run")
    assert (metadata.spec, metadata.class_names, metadata.input_size) == ("tiny_cnn,width=4", ("a", "b"), (32, 32))


def test_weights_of_a_run_for_another_spec(tmp_path):
    save(tmp_path)
    again = load_network(f"tiny_cnn,width=4@{tmp_path}", num_classes=10)
    assert again.normalization == STATISTICS
    chosen = load_network(f"{tmp_path},normalize=data", num_classes=10, normalization=Normalization.named("imagenet"))
    assert chosen.normalization == Normalization.named("imagenet")


def test_a_copy_of_a_run_keeps_the_architecture(tmp_path):
    save(tmp_path / "one")
    network = load_network(str(tmp_path / "one"), num_classes=10)
    save_network(tmp_path / "two", network, spec=str(tmp_path / "one"), num_classes=10, in_channels=3)
    assert read_metadata(tmp_path / "two").spec == "tiny_cnn,width=4"


def test_other_classes_and_channels_are_refused(tmp_path):
    save(tmp_path)
    with pytest.raises(UserError, match="has 10 classes, the data 100"):
        load_network(str(tmp_path), num_classes=100)
    with pytest.raises(UserError, match="takes 3 channels, the data have 1"):
        load_network(str(tmp_path), num_classes=10, in_channels=1)
    with pytest.raises(UserError, match="has its options already"):
        load_network(f"{tmp_path},width=8", num_classes=10)


def test_python_objects_are_loaded_in_python(tmp_path):
    network = save(tmp_path, spec=None)
    with pytest.raises(UserError, match="load_weights"):
        load_network(str(tmp_path), num_classes=10)
    load_weights(target := tiny_cnn(10, width=4).eval(), tmp_path / "student.safetensors")
    inputs = torch.rand(2, 3, 8, 8)
    assert torch.equal(target(inputs), network.model(inputs))


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UserError, match="No space left on device"):
        save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tied_weights_are_saved(tmp_path):
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    path = save_network(tmp_path, network, spec=None, num_classes=4, in_channels=3, filename="teacher.safetensors")
    load_weights(network, path)


def test_foreign_folders_and_damaged_metadata_are_told(tmp_path):
    with pytest.raises(UserError, match="not a saved network"):
        load_network(str(tmp_path), num_classes=10)
    for text in ("{", "[]", json.dumps({"spec": "tiny_cnn"})):
        (tmp_path / "network.json").write_text(text)
        with pytest.raises(UserError, match="does not describe a network"):
            load_network(str(tmp_path), num_classes=10)
    with pytest.raises(UserError, match=r"NAME\.safetensors"):
        save(tmp_path, filename="../x.pth")


@pytest.mark.parametrize(
    ("key", "value"),
    [("weights", "../other/w.safetensors"), ("weights", 3), ("spec", 3), ("num_classes", "ten"), ("mean", 0.5)],
)
def test_facts_that_no_network_has_are_refused(tmp_path, key, value):
    save(tmp_path)
    content = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps(content | {key: value}))
    with pytest.raises(UserError, match="does not describe a network"):
        read_metadata(tmp_path)
