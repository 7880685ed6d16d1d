"""Comparisons that several report tests share."""

import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest
from markupsafe import Markup, escape
from rich.console import Console

from tutelage.report.charts import canvas
from tutelage.report.console import render_table


def loaded(name):
    """Return a module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"report_{name}", Path(__file__).parent / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic():
    """The generator of comparisons."""
    return loaded("synthetic")


@pytest.fixture(scope="session")
def retold():
    """What tells a comparison as one of another task."""
    return loaded("retold")


@pytest.fixture
def regression(synthetic, retold):
    """Nine finished rows of a regression in metres, of which lower is better, and one that failed."""
    return retold.regression(synthetic.comparison())


@pytest.fixture
def unmeasured(synthetic, retold):
    """Rows of which nothing was measured but their losses and costs, some with several networks, and one failed."""
    found = retold.unmeasured(synthetic.families())
    found["rows"].append({"label": "fitnet", "method": "fitnet", "error": "out of memory", "runs": []})
    return found


@pytest.fixture
def full(synthetic):
    """Nine finished rows with three seeds, and one that failed."""
    return synthetic.comparison()


@pytest.fixture
def printed():
    """Prints a comparison on a terminal of some width."""

    def print_(comparison, width=100):
        console = Console(file=io.StringIO(), width=width, color_system=None)
        console.print(render_table(comparison))
        return console.file.getvalue()

    return print_


@pytest.fixture
def words():
    """Reads the words of a page, without its charts."""

    def read(page):
        return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", " ", page, flags=re.S))

    return read


@pytest.fixture
def drawn():
    """Ask for this in tests that look into charts: drawing takes a second and a half for a page."""


@pytest.fixture(autouse=True)
def _named_charts(request, monkeypatch):
    """Elsewhere charts are not drawn: they are there with their words alone."""

    def name_it(name, alt, paint, size, is_narrow):
        return Markup(f'<svg class="chart" role="img" aria-label="{escape(alt)}"></svg>')

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(canvas, "_svg", name_it)
