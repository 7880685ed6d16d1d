import sys

import pytest
import torch

from tutelage.errors import UserError
from tutelage.models import load_network, read_metadata, save_network

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
        ("five", "returns 5 classes, but the data have 3"),
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


ENCODED = {
    "a byte order mark": b"\xef\xbb\xbf" + SOURCE.replace("\n", "\r\n").encode(),
    "another encoding": b"# -*- coding: latin-1 -*-\n# r\xe9seau\n" + SOURCE.encode(),
}


@pytest.mark.parametrize("what", ENCODED)
def test_files_are_read_as_python_reads_them(what, file):
    file.write_bytes(ENCODED[what])
    assert load_network(f"{file}:Net", num_classes=3).model.head.out_features == 3


def test_what_is_no_python_is_told_with_its_place(file):
    for content, message in {
        b"def f(:\n": r"not valid Python: .*nets\.py:1\)",
        b'x = "r\xe9seau"\n': "not valid Python: .*decode byte",
        b"import nothing_of_this_name\n": r"imports something that is not there: .*nothing_of_this_name.*nets\.py:1\)",
    }.items():
        file.write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_network(f"{file}:Net", num_classes=3)


LATE = """
def late(num_classes, depth=1):
    from beside import WIDTH
    from torch import nn
    body = nn.Conv2d(3, WIDTH * depth, 3)
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, num_classes))
"""


def test_a_factory_may_import_late(file):
    file.write_text(LATE)
    assert load_network(f"{file}:late", num_classes=3) is not None


@pytest.mark.parametrize("option", ["depth=x", "depth=-1", "depth=None"])
def test_an_option_that_does_not_fit_is_told_with_the_line_that_failed(option, file):
    file.write_text(LATE)
    with pytest.raises(UserError, match=r"nets\.py:late cannot be built with num_classes=3, depth=.*\.py:\d+\)"):
        load_network(f"{file}:late,{option}", num_classes=3)


@pytest.mark.parametrize("as_package", [False, True])
def test_each_file_gets_the_module_that_lies_beside_it(tmp_path, as_package):
    networks = {}
    for name, width in (("one", 4), ("two", 5), ("one", 4)):
        folder = tmp_path / name
        place = folder / "beside" / "__init__.py" if as_package else folder / "beside.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"WIDTH = {width}\n")
        (folder / "nets.py").write_text(SOURCE)
        networks[name] = load_network(f"{folder}/nets.py:Net", num_classes=3).model.head.in_features
    assert networks == {"one": 4, "two": 5}
    sys.modules.pop("beside", None)


def test_a_saved_network_finds_its_file_from_anywhere(file, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    network = load_network("../nets.py:Net,width=6", num_classes=3)
    save_network(tmp_path / "run", network, spec=network.spec, num_classes=3, in_channels=3)
    assert read_metadata(tmp_path / "run").spec == f"{tmp_path}/nets.py:Net,width=6"
    monkeypatch.chdir("/")
    again = load_network(str(tmp_path / "run"), num_classes=3)
    assert torch.equal(again.model.head.weight, network.model.head.weight)
    file.rename(tmp_path / "elsewhere/moved.py")
    (tmp_path / "beside.py").rename(tmp_path / "elsewhere/beside.py")
    with pytest.raises(UserError, match=r"say where its file is now: .path/to/file\.py:factory@RUN"):
        load_network(str(tmp_path / "run"), num_classes=3)
    moved = load_network(f"{tmp_path}/elsewhere/moved.py:Net,width=6@{tmp_path}/run", num_classes=3)
    assert torch.equal(moved.model.head.weight, network.model.head.weight)
