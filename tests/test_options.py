import sys
from collections.abc import Sequence
from types import ModuleType

import pytest
from jsonargparse import ArgumentParser

from tutelage import registry
from tutelage.errors import UserError
from tutelage.method import Method
from tutelage.options import add_hyper_parameters, check_options, parse_choice


class Layered(Method):
    """A user's own method."""

    def __init__(self, student, *, gamma: float, layers: Sequence[str] = ("stem",)):
        super().__init__()


class Untyped(Method):
    """A user's own method, without types."""

    def __init__(self, student, teacher, beta=1.5):
        super().__init__()


@pytest.fixture
def own(monkeypatch):
    module = ModuleType("my_methods")
    module.Layered, module.Untyped = Layered, Untyped
    monkeypatch.setitem(sys.modules, "my_methods", module)


def test_a_name_alone():
    choice = parse_choice("kd")
    assert choice.entry is registry.get("kd")
    assert choice.options == {}
    assert choice.label == "kd"


def test_options_are_typed():
    choice = parse_choice("kd:temperature=20,alpha=0.5,t_squared=false,reduction=mean")
    assert choice.options == {"temperature": 20.0, "alpha": 0.5, "t_squared": False, "reduction": "mean"}
    assert [type(value) for value in choice.options.values()] == [float, float, bool, str]
    assert parse_choice("born-again:generations=4").options == {"generations": 4}


def test_defaults_are_filled_in():
    found = parse_choice("kd:alpha=0.5").hyper_parameters
    defaults = {"temperature": 4.0, "t_squared": True, "reduction": "batchmean", "multiplier": 1.0}
    assert found == defaults | {"alpha": 0.5}


@pytest.mark.parametrize("text", ["kd: temperature = 20 , alpha = 0.5 ", "kd:temperature=20,alpha=0.5,"])
def test_spaces_and_a_last_comma_do_no_harm(text):
    assert parse_choice(text).options == {"temperature": 20.0, "alpha": 0.5}


@pytest.mark.parametrize(
    "text",
    [
        "supervised",
        "kd:temperature=20,alpha=0.5",
        "kd:t_squared=False",
        "kd:alpha=1e-05",
        "de-kd:teacher_epochs=None,teacher_accuracy=0.2",
        "de-kd:teacher_epochs=null,teacher_accuracy=0.2",
        "tf-kd-reg:variant=code,multiplier=100",
        "my_methods:Layered:gamma=2,layers=[layer1:in,layer2]",
    ],
)
def test_the_label_chooses_the_same_again(text, own):
    choice = parse_choice(text)
    again = parse_choice(choice.label)
    assert (again.entry.name, again.options) == (choice.entry.name, choice.options)
    assert again.label == choice.label


def test_import_paths_keep_their_colon(own):
    assert parse_choice("my_methods:Untyped").entry.build is Untyped
    choice = parse_choice("my_methods:Layered:gamma=2,layers=[layer1:in,layer2]")
    assert choice.entry.build is Layered
    assert choice.options == {"gamma": 2.0, "layers": ["layer1:in", "layer2"]}


def test_a_default_gives_the_type_where_none_is_written(own):
    assert parse_choice("my_methods:Untyped:beta=2").options == {"beta": 2.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kdd", "no method named 'kdd'. Did you mean 'kd'"),
        ("kdd:alpha=1", "no method named 'kdd'. Did you mean 'kd'"),
        ("kd:temperatur=20", "no option of kd named 'temperatur'. Did you mean 'temperature'"),
        ("kd:temperature=hot", r"(?s)option of kd does not fit.*temperature.*hot"),
        ("kd:t_squared=7", r"(?s)option of kd does not fit.*t_squared"),
        ("kd:reduction=sum", r"(?s)reduction.*batchmean"),
        ("born-again:generations=1.5", r"(?s)generations.*1\.5"),
        ("kd:temperature", "'temperature' in 'kd:temperature' is no option. Write METHOD:name=value"),
        ("kd:alpha=1,20", "'20' in .* is no option"),
        ("kd:alpha=1,alpha=0.5", "alpha is given twice"),
        ("supervised-teacher:alpha=1", "supervised-teacher has no options"),
        ("kd:student=resnet20", "no option of kd named 'student'"),
        ("kd:run=1", "no option of kd named 'run'"),
        ("nowhere:Thing:alpha=1", "'nowhere:Thing' cannot be imported"),
    ],
)
def test_mistakes_are_told(text, message):
    with pytest.raises(UserError, match=message):
        parse_choice(text)


def test_a_required_option_is_asked_for(own):
    with pytest.raises(UserError, match="required.*gamma"):
        parse_choice("my_methods:Layered")


def test_python_values_pass_as_well():
    found = check_options(registry.get("de-kd"), {"teacher_epochs": None, "temperature": 20, "alpha": "0.5"})
    assert found == {"teacher_epochs": None, "temperature": 20.0, "alpha": 0.5}


def test_flags_show_hyper_parameters_and_no_fixture():
    parser = ArgumentParser(exit_on_error=False)
    add_hyper_parameters(parser, registry.get("tf-kd-reg"))
    text = parser.format_help()
    assert "hyper-parameters of tf-kd-reg" in text
    assert "--temperature" in text
    assert "--student" not in text
    assert "--num_classes" not in text


@pytest.mark.parametrize("entry", list(registry.entries()), ids=lambda entry: entry.name)
def test_defaults_of_every_method_fit_their_types(entry):
    assert check_options(entry, entry.hyper_parameters) == entry.hyper_parameters
