import argparse

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tutelage.errors import UserError
from tutelage.models import load_weights, read_weights
from tutelage.models.zoo.tiny import tiny_cnn


@pytest.fixture
def source():
    return tiny_cnn(10, width=4)


def same(network, other):
    first, second = network.state_dict(), other.state_dict()
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict", "student", "net", "my_weights"])
def test_wrappers_are_opened(tmp_path, source, key):
    state = source.state_dict()
    content = state if key is None else {key: state, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(1)}}}}
    torch.save(content, tmp_path / "w.pth")
    load_weights(target := tiny_cnn(10, width=4), tmp_path / "w.pth")
    assert same(target, source)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.model."])
def test_prefixes_are_stripped(tmp_path, source, prefix):
    save_file({prefix + key: value for key, value in source.state_dict().items()}, tmp_path / "w.safetensors")
    load_weights(target := tiny_cnn(10, width=4), tmp_path / "w.safetensors")
    assert same(target, source)


def test_a_network_with_a_prefix_of_its_own_keeps_it(tmp_path, source):
    network = torch.nn.ModuleDict({"model": source})
    torch.save(network.state_dict(), tmp_path / "w.pt")
    load_weights(target := torch.nn.ModuleDict({"model": tiny_cnn(10, width=4)}), tmp_path / "w.pt")
    assert same(target, network)


def test_old_files_without_counters_of_batches(tmp_path, source):
    state = {key: value for key, value in source.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "w.pt")
    load_weights(target := tiny_cnn(10, width=4), tmp_path / "w.pt")
    assert same(target, source)


def test_harmless_records_of_training_are_accepted(tmp_path, source):
    extras = {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.7)}
    torch.save({"state_dict": source.state_dict()} | extras, tmp_path / "w.tar")
    assert read_weights(tmp_path / "w.tar").keys() == source.state_dict().keys()


class Trap:
    def __reduce__(self):
        return (open, ("trapped", "w"))


def test_code_is_never_run(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in ({"state_dict": source.state_dict(), "x": Trap()}, source):
        torch.save(content, "w.pth")
        with pytest.raises(UserError, match="convert it in that way"):
            read_weights("w.pth")
    assert not (tmp_path / "trapped").exists()


def test_other_class_counts_and_channels_are_named(tmp_path, source):
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="the checkpoint has 10 classes, the data 100"):
        load_weights(tiny_cnn(100, width=4), tmp_path / "w.pth")
    with pytest.raises(UserError, match="the checkpoint takes 3 input channels, the data have 1"):
        load_weights(tiny_cnn(10, width=4, in_channels=1), tmp_path / "w.pth")


