"""One grammar for all names with options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import UserError
from tutelage.system.grammar import holds_options, literal, read, split_all, split_last


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("a", "a", {}),
        ("a,b=1", "a", {"b": "1"}),
        (" a , b = 1 , c = 2 ", "a", {"b": "1", "c": "2"}),
        ("a,b=1,", "a", {"b": "1"}),
        ("a,b=", "a", {"b": ""}),
        ("a,b=1,2,c=3", "a", {"b": "1,2", "c": "3"}),
        ("a,b=(1,c=2),d=3", "a", {"b": "(1,c=2)", "d": "3"}),
        ("a,b='x,c=2',d=3", "a", {"b": "'x,c=2'", "d": "3"}),
        (r"a,b='it\'s,c=2',d=3", "a", {"b": r"'it\'s,c=2'", "d": "3"}),
        ("a,b=o'brien,c=2", "a", {"b": "o'brien", "c": "2"}),
        ("/x/o'brien (1/n.py:f,b=2", "/x/o'brien (1/n.py:f", {"b": "2"}),
        ("", "", {}),
        (",b=1", "", {"b": "1"}),
    ],
)
def test_names_and_options_are_told_apart(text, name, options):
    found = read(text, kind="thing")
    assert (found.name, found.options) == (name, options)


def test_a_colon_may_stand_before_the_first_option_alone():
    found = read("m:C:b=1,c=at:d=2", kind="method", before=":,")
    assert (found.name, found.options) == ("m:C", {"b": "1", "c": "at:d=2"})
    assert read("m:b=1", kind="thing").name == "m:b=1"


def test_the_longest_name_that_exists_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b=1", "a,b=1,c=2", "x, y"):
        (tmp_path / name).mkdir()
    for text, name, options in (
        ("a,b=1", "a,b=1", {}),
        ("a,b=1,d=3", "a,b=1", {"d": "3"}),
        ("a,b=1,c=2,d=3", "a,b=1,c=2", {"d": "3"}),
        ("x, y,d=3", "x, y", {"d": "3"}),
        ("z,b=1", "z", {"b": "1"}),
    ):
        found = read(text, kind="thing", is_place=True)
        assert (found.name, found.options) == (name, options)
    assert read("a,b=1", kind="thing").name == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b", "'b' in the thing 'a,b' is not an option: write b=COLUMN"),
        ("a,3,b=2", "'3' in the thing 'a,3,b=2' is not an option: write key=COLUMN"),
        ("a,b=1,b=2", "b is given twice in the thing 'a,b=1,b=2'"),
    ],
)
def test_mistakes_are_told(text, message):
    with pytest.raises(UserError, match=message):
        read(text, kind="thing", value="COLUMN")


def test_the_last_mark_outside_of_options_splits():
    assert split_last("a,b='x@y'@w@v.pth", "@") == ("a,b='x@y'@w", "v.pth")
    assert split_last("a,b=(1,'@')", "@") == ("a,b=(1,'@')", None)
    assert split_last("a@", "@") == ("a", "")


@given(st.text("ab,=()[]'\"\\ 1:", max_size=12))
def test_what_holds_no_options_stands_as_a_value(value):
    if holds_options(value):
        return
    try:
        found = read(f"name,key={value}", kind="thing")
    except UserError:
        return
    if found.options.keys() == {"key"}:
        assert found.options["key"] == value.strip().removesuffix(",").rstrip()


def test_options_in_a_value_are_seen():
    assert holds_options("kd:a=1,b=2")
    assert not holds_options("kd:a=1,2")
    assert not holds_options("(kd:a=1,b=2)")


def test_a_value_is_split_outside_quotes_and_brackets():
    assert split_all("1|(2|3)| 'a|b' |c", "|") == ["1", "(2|3)", "'a|b'", "c"]
    assert split_all("alone", "|") == ["alone"]
    assert split_all("a||", "|") == ["a", "", ""]


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("True", True), ("none", None), ("(1,2)", (1, 2)), ("'true'", "true"), ("word", "word")],
)
def test_a_value_is_a_literal_or_a_word(text, value):
    assert literal(text) == value


def test_a_broken_literal_is_no_word():
    with pytest.raises(UserError, match="not a Python literal"):
        literal("(1,")
