import sys
from collections.abc import Sequence
from types import ModuleType

import pytest

from tutelage.cli.parser import parse
from tutelage.core.method import Method
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import check_options, imported, parse_choice, without_flags
from tutelage.training.settings import Training


class Layered(Method):
    """A user's own method."""

    def __init__(self, student, *, gamma: float, layers: Sequence[str] = ("stem",)):
        super().__init__()


class Untyped(Method):
    """A user's own method, without types."""

    def __init__(self, student, teacher, beta=1.5):
        super().__init__()


class Tupled(Method):
    """A user's own method, with a tuple."""

    def __init__(self, student, *, temperatures: tuple[float, ...] = (4.0, 2.0)):
        super().__init__()


@pytest.fixture
def own(monkeypatch):
    module = ModuleType("my_methods")
    module.Layered, module.Untyped, module.Tupled = Layered, Untyped, Tupled
    monkeypatch.setitem(sys.modules, "my_methods", module)


def test_a_name_alone():
    choice = parse_choice("kd")
    assert choice.entry is catalogue.get("kd")
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
    assert found == defaults | {"alpha": 0.5, "standardize": False, "standardize_ddof": 1}


@pytest.mark.parametrize(
    "text", ["kd: temperature = 20 , alpha = 0.5 ", "kd:temperature=20,alpha=0.5,", "kd,temperature=20,alpha=0.5"]
)
def test_spaces_a_last_comma_and_a_comma_for_the_colon_do_no_harm(text):
    assert parse_choice(text).options == {"temperature": 20.0, "alpha": 0.5}


@pytest.mark.parametrize(
    "text",
    [
        "supervised",
        "kd:temperature=20,alpha=0.5",
        "kd:t_squared=False",
        "kd:standardize=true,standardize_ddof=0,temperature=2,multiplier=10",
        "kd:alpha=1e-05",
        "de-kd:teacher_epochs=None,teacher_accuracy=0.2",
        "de-kd:teacher_epochs=null,teacher_accuracy=0.2",
        "tf-kd-reg:variant=code,multiplier=100",
        "mlld:strong=randaugment:3,random-cutout,batch_weight=0.5",
        "my_methods:Layered:gamma=2,layers=[layer1:in,layer2]",
        "my_methods:Tupled:temperatures=[4,3]",
        "soft-randomization:std=0.1,method=at",
        "soft-randomization:method=(kd:temperature=8,alpha=0.5),std=0.1",
        "messy-collaboration:method=(fickle-teacher:rate=0.3,method=(kd:temperature=8,alpha=0.5)),student_rate=0.2",
        "fickle-teacher:method=(my_methods:Layered:gamma=2,layers=[layer1:in,layer2])",
    ],
)
def test_the_label_chooses_the_same_again(text, own):
    choice = parse_choice(text)
    again = parse_choice(choice.label)
    assert (again.entry.name, again.options) == (choice.entry.name, choice.options)
    assert again.label == choice.label


def test_brackets_keep_a_wrapped_method_together():
    choice = parse_choice("soft-randomization:std=0.1,method=(kd:temperature=8,alpha=0.5)")
    assert choice.options == {"std": 0.1, "method": "kd:temperature=8.0,alpha=0.5"}
    assert choice.label == "soft-randomization:std=0.1,method=(kd:temperature=8.0,alpha=0.5)"
    assert parse_choice("((kd:temperature=8,alpha=0.5))").label == "kd:temperature=8.0,alpha=0.5"
    assert parse_choice("( kd )").label == "kd"


def test_brackets_in_brackets():
    text = "messy-collaboration:method=(fickle-teacher:rate=0.3,method=(kd:temperature=8,alpha=0.5)),student_rate=0.2"
    outer = parse_choice(text)
    inner = parse_choice(outer.options["method"])
    assert (outer.options["student_rate"], inner.options["rate"]) == (0.2, 0.3)
    assert parse_choice(inner.options["method"]).options == {"temperature": 8.0, "alpha": 0.5}


@pytest.mark.parametrize("method", ["kd:alpha=0.5", "(kd:alpha=0.5)", "( kd: alpha = 0.50 )"])
def test_a_wrapped_method_has_one_name(method):
    found = check_options(catalogue.get("soft-randomization"), {"method": method})
    assert found == {"method": "kd:alpha=0.5"}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("kdd", "no method named 'kdd'. Did you mean 'kd'"),
        ("(kd:temperatur=8)", "no option of kd named 'temperatur'"),
        ("(fickle-teacher:method=(kd:alpha=much))", "(?s)option of kd does not fit.*alpha"),
    ],
)
def test_mistakes_in_a_wrapped_method_are_told(method, message):
    with pytest.raises(UserError, match=message):
        parse_choice(f"soft-randomization:std=0.1,method={method}")


