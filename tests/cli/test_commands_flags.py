"""Flags are shown with hyphens, and typed with hyphens or underscores."""

import re
from pathlib import Path

import pytest

from tutelage.cli.main import COMMANDS, main
from tutelage.cli.parser import parse
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.training.settings import Training

ROOT = Path(__file__).parents[2]
METHODS = {"distill": ["kd"], "doctor": ["de-kd"]}


def command():
    """A command."""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_hyphens(name, capsys):
    with pytest.raises(SystemExit):
        main([name, *METHODS.get(name, []), "--help"])
    text = capsys.readouterr().out
    assert re.findall(r"--\w+_\w*", text) == []
    if name in ("distill", "compare", "doctor"):
        assert "--batch-size BATCH_SIZE" in text
    if name == "doctor":
        assert "--teacher-epochs" in text


def test_messages_and_documents_write_hyphens():
    sources = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    sources += [file for kind in ("py", "yaml") for file in (ROOT / "tutelage").rglob(f"*.{kind}")]
    found = {file.name: re.findall(r"(?<![\w/.-])--[a-z]+_[a-z_]+", file.read_text()) for file in sources}
    # The flag as the parser knows it, to compare with.
    assert {name: flags for name, flags in found.items() if flags} == {"words.py": ["--trust_code"]}


@pytest.mark.parametrize(
    "words", [["--batch-size", "7"], ["--batch_size", "7"], ["--batch-size=7"], ["--batch_size=7"]], ids=" ".join
)
def test_either_is_typed(words):
    assert parse(command, words, Training).batch_size == 7


def test_either_is_typed_for_a_method():
    entry = catalogue.get("de-kd")
    for flag in ("--teacher-epochs", "--teacher_epochs"):
        assert parse(command, [flag, "3"], entry=entry).teacher_epochs == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch_size", "many"], "--batch-size many does not fit"),
        (["--batch_size"], "--batch-size is missing its value"),
        (["--batch_sise", "3"], "no flag named '--batch-sise'. Did you mean '--batch-size'"),
    ],
)
def test_messages_show_hyphens(words, message):
    with pytest.raises(UserError, match=message):
        parse(command, words, Training)