def test_other_architectures_are_told_and_nothing_is_loaded(tmp_path, source):
    state = source.state_dict()
    state["strange"] = torch.ones(1)
    del state["stem.0.weight"]
    torch.save(state, tmp_path / "w.pth")
    target = tiny_cnn(10, width=4)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(UserError, match=r"missing: stem.0.weight; unexpected: strange\. Likely they belong to another"):
        load_weights(target, tmp_path / "w.pth")
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_unreadable_files_are_told(tmp_path):
    with pytest.raises(UserError, match="no file of weights"):
        read_weights(tmp_path / "absent.pth")
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 damaged")
        with pytest.raises(UserError, match=r"damaged|convert"):
            read_weights(tmp_path / name)
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="'epoch', 'lr'"):
        read_weights(tmp_path / "w.pth")
    torch.save(torch.ones(3), tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds a Tensor"):
        read_weights(tmp_path / "w.pth")


def prefixed(prefix, network):
    return {prefix + key: value for key, value in network.state_dict().items()}


ONE_NETWORK = {
    "module.student.": lambda net: {"model": prefixed("module.student.", net)},
    "criterion": lambda net: {"state_dict": prefixed("model.", net) | {"criterion.weight": torch.ones(3)}},
    "bare criterion": lambda net: prefixed("", net) | {"criterion.weight": torch.ones(3)},
    "metrics": lambda net: {"state_dict": prefixed("net.", net) | {"accuracy.tp": torch.ones(3)}},
    "thop": lambda net: prefixed("", net) | {"total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "thop in each layer": lambda net: prefixed("module.", net) | {"module.stem.0.total_ops": torch.zeros(1)},
    "another teacher": lambda net: prefixed("student.", net) | prefixed("teacher.", tiny_cnn(10, width=8)),
    "a compiled part": lambda net: {k.replace("stem.", "stem._orig_mod."): v for k, v in net.state_dict().items()},
    "a parallel part": lambda net: {k.replace("stem.", "stem.module."): v for k, v in net.state_dict().items()},
}


@pytest.mark.parametrize("case", ONE_NETWORK)
def test_one_network_among_other_things_is_found(tmp_path, source, case):
    torch.save(ONE_NETWORK[case](source), tmp_path / "w.pth")
    load_weights(target := tiny_cnn(10, width=4), tmp_path / "w.pth")
    assert same(target, source)


@pytest.mark.parametrize("wrapped", [False, True])
def test_two_networks_that_fit_are_refused_by_their_prefixes(tmp_path, source, wrapped):
    both = prefixed("module.student.", source) | prefixed("module.teacher.", tiny_cnn(10, width=4))
    torch.save({"model": both, "best_acc": 1.0} if wrapped else both, tmp_path / "w.pth")
    with pytest.raises(UserError, match="under the prefixes 'module.student.' and 'module.teacher.'"):
        load_weights(tiny_cnn(10, width=4), tmp_path / "w.pth")


def test_two_networks_of_which_none_fits_are_named(tmp_path, source):
    torch.save(prefixed("student.", source) | prefixed("teacher.", source), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"a file of several networks, under the prefixes student\., teacher\., none"):
        load_weights(tiny_cnn(10, width=8), tmp_path / "w.pth")


def test_quantised_weights_are_no_weights(tmp_path, source):
    state = source.state_dict()
    state["classifier.weight"] = state["classifier.weight"].to(torch.int8)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"of another type: classifier.weight \(torch.int8\). Likely they are quant"):
        load_weights(tiny_cnn(10, width=4), tmp_path / "w.pth")


@pytest.mark.parametrize("beside", [{}, {"projection_head.0.weight": torch.ones(2, 2)}], ids=["alone", "with a head"])
@pytest.mark.parametrize("prefix", ["encoder.", "backbone.", "module.backbone.", "module.", ""])
def test_a_backbone_without_its_classifier_is_told_with_the_ways_to_use_it(tmp_path, source, prefix, beside):
    head = [name for name, module in source.named_modules() if isinstance(module, torch.nn.Linear)][-1]
    body = {key: value for key, value in source.state_dict().items() if not key.startswith(f"{head}.")}
    state = {prefix + key: value for key, value in body.items()} | beside
    torch.save(state, tmp_path / "w.pth")
    target = tiny_cnn(10, width=4)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(UserError, match="Likely they are a backbone.*without its classifier.*num_classes=0") as told:
        load_weights(target, tmp_path / "w.pth")
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())
    # What the message advises is what works.
    advised = str(told.value).partition("network.load_state_dict(")[2].partition(", strict=False)")[0]
    target.load_state_dict(eval(advised, {"state": state}), strict=False)
    assert all(torch.equal(target.state_dict()[key], value) for key, value in body.items())


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (
            "vit_tiny_patch16_224,32",
            "vit_tiny_patch16_224,64",
            "images of 64x64 pixels and the network for 32x32 pixels",
        ),
        (
            "vit_tiny_patch16_224,96",
            "vit_tiny_patch16_224,32",
            "images of 32x32 pixels and the network for 96x96 pixels",
        ),
    ],
)
def test_positions_of_another_image_size_are_told(tmp_path, ours, theirs, words):
    timm = pytest.importorskip("timm")
    networks = []
    for text in (ours, theirs):
        name, _, size = text.partition(",")
        networks.append(timm.create_model(name, img_size=int(size), num_classes=3, depth=1, embed_dim=24, num_heads=2))
    target, other = networks
    torch.save(other.state_dict(), tmp_path / "w.pth")
    side = theirs.partition(",")[2]
    with pytest.raises(UserError, match=rf"{words}: pos_embed.*img_size={side};.*--image-size {side}"):
        load_weights(target, tmp_path / "w.pth")


def test_positions_without_patches_are_told_without_a_size(tmp_path):
    class Positions(torch.nn.Module):
        def __init__(self, places):
            super().__init__()
            self.position_embeddings = torch.nn.Parameter(torch.zeros(1, places, 4))
            self.head = torch.nn.Linear(4, 2)

    torch.save(Positions(7).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="for images of another size and the network for this one's.*img_size=SIDE"):
        load_weights(Positions(12), tmp_path / "w.pth")
