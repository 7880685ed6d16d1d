"""What is documented works: Python that can be run is run, commands are parsed, generated pages are what is there."""

import importlib.util
import inspect
import json
import re
import runpy
import shlex
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.cli import commands as cli
from tutelage.cli import requests as flags
from tutelage.cli import serving, synthetic
from tutelage.cli.main import COMMANDS, main
from tutelage.core import registry
from tutelage.experiments import catalogue
from tutelage.methods.unix import compute_ratio
from tutelage.report.aspects import answer_costs
from tutelage.report.charts.classification import uncertainties
from tutelage.report.markdown import render_markdown
from tutelage.report.reading import load as load_comparison

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def _generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generator()


def commands():
    guides = [README, *((ROOT / "docs" / f"{name}.md").read_text() for name in ("tasks", "networks"))]
    readme = [line for text in guides for line in text.splitlines() if line.startswith("tutelage ")]
    helps = [line for command in COMMANDS.values() for line in inspect.getdoc(command.function()).splitlines()]
    pages = [GENERATE.example(entry) for entry in catalogue.entries()]
    results = [page.read_text().replace("\\\n", " ") for page in sorted((ROOT / "docs" / "results").glob("*.md"))]
    lines = [*readme, *helps, *pages, *(line for text in results for line in text.splitlines())]
    found = [line.strip() for line in lines if line.strip().startswith("tutelage ")]
    return list(dict.fromkeys(found))


class Parsed(BaseException):
    """The words were understood; what they ask for is not done."""


@pytest.fixture
def only_parsed(monkeypatch, tmp_path):
    def stop(*_, **__):
        raise Parsed

    monkeypatch.setattr(flags, "resolve_data", stop)
    monkeypatch.setattr(serving, "_served", stop)
    for work in ("synthesize", "similarity"):
        monkeypatch.setattr(synthetic, work, stop)
    for work in ("demo_comparison", "write_report", "predict"):
        monkeypatch.setattr(cli, work, stop)
    monkeypatch.setattr(cli, "load_comparison", lambda file: {})
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text("{}")


@pytest.mark.parametrize("line", commands())
def test_documented_commands_are_understood(line, only_parsed, capsys):
    words = shlex.split(line, comments=True)[1:]
    try:
        assert main(words) == 0, capsys.readouterr().err
        assert words[0] in ("methods", "cite")
    except Parsed:
        pass


def test_there_are_commands_and_python_to_check():
    assert len(commands()) > 20
    assert len(PYTHON) == 2


PAGES = GENERATE.pages()


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_generated_pages_are_what_is_there(file):
    assert file.read_text() == PAGES[file], "run `make docs`"


def test_every_page_belongs_to_a_method():
    assert {file.stem for file in (ROOT / "docs" / "methods").glob("*.md")} == set(catalogue.names())


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Small stand-ins for what a reader brings."""
    pairs = TensorDataset(torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2)
    monkeypatch.chdir(tmp_path)
    for name in ("distill", "compare"):
        quick = partial(getattr(tutelage, name), progress=False)
        monkeypatch.setattr(tutelage, name, lambda *a, quick=quick, **k: quick(*a, **(k | {"epochs": 1})))
    monkeypatch.setattr(registry, "REGISTERED", dict(registry.REGISTERED))
    return {"net": small(), "big": small(), "train_set": pairs, "test_set": pairs}


@pytest.mark.parametrize("source", PYTHON, ids=["six lines", "a method of your own"])
def test_python_of_the_readme_runs(source, offline):
    names = dict(offline)
    exec(compile(source, "README.md", "exec"), names)
    if "HalfKD" in names:
        teach = {"teacher": "tiny_cnn,width=4", "data": "digits", "temperature": 2.0}
        names["student"] = tutelage.distill("half-kd", student="tiny_cnn,width=3", **teach)
    assert isinstance(names["student"], nn.Module)
    assert not names["student"].training


def test_losses_are_where_the_readme_says():
    assert "`from tutelage.losses import kd_loss`" in README
    from tutelage.losses import kd_loss

    assert callable(kd_loss)


RESULTS = ROOT / "docs" / "results"
COMPARISONS = [(file, "tf-kd.md") for file in sorted(RESULTS.glob("tf-kd-*.json"))]
COMPARISONS += [(file, "features.md") for file in sorted(RESULTS.glob("features-*.json"))]
COMPARISONS += [(RESULTS / "tokens.json", "tokens.md")]
PARTS = ("self", "online", "ensembles", "noise", "unix")
COMPARISONS += [(RESULTS / f"{part}-cifar10.json", "self-online.md") for part in PARTS]


@pytest.mark.parametrize(("file", "page"), COMPARISONS, ids=lambda value: getattr(value, "stem", value))
def test_tables_of_the_results_are_those_of_the_json(file, page):
    table = [line for line in render_markdown(load_comparison(file)).splitlines() if line.startswith("|")]
    assert len(table) >= 2 + len(load_comparison(file)["rows"])
    assert "\n".join(table) in (RESULTS / page).read_text()


@pytest.mark.parametrize(
    ("made", "part"), [(partial(answer_costs, others=["nll"]), "self"), (uncertainties, "ensembles")]
)
def test_single_aspects_of_the_results_are_those_of_the_json(made, part):
    assert made(load_comparison(RESULTS / f"{part}-cifar10.json")) in (RESULTS / "self-online.md").read_text()


@pytest.mark.parametrize(
    ("name", "files"), [("spirals", ["spirals", "spirals-relu"]), ("corruptions", ["corruptions"])]
)
def test_tables_of_benchmarks_are_those_of_the_json(name, files):
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))
    contents = [json.loads((RESULTS / f"{file}.json").read_text()) for file in files]
    assert benchmark["table"](*contents) in (RESULTS / "self-online.md").read_text()


def test_the_prices_of_unix_follow_from_the_formula():
    page = (RESULTS / "self-online.md").read_text()
    lines = re.findall(r"^\| .+ → .+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(lines) == 12
    for rho, price, published in lines:
        assert price == f"{100 * compute_ratio(0.75, 64, float(rho)):.2f}"
        assert abs(float(price) - float(published)) < 0.025


def test_tables_of_the_pairs_are_those_of_the_json():
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "pairs.py"))
    content = json.loads((RESULTS / "pairs.json").read_text())
    assert benchmark["tables"](content) in (RESULTS / "features.md").read_text()


def test_tables_of_what_is_known_without_data_are_those_of_the_json():
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "no_data.py"))
    content, page = json.loads((RESULTS / "no-data.json").read_text()), (RESULTS / "no-data.md").read_text()
    tables = [*map(benchmark["near_table"], content["near"])]
    tables += map(benchmark["student_table"], content["students"].values())
    assert len(tables) == len(content["near"]) + len(content["students"]) > 2
    assert all(table in page for table in tables)


def test_tables_of_the_black_box_are_those_of_the_json():
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "black_box.py"))
    content = json.loads((RESULTS / "black-box.json").read_text())
    page = (RESULTS / "black-box.md").read_text()
    assert all(benchmark["table"](each) in page for each in content["comparisons"])


def test_the_table_of_texts_is_that_of_the_json():
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "texts.py"))
    content = json.loads((RESULTS / "text-speed.json").read_text())
    assert benchmark["table"](content) in (ROOT / "docs" / "performance.md").read_text()