def test_a_wrapper_asks_for_what_its_method_asks_for():
    assert parse_choice("soft-randomization:method=supervised").fixtures == {"run", "distill", "student"}
    assert "make_student" in parse_choice("soft-randomization:method=tf-kd-self").fixtures


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
        ("kd:standardize_ddof=2", "standardize_ddof=2, which takes one of 0, 1"),
        ("kd:reduction=sum", r"(?s)reduction.*batchmean"),
        ("born-again:generations=1.5", r"(?s)generations.*1\.5"),
        ("kd:temperature", "'temperature' in the method 'kd:temperature' is not an option: write temperature=value"),
        ("kd:alpha=1,20", "alpha=1,20, which takes"),
        ("kd:alpha=1,temperature", "alpha=1,temperature, which takes"),
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
    with pytest.raises(UserError, match="my_methods:Layered needs gamma=: give a value"):
        parse_choice("my_methods:Layered")


def test_python_values_pass_as_well():
    found = check_options(catalogue.get("de-kd"), {"teacher_epochs": None, "temperature": 20, "alpha": "0.5"})
    assert found == {"teacher_epochs": None, "temperature": 20.0, "alpha": 0.5}


def test_tuples_pass_as_lists(own):
    layered, tupled = catalogue.get("my_methods:Layered"), catalogue.get("my_methods:Tupled")
    assert check_options(tupled, {"temperatures": (3, 1)}) == {"temperatures": [3.0, 1.0]}
    assert check_options(layered, {"gamma": 1.0, "layers": ("stem", "head")})["layers"] == ["stem", "head"]


@pytest.mark.parametrize("entry", list(catalogue.entries()), ids=lambda entry: entry.name)
def test_defaults_of_every_method_fit_their_types(entry):
    defaults = entry.hyper_parameters
    expected = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    assert check_options(entry, defaults) == expected


def command():
    """A command.

    Examples:
        tutelage command
    """


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (False, True)),
        (["--standardize"], (True, True)),
        (["--standardize", "--alpha", "0.5", "--t-squared"], (True, True)),
        (["--alpha", "0.5", "--standardize"], (True, True)),
        (["--standardize", "true"], (True, True)),
        (["--standardize=true", "--t_squared=false"], (True, False)),
        (["--standardize", "false", "--t_squared", "false"], (False, False)),
        (["--standardize", "--standardize", "false"], (False, True)),
    ],
)
def test_a_switch_without_a_value_is_on(words, expected):
    found = parse(command, words, entry=catalogue.get("kd"))
    assert (found.standardize, found.t_squared) == expected


def test_switches_of_a_run_need_no_value_either():
    assert parse(command, ["--nesterov"], Training).nesterov is True
    assert parse(command, ["--nesterov", "--epochs", "3"], Training).epochs == 3
    assert parse(command, [], Training).nesterov is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--standardize", "7"], "--standardize 7 does not fit: it takes true or false"),
        (["--alpha"], "alpha"),
        (["--standardise"], "no flag named '--standardise'. Did you mean '--standardize'"),
    ],
)
def test_only_a_switch_needs_no_value(words, message):
    with pytest.raises(UserError, match=message):
        parse(command, words, entry=catalogue.get("kd"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--preset", "one.yaml", "--preset=two.yaml"], (2.0, 7, False)),
        (["--preset=two.yaml", "--preset", "one.yaml"], (1.0, 7, False)),
        (["--nesterov", "--lr", "3", "--preset", "one.yaml", "--preset", "two.yaml"], (3.0, 7, True)),
    ],
)
def test_a_later_preset_wins_and_what_is_typed_over_both(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("lr: 1.0\nnesterov: false\n")
    (tmp_path / "two.yaml").write_text("lr: 2.0\nepochs: 7\n")
    found = parse(command, words, Training, presets=True)
    assert (found.lr, found.epochs, found.nesterov) == expected


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--a", "1", "--b", "2"], ["--b", "2"]),
        (["--a=1", "--b", "2"], ["--b", "2"]),
        (["--b", "2", "--two-words", "1"], ["--b", "2"]),
        (["--a", "--b", "2"], ["--b", "2"]),
        (["--b", "--a"], ["--b"]),
        (["--a", "-1", "--a", "--two_words=3", "--b", "-2"], ["--b", "-2"]),
        (["--b", "a", "--ab", "1"], ["--b", "a", "--ab", "1"]),
    ],
)
def test_flags_are_left_out_with_their_values(words, kept):
    assert without_flags(words, ["a", "two_words"]) == kept


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("kd:temperature=20", None),
        ("soft-randomization:method=(at:beta=500)", None),
        ("nowhere:Thing:alpha=1", "nowhere:Thing"),
        ("soft-randomization:std=0.1,method=(fickle-teacher:method=(nowhere:Thing))", "nowhere:Thing"),
    ],
)
def test_what_would_be_imported_is_known_before(text, path):
    assert imported(text) == path
