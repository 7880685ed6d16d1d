"""docs/performance.md shows what lies in docs/results, under the commands that measured it."""

import json
from pathlib import Path

import cost
import profile_step
import pytest
import switches
from contenders import tables

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "performance.md").read_text()


def measured(name, key=None):
    """Return the content of a file, and of several that are one table, with what was measured in all of them."""
    first, *others = (json.loads((DOCS / "results" / f"{part}.json").read_text()) for part in name.split("+"))
    assert all(f"    {content['command']}\n" in PAGE for content in (first, *others))
    for other in others:
        assert other["machine"] == first["machine"]
        first[key] |= other[key]
    return first


@pytest.mark.parametrize(
    ("name", "key", "table"),
    [
        ("throughput", None, tables.table),
        ("throughput-accuracy-textbook+throughput-accuracy", "accuracy", tables.table),
        ("switches", None, switches.table),
        ("profile", None, profile_step.table),
        ("cost+cost-rest", "methods", cost.table),
    ],
)
def test_the_page_shows_what_was_measured(name, key, table):
    lines = [line for line in table(measured(name, key)).splitlines() if line]
    assert len(lines) > 3
    assert [line for line in lines if line not in PAGE] == []


def test_nothing_that_is_shown_failed():
    assert "Error" not in PAGE
    assert "n/a" not in PAGE
