"""What was typed, made ready for the parser."""

import json

import pytest

from tutelage.cli.words import asks_for_help, gathered, hyphened, leading, preset_names, underscored, with_presets
from tutelage.errors import UserError

SEVERAL = {"--student", "--teacher"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--student a", ['--student=["a"]']),
        ("--student a b --data d", ["--data", "d", '--student=["a", "b"]']),
        ("--student=a b", ['--student=["a", "b"]']),
        ("--student a --data d --student b", ["--data", "d", '--student=["a", "b"]']),
        ("--data d --student", ["--data", "d", "--student"]),
        ("--layers x:y --flag", ["--layers", "x:y", "--flag"]),
    ],
)
def test_flags_of_several_values_become_lists(words, expected):
    assert gathered(words.split(), SEVERAL) == expected


def test_a_value_with_commas_and_quotes_survives():
    name = 'nets.py:Net,size=[1, 2],note="x y"'
    (word,) = gathered(["--student", name], SEVERAL)
    assert json.loads(word.partition("=")[2]) == [name]


def test_dashes_become_underscores_in_flags_alone():
    assert underscored("--batch-size=4") == "--batch_size=4"
    assert underscored("tf-kd-reg") == "tf-kd-reg"


def test_underscores_become_hyphens_in_flags_alone():
    text = "--batch_size 4 --out=my_runs/--a_b tiny_cnn,a_b=1 (--clip_norm), --trust_code."
    assert hyphened(text) == "--batch-size 4 --out=my_runs/--a_b tiny_cnn,a_b=1 (--clip-norm), --trust-code."


@pytest.mark.parametrize("key", ["clip_norm", "clip-norm"])
def test_a_preset_may_have_either(key, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{key}: 2\n")
    assert with_presets(["--preset", str(file)], {"--clip_norm", "--preset"}, set()) == ["--clip_norm=2"]


def test_a_preset_with_both_is_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("clip_norm: 2\nclip-norm: 3\n")
    with pytest.raises(UserError, match="both with hyphens and with underscores"):
        with_presets(["--preset", str(file)], {"--clip_norm", "--preset"}, set())


def test_an_unknown_flag_of_a_preset_is_told_with_hyphens(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("clip_nrm: 2\n")
    with pytest.raises(UserError, match="'--clip-nrm'. Did you mean '--clip-norm'"):
        with_presets(["--preset", str(file)], {"--clip_norm", "--preset"}, set())


def test_a_preset_stands_before_what_is_typed(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 3\nclip_norm: null\n")
    known = {"--epochs", "--clip_norm", "--preset"}
    found = with_presets(["--epochs=5", "--preset", str(file)], known, SEVERAL)
    assert found == ["--epochs=3", "--clip_norm=null", "--epochs=5"]
    with pytest.raises(UserError, match="preset"):
        with_presets(["--preset", "att"], known, SEVERAL)
    assert {"kd", "dml"} <= set(preset_names())


def test_names_stand_before_the_first_flag():
    assert leading(["kd", "at:beta=2", "--student", "a"]) == ["kd", "at:beta=2"]
    assert leading(["-h"]) == []
    assert leading(["kd"]) == ["kd"]
    assert asks_for_help(["kd", "--help"])
    assert not asks_for_help(["kd"])


def test_networks_that_are_typed_replace_those_of_a_preset(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("student: a\nteacher: t\n")
    two.write_text('student: [b, "c,width=8"]\n')
    known = SEVERAL | {"--preset"}
    presets = [f"--preset={one}", "--preset", str(two)]
    assert gathered(with_presets(presets, known, SEVERAL), SEVERAL) == [
        '--student=["b", "c,width=8"]',
        '--teacher=["t"]',
    ]
    assert gathered(with_presets([*presets, "--student", "d"], known, SEVERAL), SEVERAL) == [
        '--teacher=["t"]',
        '--student=["d"]',
    ]
