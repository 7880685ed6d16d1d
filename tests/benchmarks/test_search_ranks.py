"""The page of the scores shows what was measured."""

import json
from pathlib import Path

import search_ranks

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_table_of_the_page_is_that_of_the_json():
    content = json.loads((RESULTS / "search-ranks.json").read_text())
    assert search_ranks.table(content["ranks"]) in (RESULTS / "search.md").read_text()


def test_the_page_begins_with_whether_counting_parameters_is_beaten():
    found = json.loads((RESULTS / "search-ranks.json").read_text())["ranks"]
    best = max(each["kendall kd"] for name, seeds in found.items() if ":" in name for each in seeds)
    assert best < found["parameters"][0]["kendall kd"]
    first = (RESULTS / "search.md").read_text().split("\n\n")[1]
    assert first.startswith("**Counting parameters ranks students better than every score here.**")
