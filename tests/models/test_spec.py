import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.errors import UserError
from tutelage.models import NetworkSpec

SPECIAL = "aZ0 ,=@:'\"([}\\\n\u00e9"
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(SPECIAL, max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=4,
)
KEYS = st.sampled_from(["width", "depths", "family", "drop_rate", "x"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.builds(
        NetworkSpec,
        target=st.sampled_from(["resnet20", "timm:resnet18.a1_in1k", "torchvision:vgg11", "a.b:c", "/a b/c.py:D"]),
        options=st.dictionaries(KEYS, VALUES, max_size=3),
        normalize=st.sampled_from([None, "data", "imagenet", "0.5:0.2", "0.5/0.4:0.2/0.1"]),
        pretrained=st.sampled_from([None, False]),
        weights=st.sampled_from([None, "w.pth", "/a/o'brien (1)/b=c.pt", "runs/x"]),
    )
)
def test_text_round_trip(spec):
    assert NetworkSpec.parse(str(spec)) == spec


def test_parts_are_told_apart():
    spec = NetworkSpec.parse(
        "/x/nets.py:Net,n=9,family=he,shape=(1, 2),name='a,b@c',normalize=imagenet@/y/w.safetensors"
    )
    assert spec.target == "/x/nets.py:Net"
    assert spec.options == {"n": 9, "family": "he", "shape": (1, 2), "name": "a,b@c"}
    assert (spec.normalize, spec.weights, spec.kind) == ("imagenet", "/y/w.safetensors", "file")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("resnet20", "catalogue"),
        ("timm:resnet18", "timm"),
        ("torchvision:resnet18", "torchvision"),
        ("C:\\nets\\mine.py:Net", "file"),
        ("package.module:build", "import"),
    ],
)
def test_kinds(text, kind):
    assert NetworkSpec.parse(text).kind == kind


def test_words_are_python_or_strings():
    options = NetworkSpec.parse("resnet20,a=true,b=None,c=he,d=1e-3,e='true'").options
    assert options == {"a": True, "b": None, "c": "he", "d": 1e-3, "e": "true"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet20,width", "write width=value"),
        ("resnet20,2", "write key=value"),
        ("resnet20,width=2,width=3", "twice"),
        ("resnet20@", "without a file"),
        (",width=2", "no name"),
        ("resnet20,pretrained=true", "@FILE"),
        ("timm:resnet18,pretrained=maybe", "true or false"),
        ("timm:resnet18,pretrained=true@w.pth", "not both"),
        ("resnet20,normalize=imagenot", "Did you mean 'imagenet'"),
        ("resnet20,depths=(1,2", "not a Python literal"),
    ],
)
def test_mistakes_are_told(text, message):
    with pytest.raises(UserError, match=message):
        NetworkSpec.parse(text)


def test_wrong_targets_are_told():
    with pytest.raises(UserError, match="resnet20"):
        _ = NetworkSpec(target="resnet21").kind
    with pytest.raises(UserError, match="nothing at"):
        _ = NetworkSpec(target="runs/absent").kind


@pytest.mark.parametrize("text", ["recording:runs/recording", "recording:mine", "recording:mine,views=2"])
def test_a_recording_is_no_network(text):
    with pytest.raises(UserError, match="is not a network, but only a teacher: name it with --teacher"):
        _ = NetworkSpec.parse(text).kind


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for text, absolute in {
        "run": f"{tmp_path}/run",
        "run,normalize=none": f"{tmp_path}/run,normalize=none",
        "nets.py:net,depth=2@w.pth": f"{tmp_path}/nets.py:net,depth=2@{tmp_path}/w.pth",
        "resnet20@run": f"resnet20@{tmp_path}/run",
        "timm:resnet18": "timm:resnet18",
        "package.module:factory": "package.module:factory",
    }.items():
        assert str(NetworkSpec.parse(text).absolute()) == absolute
        assert str(NetworkSpec.parse(absolute).absolute()) == absolute


def test_trained_or_not():
    assert not NetworkSpec.parse("resnet20").is_trained
    assert NetworkSpec.parse("resnet20@w.pth").trained_for(10)
    assert not NetworkSpec.parse("timm:resnet18,pretrained=false").is_trained
    for source in ("timm", "torchvision"):
        spec = NetworkSpec.parse(f"{source}:resnet18")
        assert spec.is_trained
        assert spec.trained_for(1000)
        assert not spec.trained_for(10)
    assert not NetworkSpec.parse("timm:resnet18@w.pth").uses_pretrained


def test_architecture_has_no_weights():
    assert str(NetworkSpec.parse("timm:resnet18,drop_rate=0.1").architecture()) == (
        "timm:resnet18,drop_rate=0.1,pretrained=false"
    )
    assert str(NetworkSpec.parse("tiny_cnn,width=4,normalize=none@w.pth").architecture()) == "tiny_cnn,width=4"


def test_an_existing_path_is_taken_whole(tmp_path):
    folder = tmp_path / "kd,lr=0.1@2"
    folder.mkdir()
    spec = NetworkSpec.parse(str(folder))
    assert (spec.target, spec.kind, spec.is_trained) == (str(folder), "run", True)


def test_names_with_commas_are_paths_where_they_exist(tmp_path):
    folder = tmp_path / "kd,lr=0.1"
    folder.mkdir()
    spec = NetworkSpec.parse(f"{folder},normalize=imagenet")
    assert (spec.target, spec.normalize, spec.options) == (str(folder), "imagenet", {})
    assert NetworkSpec.parse(f"resnet20,width=2@{folder}").weights == str(folder)


def test_values_may_hold_commas():
    assert NetworkSpec.parse("vgg8,depths=1,1,1,1,2,normalize=none").options == {"depths": (1, 1, 1, 1, 2)}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("/x/nets.py:Net,width=2,normalize=none@w.pth", "/x/nets.py:Net,width=2"),
        ("package.module:factory", "package.module:factory"),
        ("simkd,student='/x/nets.py:Net',layer=a", "/x/nets.py:Net"),
        ("""exit,student="simkd,student='a.b:c'",layer=a""", "a.b:c"),
        ("simkd,student=tiny_cnn,layer=a", None),
        ("resnet20", None),
    ],
)
def test_the_code_that_building_runs_is_known_before(text, code):
    assert NetworkSpec.parse(text).code == code
