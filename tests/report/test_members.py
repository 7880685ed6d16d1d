import io
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from rich.console import Console

from tutelage.report.charts.exits import exits_chart
from tutelage.report.charts.families import LETTERS, family_charts
from tutelage.report.charts.learning import learning_charts
from tutelage.report.console import render_table
from tutelage.report.html import render_html
from tutelage.report.markdown import render_markdown
from tutelage.report.rows import Estimate, rows


class Text(HTMLParser):
    """The text of a page, and the names of its tags."""

    def __init__(self, source):
        super().__init__()
        self.text, self.tags = "", set()
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def family(synthetic):
    """Five rows, three of which trained several networks."""
    return synthetic.families()


def printed(comparison, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render_table(comparison))
    return console.file.getvalue()


def table_lines(source):
    table = source[source.index('<table class="results"') : source.index("</table>")]
    return re.findall(r'<tr role="row" class="([^"]*)">(.*?)</tr>', table, flags=re.S)


def wanted(member):
    """The numbers of a member as every rendering writes them."""
    best, last = member["best"], member["last"]
    found = [f"{100 * e['mean']:.2f} ± {100 * e['std']:.2f}" for e in (best["test_accuracy"], last["test_accuracy"])]
    return [*found, f"{best['test_nll']['mean']:.3f}", f"{100 * best['test_ece']['mean']:.2f}"]


def without_members(comparison):
    for row in comparison["rows"]:
        row.pop("deployed", None), row.pop("network", None), row["summary"].pop("members", None)
        for run in row["runs"]:
            run.pop("members", None)
            run["history"] = {key: line for key, line in run["history"].items() if "/" not in key or "train" in key}
    return comparison


def test_members_are_read_in_order(family):
    read = {row.label: row for row in rows(family)}
    assert [member.name for member in read["byot"].members] == ["exit-1", "exit-2", "ensemble"]
    assert (read["byot"].deployed, read["byot"].network) == ("student", "small_cnn(width=32)")
    first, *_, together = read["byot"].members
    assert (first.network, first.parameters, first.multiply_adds) == ("small_cnn(width=32)[exit-1]", 61_300, 2_310_000)
    assert (together.network, together.parameters, together.multiply_adds) == (None, None, None)
    stated = family["rows"][2]["summary"]["members"][0]["best"]["test_accuracy"]
    assert first.best["test_accuracy"] == Estimate(stated["mean"], stated["std"], 3)
    assert read["supervised"].members == ()


@pytest.mark.parametrize("value", [None, "no", {"name": "x"}, [], 3])
def test_what_is_no_list_of_members_is_left_out(family, value):
    family["rows"][2]["summary"]["members"] = value
    assert rows(family)[2].members == ()
    assert "<tr" in render_html(family)


def test_page_shows_each_member_beneath_its_row(family):
    lines = table_lines(render_html(family))
    expected = []
    for row in family["rows"]:
        expected += [row["label"], *(member["name"] for member in row["summary"]["members"])]
    assert len(lines) == len(expected) == 13
    assert "".join("m" if "member" in kind.split() else "R" for kind, _ in lines) == "RRRmmmRmmRmmm"
    for (_, line), name in zip(lines, expected):
        assert name in Text(line).text


def test_page_gives_members_their_numbers_and_no_difference(family):
    lines = [line for kind, line in table_lines(render_html(family)) if "member" in kind.split()]
    members = [member for row in family["rows"] for member in row["summary"]["members"]]
    for line, member in zip(lines, members, strict=True):
        text = Text(line).text
        assert all(number in text for number in wanted(member))
        assert (member["spec"] or "") in text
        assert ("multiply-adds" in text) == (member["multiply_adds"] is not None)
        assert "points" not in text
        assert "<svg" not in line


