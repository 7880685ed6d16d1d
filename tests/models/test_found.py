import json

import pytest

from tutelage.errors import UserError
from tutelage.models import load_network
from tutelage.models.spec import NetworkSpec


@pytest.fixture
def folder(tmp_path):
    best = [{"network": f"tiny_cnn,width={width}"} for width in (8, 4)]
    (tmp_path / "search.json").write_text(json.dumps({"best": best}))
    return tmp_path


def test_a_found_network_is_one_like_any_other(folder):
    spec = NetworkSpec.parse(f"found:{folder}")
    assert (spec.target, spec.options, spec.kind, str(spec)) == (
        "tiny_cnn",
        {"width": 8},
        "catalogue",
        "tiny_cnn,width=8",
    )
    assert not spec.is_trained
    network = load_network(f"found:{folder},rank=2,normalize=none", num_classes=3, in_channels=1)
    assert network.spec == "tiny_cnn,width=4,normalize=none"


def test_it_takes_weights_of_its_architecture(folder):
    assert str(NetworkSpec.parse(f"found:{folder}@best.safetensors")) == "tiny_cnn,width=8@best.safetensors"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("found:{}/no", "no finished search.*run the same command again"),
        ("found:{},rank=3", "rank=3.*kept the best 2, so give 1 to 2"),
        ("found:{},rank=0", "rank=0"),
        ("found:{},rank=best", "rank=best"),
        ("found:{},width=3", "only `rank=` and `normalize=` can be added, not `width=`"),
    ],
)
def test_what_is_not_found_is_told(folder, text, message):
    with pytest.raises(UserError, match=message):
        NetworkSpec.parse(text.format(folder))


@pytest.mark.parametrize("content", ["{", '{"best": [1]}', "[]", '{"worst": []}'])
def test_a_damaged_result_is_told(tmp_path, content):
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(UserError, match="damaged"):
        NetworkSpec.parse(f"found:{tmp_path}")


def test_code_that_only_the_search_names_does_not_run(tmp_path):
    code = tmp_path / "nets.py"
    code.write_text(
        "from torch import nn\ndef net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes))"
    )
    (tmp_path / "search.json").write_text(json.dumps({"best": [{"network": f"{code}:net"}]}))
    with pytest.raises(UserError, match=r"search\.json names code that you have not named yourself"):
        load_network(f"found:{tmp_path}", num_classes=2, in_channels=1)
    assert load_network(f"found:{tmp_path}", num_classes=2, in_channels=1, trust_code=True)
