"""`tutelage serve` as a process: it says where it is, and a teacher asks it."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
import torch

from tutelage.cli.main import main
from tutelage.core.teachers.remote import RemoteTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.models.saving import save_network
from tutelage.testing.toys import CLASSES, SIZE, ToyNetwork

IMAGES = torch.rand(5, 3, *SIZE, generator=torch.Generator().manual_seed(0))
FACTORY = """
from tutelage.testing.toys import ToyNetwork

def make(num_classes, in_channels):
    return ToyNetwork(4)
"""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ToyNetwork(4).eval()


@pytest.fixture(scope="module")
def address(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "nets.py").write_text(FACTORY)
    sizes = {"num_classes": CLASSES, "in_channels": 3, "input_size": SIZE}
    spec = f"{folder / 'nets.py'}:make"
    save_network(folder, network, spec=spec, class_names=[str(n) for n in range(CLASSES)], **sizes)
    words = ["serve", str(folder), "--port", "0", "--trust-code", "true", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "tutelage", *words], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    yield re.search(r"http://\S+", line)[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) in (0, 130, -signal.SIGINT)
    process.stdout.close()


def got(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.loads(answer.read())


def test_it_says_that_it_lives_and_what_it_is(address):
    base = address.partition("/v2/")[0]
    assert got(f"{base}/v2/health/live") == {"live": True}
    assert got(f"{base}/v2/health/ready") == {"ready": True}
    assert got(f"{address}/ready") == {"ready": True}
    assert got(f"{base}/v2")["extensions"] == ["binary_tensor_data"]
    assert got(address)["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]}]
    assert got(f"{address}/versions/1") == got(address)


@pytest.mark.parametrize("options", ["", ",binary=false,batch=2"])
def test_a_teacher_gets_the_answers_of_the_network(address, network, options, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    found = RemoteTeacher(address + options)(Batch(inputs=IMAGES)).logits
    assert torch.allclose(found, network(IMAGES), atol=1e-5)


def test_what_it_refuses_is_told_to_who_asks(address, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"refused the question \(400\): images have the shape \[5, 3, 7, 16\]"):
        RemoteTeacher(address)(Batch(inputs=IMAGES[:, :, :7]))
    with pytest.raises(UserError, match=r"knows no /v2/models/other \(404\)"):
        RemoteTeacher(address.replace("/network", "/other"))(Batch(inputs=IMAGES))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Name one network"),
        (["resnet8"], "does not say what images and classes it has"),
        (["resnet8", "--data", "digits"], "comes without weights"),
    ],
)
def test_what_cannot_be_served_is_told(words, told, capsys):
    assert main(["serve", *words]) == 2
    assert told in capsys.readouterr().err