def test_page_says_which_network_a_row_is(family):
    del family["rows"][3]["deployed"], family["rows"][3]["network"], family["rows"][4]["deployed"]
    by_row = [Text(line).text for kind, line in table_lines(render_html(family)) if "member" not in kind.split()]
    assert ["eployed" in text for text in by_row] == [False, False, True, True, True]
    assert "Deployed: student small_cnn(width=32)" in by_row[2]
    assert "The deployed network" in by_row[3]
    assert "Deployed:  small_cnn(width=32)" in by_row[4]


def test_comparisons_without_members_show_nothing_of_them(family, synthetic):
    for old in (without_members(family), synthetic.comparison()):
        source = render_html(old)
        assert not any("member" in kind or "family" in kind for kind, _ in table_lines(source))
        assert not any(mark in source for mark in ('id="exits"', "The networks of one row", "Deployed:"))
        assert "Indented" not in printed(old)
        assert "↳" not in render_markdown(old)


def test_the_overview_of_the_curves_stays_as_it_was(family, synthetic):
    overview = learning_charts(rows(family))
    assert [caption for caption, _ in overview] == [""]
    assert overview == learning_charts(rows(without_members(synthetic.families())))


@pytest.mark.usefixtures("drawn")
def test_every_member_has_its_line_in_the_panel_of_its_row(family):
    panels = dict(family_charts(rows(family)))
    assert list(panels) == ["byot", "dml", "afd:students=4"]
    for row in family["rows"][2:]:
        chart = panels[row["label"]]
        for name in ("student", "baseline", *(member["name"] for member in row["summary"]["members"])):
            assert f">{name}</text>" in chart.wide
            assert f"{name} ends at " in chart.alt


def test_members_without_a_curve_have_no_panel(family):
    for run in family["rows"][2]["runs"]:
        run["history"] = {key: line for key, line in run["history"].items() if "exit" not in key}
        run["history"]["validation_accuracy/ensemble"] = [None] * 30
    assert [caption for caption, _ in family_charts(rows(family))] == ["dml", "afd:students=4"]


@pytest.mark.usefixtures("drawn")
def test_many_members_make_a_taller_panel(family, synthetic):
    peers = [(f"student-{index}", "small_cnn", 1e5, 1e7, 0.001 * index) for index in range(2, 22)]
    synthetic.with_members(family["rows"][3], peers)
    chart = dict(family_charts(rows(family)))["dml"]
    places = [float(y) for y in re.findall(r'<text[^>]* y="([\d.-]+)"[^>]*>student-\d+</text>', chart.wide)]
    assert len(places) == 20
    ordered = sorted(places)
    assert min(b - a for a, b in pairwise(ordered)) > 12
    assert 0 < ordered[0] < ordered[-1] < float(re.search(r'viewBox="0 0 \d+ (\d+)"', chart.wide)[1])


@pytest.mark.usefixtures("drawn")
def test_long_names_are_cut_in_the_panel_and_whole_in_words(family, synthetic):
    name = "a-peer-with-a-very-long-name"
    synthetic.with_members(family["rows"][3], [(name, None, None, None, 0.01)])
    chart = dict(family_charts(rows(family)))["dml"]
    assert f">{name[: LETTERS - 1]}…</text>" in chart.wide
    assert name in chart.alt


def test_a_baseline_with_members_is_drawn_once(family):
    family["baseline"] = "byot"
    assert exits_chart(rows(family)).alt.count("byot:") == 1
    kinds = [kind.split() for kind, _ in table_lines(render_html(family))]
    assert kinds[:4] == [["baseline", "family"], *[["member", "baseline"]] * 2, ["member", "baseline", "last"]]
    assert family_charts(rows(family))[0][0] == "byot"


def test_a_member_may_lack_its_numbers(family):
    bare = {"name": "exit-0", "spec": None, "parameters": None, "multiply_adds": 1_000_000, "best": {}, "last": None}
    family["rows"][2]["summary"]["members"] = [bare, {}]
    lines = [line for kind, line in table_lines(render_html(family)) if "member" in kind.split()]
    assert Text(lines[0]).text.split()[:4] == ["byot:", "exit-0", "–", "–"]
    assert "unnamed" in Text(lines[1]).text
    assert "exit-0" not in exits_chart(rows(family)).alt
    assert "exit-0" in printed(family)
    assert "| ↳ `exit-0` | – | – |  | – | – |  |  | – |" in render_markdown(family)


