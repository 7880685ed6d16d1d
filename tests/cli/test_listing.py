from types import SimpleNamespace

import pytest

from tutelage.cli import listing
from tutelage.cli.main import main
from tutelage.core import registry
from tutelage.core.registry import Paper, register
from tutelage.experiments import catalogue

PAPER = Paper(key="me2024mine", title="Mine", authors="Me", venue="Journal", year=2024)


def mine(student):
    """Mine alone."""


@pytest.fixture
def added(monkeypatch):
    """A method that an installed package adds."""
    catalogue.names()
    monkeypatch.setattr(registry, "REGISTERED", dict(registry.REGISTERED))
    points = [SimpleNamespace(load=lambda: register("mine", papers=[PAPER])(mine))]
    for module in (listing, catalogue):
        monkeypatch.setattr(module, "entry_points", lambda group: points if group == "tutelage.methods" else [])


def test_methods_are_listed_without_the_registry(monkeypatch):
    monkeypatch.setattr(catalogue, "entries", None)
    assert {each.name for each in listing.listings()} == set(catalogue.names())


def test_methods_of_installed_packages_are_listed_and_cited(added, capsys):
    assert "mine" in {each.name for each in listing.listings()}
    assert main(["cite", "mine", "kd"]) == 0
    text = capsys.readouterr().out
    assert "me2024mine" in text
    assert "hinton2015distilling" in text


def test_methods_are_listed_where_their_files_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setattr(listing, "METHODS", tmp_path)
    assert {each.name for each in listing.listings()} == set(catalogue.names())


@pytest.mark.parametrize("columns", [80, 120])
def test_no_word_of_the_table_is_cut_off(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = {word for line in lines for word in line.split()}
    assert max(map(len, lines)) <= columns
    for each in listing.listings():
        assert {each.name, *f"{each.title} {each.teacher} {each.sources.replace(';', '')}".split()} <= words
        assert f"learns from: {each.family}" in [line.strip() for line in lines]


def test_a_narrow_terminal_breaks_words_and_loses_none(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["methods"]) == 0
    assert "…" not in capsys.readouterr().out


def test_all_papers_are_cited_if_no_method_is_named(capsys):
    assert main(["cite"]) == 0
    assert capsys.readouterr().out.strip() == catalogue.cite(sorted(catalogue.names())).strip()


def test_cite_takes_an_import_path(capsys):
    assert main(["cite", "tutelage.methods.kd:KD"]) == 0
    assert capsys.readouterr().out.strip() == catalogue.cite(["kd"])
