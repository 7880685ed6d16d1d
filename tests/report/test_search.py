import copy
import io

import pytest
from rich.console import Console

from tutelage.report.search import search_summary, search_table, write_search_page

TERMS = {"semantic": -1.0, "relation": -0.5}
CANDIDATES = [
    {
        "network": f"net<b>,width={n}",
        "score": -1.5 / n,
        "terms": TERMS,
        "parameters": 1000 * n**3,
        "multiply_adds": 10**6,
    }
    for n in range(1, 6)
]
CONTENT = {
    "space": "net,width=1..5",
    "score": "diswot",
    "limits": "at most 1 M parameters",
    "teacher": "big",
    "data": "digits 123",
    "batch_size": 64,
    "draws": 1,
    "seed": 0,
    "device": "cpu",
    "tutelage": "1.0",
    "created": "today",
    "command": "tutelage search --space 'net,width=1..5'",
    "networks": 7,
    "outcomes": {"scored": 5, "over the limits": 2},
    "reasons": {"over the limits": "net,width=9: 2 M parameters, over the limit"},
    "seconds": 12.0,
    "passes": 11.0,
    "agreement": 1.0,
    "best": CANDIDATES[:2:-1],
    "candidates": [*CANDIDATES, {**CANDIDATES[0], "score": None}],
}


def text_of(table):
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()


def test_the_table_has_terms_and_sizes():
    lines = text_of(search_table(CONTENT)).splitlines()
    assert lines[0].split() == ["Network", "Score", "Semantic", "Relation", "Parameters", "Multiply-adds"]
    assert lines[1].split() == ["1", "net<b>,width=5", "-0.3", "-1", "-0.5", "125", "k", "1", "M"]
    assert len(lines) == 3


def test_a_single_term_is_the_score_itself():
    content = copy.deepcopy(CONTENT)
    for each in content["best"]:
        each["terms"] = {"layers": each["score"]}
    assert "Layers" not in text_of(search_table(content))


@pytest.mark.parametrize(
    ("tau", "said"), [(0.9, "much as their number"), (0.1, "otherwise than their number"), (None, "")]
)
def test_the_summary_says_what_the_score_adds_to_size(tau, said):
    text = search_summary(CONTENT | {"agreement": tau})
    assert text.startswith("5 networks scored of 7 in the space (all with at most 1 M parameters), in 12 s.")
    assert "2 over the limits, such as net,width=9: 2 M parameters, over the limit." in text
    assert said in text
    assert ("Kendall" in text) is (tau is not None)


def test_a_part_of_a_space_was_chosen():
    assert "chosen by evolution" in search_summary(CONTENT | {"networks": 1000})


def test_the_page_shows_all_and_escapes_names(tmp_path):
    page = write_search_page(CONTENT, tmp_path / "search.html").read_text()
    assert "net&lt;b&gt;" in page
    assert "net<b>" not in page
    assert page.count('<svg class="chart"') == 2
    assert "Score against parameters of 5 networks. The best is net&lt;b&gt;,width=5 with" in page
    assert f"student found:{tmp_path}" in page
