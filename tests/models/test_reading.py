"""A file is called what it is: weights, or what people have in their place."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tutelage.errors import UserError
from tutelage.models import load_network, read_weights
from tutelage.models.saving import METADATA, save_network

STATE = {"a.weight": torch.arange(300.0), "a.bias": torch.ones(2)}


def packed(inside):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(inside, b"x" * 9)
    return stream.getvalue()


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("weights.pth")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return stream.getvalue()


def array():
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    return stream.getvalue()


OTHERS = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    "a git-annex pointer": b"/annex/objects/SHA256E-s3--0.pth\n",
    "a web page": b"\n<!DOCTYPE html><html>Too many users have viewed this file</html>",
    "a web page (HTML)": b"\xef\xbb\xbf<html>",
    "JSON text": b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + b"\0" * 20,
    "a numpy array": array(),
    "compressed with gzip": gzip.compress(b"weights"),
    "a zip archive, but not a file of `torch.save`": packed("weights.h5"),
    "a tar archive": tarred(),
    "empty": b"",
    "not a file of `torch.save`": b"nothing that anybody knows",
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_file_of_weights_is_named(what, suffix, tmp_path):
    file = tmp_path / f"w{suffix}"
    file.write_bytes(OTHERS[what])
    with pytest.raises(UserError) as told:
        read_weights(file)
    assert f"is {what}" in str(told.value)
    assert "pickled" not in str(told.value)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_an_archive_of_code_is_named(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 3)), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"TorchScript archive.*torch\.jit\.load\(FILE\)\.state_dict\(\)"):
        read_weights(tmp_path / "w.pt")


def test_the_content_decides_and_not_the_name(tmp_path):
    save_file(STATE, tmp_path / "w.bin")
    torch.save(STATE, tmp_path / "w.safetensors")
    for name in ("w.bin", "w.safetensors"):
        found = read_weights(tmp_path / name)
        assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_nobody_is_advised_to_switch_the_protection_off(tmp_path):
    contents = [{"state_dict": STATE, "model": torch.nn.Linear(2, 2)}, torch.nn.Linear(2, 2), {"x": np.ones(3)}]
    for number, content in enumerate(contents):
        torch.save(content, tmp_path / f"{number}.pth")
    (tmp_path / "3.pth").write_bytes(pickle.dumps({"a": torch.nn.Linear(2, 2)}))
    torch.save(STATE, tmp_path / "4.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "4.pth").write_bytes((tmp_path / "4.pth").read_bytes()[:-40])
    for number in range(5):
        with pytest.raises(UserError) as told:
            read_weights(tmp_path / f"{number}.pth")
        for advice in ("weights_only", "safe_globals", "arbitrary code execution"):
            assert advice not in str(told.value)
        assert ("can run any code" in str(told.value)) is (number < 4)


@pytest.mark.parametrize("other", ["student", "model", "state_dict"])
def test_student_and_teacher_side_by_side_are_told_apart_by_nobody(other, tmp_path):
    torch.save({"teacher": STATE, other: STATE, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"holds several networks, .*save the one that you mean"):
        read_weights(tmp_path / "w.pth")


def flipped(file, needle):
    content = bytearray(file.read_bytes())
    place = content.find(needle)
    assert place > 0
    content[place + 2] ^= 1
    file.write_bytes(content)


def test_a_flipped_byte_is_noticed_in_files_of_torch_save(tmp_path):
    torch.save(STATE, tmp_path / "w.pth")
    flipped(tmp_path / "w.pth", STATE["a.weight"].numpy().tobytes()[400:440])
    with pytest.raises(UserError, match=r"is damaged: its entry \S*data/0"):
        read_weights(tmp_path / "w.pth")


def test_a_flipped_byte_is_noticed_in_a_saved_network(tmp_path):
    network = load_network("tiny_cnn,width=4", num_classes=3)
    file = save_network(tmp_path, network, spec="tiny_cnn,width=4", num_classes=3, in_channels=3)
    assert load_network(str(tmp_path), num_classes=3) is not None
    flipped(file, network.model.state_dict()["classifier.weight"].numpy().tobytes()[:40])
    for source in (str(tmp_path), str(file), f"tiny_cnn,width=4@{tmp_path}"):
        with pytest.raises(UserError, match=r"is not what was saved: its SHA-256"):
            load_network(source, num_classes=3)
    content = json.loads((tmp_path / METADATA).read_text())
    del content["sha256"]
    (tmp_path / METADATA).write_text(json.dumps(content))
    assert load_network(str(tmp_path), num_classes=3) is not None


def test_a_file_beside_a_saved_network_is_not_compared_with_it(tmp_path):
    network = load_network("tiny_cnn,width=4", num_classes=3)
    save_network(tmp_path, network, spec="tiny_cnn,width=4", num_classes=3, in_channels=3)
    torch.save(STATE, tmp_path / "other.pth")
    assert read_weights(tmp_path / "other.pth").keys() == STATE.keys()