def test_one_seed_gives_members_no_spread(synthetic):
    comparison = synthetic.families(seeds=1)
    assert "±" not in Text(render_html(comparison)).text
    assert "±" not in render_markdown(comparison)
    assert " ± " not in printed(comparison)


def test_a_failed_row_shows_no_members(family):
    row = family["rows"][3]
    row["runs"], row["error"], row["summary"]["best"] = [], "out of memory", {}
    kinds = [kind for kind, _ in table_lines(render_html(family))]
    assert sum("member" in kind.split() for kind in kinds) == 6
    assert render_markdown(family).count("↳") == 6
    assert "dml: " not in exits_chart(rows(family)).alt


@pytest.mark.usefixtures("drawn")
def test_without_test_data_the_members_show_the_validation_accuracy(family):
    for row in family["rows"]:
        for summary in (row["summary"], *row["summary"]["members"]):
            for moment in ("best", "last"):
                summary[moment] = {"validation_accuracy": summary[moment]["validation_accuracy"]}
    line = next(line for kind, line in table_lines(render_html(family)) if "member" in kind.split())
    reached = family["rows"][2]["summary"]["members"][0]["best"]["validation_accuracy"]["mean"]
    assert f"{100 * reached:.2f} ±" in Text(line).text
    assert "validation accuracy, %" in exits_chart(rows(family)).wide


@pytest.mark.usefixtures("drawn")
def test_hostile_names_are_taken_literally(synthetic):
    names = ['<b onclick="x">&$\\alpha$</b><script>', "a|b`c\nd", "[bold]x[/]", "exit-<u>"]
    comparison = synthetic.families()
    others = [(hostile, hostile, 1e5, 1e6, 0.01 * place) for place, hostile in enumerate(names, 1)]
    row = synthetic.with_members(comparison["rows"][3], others)
    row["deployed"] = row["network"] = names[0]
    source = render_html(comparison)
    page = Text(source)
    assert not {"u", "script"} & page.tags
    assert "<b onclick" not in source
    table = [line.replace("\\|", "") for line in render_markdown(comparison).splitlines() if line.startswith("|")]
    assert len(table) == 2 + 5 + 10
    assert len({line.count("|") for line in table}) == 1
    on_screen = re.sub(r"\s", "", printed(comparison, 400))
    for hostile in names:
        assert hostile in page.text
        assert "".join(hostile.split()) in on_screen


def test_terminal_table_fits_and_names_every_network(family):
    text = printed(family)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    for row in family["rows"][2:]:
        start = next(index for index, line in enumerate(lines) if line.startswith(f" {row['label']} "))
        assert lines[start + 1].startswith("   student, 269 k,")
        for member in row["summary"]["members"]:
            line = next(line for line in lines[start:] if line.startswith(f"   {member['name']}"))
            best, last, nll, ece = wanted(member)
            assert re.search(rf"{best} +last {last} +{nll} +{ece} *$", line)
    assert "Indented" in text


def test_markdown_keeps_its_columns_and_gives_members_no_difference(family):
    lines = [line for line in render_markdown(family).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 13
    assert len({line.count("|") for line in lines}) == 1
    shown = [line for line in lines if line.startswith("| ↳ ")]
    members = [member for row in family["rows"] for member in row["summary"]["members"]]
    for line, member in zip(shown, members, strict=True):
        best, last, nll, ece = wanted(member)
        assert f"| {best} | {last} |  | {nll} | {ece} |  |  | 3 |" in line
        assert f"`{member['name']}`" in line
    assert "`byot`: `student`, `small_cnn(width=32)`, 269 k parameters |" in lines[4]
