import inspect

import pytest

from tutelage.cli.main import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_the_first_line_of_each_command(name):
    function = COMMANDS[name].function()
    assert COMMANDS[name].summary == inspect.getdoc(function).splitlines()[0]
    assert function.__name__.removesuffix("_command") == name


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_the_overview_names_every_command(words, capsys):
    assert main(words) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_overview_is_wrapped_between_words(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["--help"])
    text = capsys.readouterr().out
    listed = text[text.index("  demo") : text.index("Each has")]
    assert max(map(len, listed.splitlines())) <= columns
    words = " ".join(listed.split())
    assert all(f"{name} {command.summary}" in words for name, command in COMMANDS.items())


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version(word, capsys):
    assert main([word]) == 0
    assert capsys.readouterr().out.startswith("tutelage ")


def test_a_command_that_is_none_is_refused_with_the_nearest(capsys):
    assert main(["distil"]) == 2
    assert "There is no command named 'distil'. Did you mean 'distill' or" in capsys.readouterr().err
