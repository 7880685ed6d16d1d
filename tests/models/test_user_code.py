import sys

import pytest

from tutelage.errors import UserError
from tutelage.models import load_network

SOURCE = """
from torch import nn
from beside import WIDTH

class Net(nn.Module):
    def __init__(self, num_classes, *, width=WIDTH):
        super().__init__()
        self.body = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, num_classes)
    def forward(self, inputs):
        return self.head(self.body(inputs).mean((2, 3)))

def five():
    return Net(5)

def nothing():
    return None

CONSTANT = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "nets.py").write_text(SOURCE)
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    yield tmp_path / "nets.py"
    sys.modules.pop("beside", None)


def test_a_file_is_run_without_leaving_traces(file):
    before = list(sys.path)
    network = load_network(f"{file}:Net,width=6", num_classes=3)
    assert network.model.head.weight.shape == (3, 6)
    assert load_network(f"{file}:Net", num_classes=3).model.head.weight.shape == (3, 4)
    assert sys.path == before
    assert type(network.model).__module__ in sys.modules


def test_an_import_path(file, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    assert load_network("nets:Net", num_classes=3).model.head.out_features == 3
    sys.modules.pop("nets")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nat", "'Net'"),
        ("CONSTANT", "is a int"),
        ("nothing", "returned a NoneType"),
        ("five", "answers with 5 classes, the data have 3"),
        ("Net,depth=2", "depth"),
    ],
)
def test_mistakes_are_told(file, name, message):
    with pytest.raises(UserError, match=message):
        load_network(f"{file}:{name}", num_classes=3)


def test_absent_modules_and_files_are_told(tmp_path):
    with pytest.raises(UserError, match="PYTHONPATH"):
        load_network("no_such_module_at_all:Net", num_classes=3)
    with pytest.raises(UserError, match="no file"):
        load_network(f"{tmp_path}/absent.py:Net", num_classes=3)
