import json
import re
from html.parser import HTMLParser

import pytest

from tutelage.errors import UserError
from tutelage.report.html import render_html, write_report

VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """What a page holds: its tags with attributes, its ids, and its text without markup."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def page(synthetic):
    return render_html(synthetic.comparison())


def test_page_is_well_nested_and_titled(page):
    parsed = Page(page)
    assert parsed.open == []
    assert [tag for tag, _ in parsed.tags if tag == "h1"] == ["h1"]


def test_page_loads_nothing(page):
    parsed = Page(page)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert "link" not in {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "data"):
            assert re.match(r"#|data:image/png;", attributes.get(name, "#"))
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(page) < 1_500_000


def test_ids_are_unique_and_references_resolve(page):
    attributes = [found for _, found in Page(page).tags]
    ids = [found["id"] for found in attributes if "id" in found]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", page)) | {
        found["href"][1:] for found in attributes if found.get("href", "").startswith("#")
    }
    assert used <= set(ids)


def test_every_label_appears(page, full):
    text = Page(page).text
    for row in full["rows"]:
        assert row["label"] in text
        assert row["title"] in text
        assert row["command"] in text
    assert "loss became NaN in epoch 2 (seed 0)" in text


def test_table_shows_the_numbers_of_the_file(page, full):
    table = page[page.index('<table class="results"') : page.index("</table>")]
    lines = re.findall(r"<tr role=\"row\" class.*?</tr>", table, flags=re.S)
    assert len(lines) == len(full["rows"])
    for line, row in zip(lines, full["rows"]):
        if "error" in row:
            assert "Did not finish" in line
            continue
        text = Page(f"<table>{line}</table>").text
        best, last = row["summary"]["best"], row["summary"]["last"]
        for accuracy in (best["test_accuracy"], last["test_accuracy"]):
            assert f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['std']:.2f}" in text
        assert f"{best['test_nll']['mean']:.3f}" in text
        assert f"{100 * best['test_ece']['mean']:.2f}" in text
        paired = row["summary"]["paired"]
        if paired:
            low, high = (f"{100 * paired['best'][end]:+.2f}".replace("-", "−") for end in ("low", "high"))
            assert f"{low} to {high}" in text
            assert ("no difference beyond noise" in text) == (paired["best"]["low"] <= 0 <= paired["best"]["high"])


@pytest.mark.usefixtures("drawn")
def test_hostile_text_is_escaped(synthetic):
    hostile = '<b onclick="x">&$\\alpha$"</b><script>'
    comparison = synthetic.comparison(take=3)
    comparison["title"] = comparison["command"] = comparison["data"]["class_names"][3] = hostile
    comparison["data"]["name"] = comparison["student"]["spec"] = comparison["teacher"]["spec"] = hostile
    comparison["settings"][hostile] = hostile
    comparison["citations"] = {hostile: hostile}
    comparison["curves"] = {hostile: comparison["curves"]["de-kd"]}
    comparison["rows"][-1]["error"] = hostile
    for row in comparison["rows"][1:]:
        row["label"] = row["title"] = row["command"] = hostile
    parsed = Page(render_html(comparison))
    assert not {"b", "script"} & {tag for tag, found in parsed.tags if found.get("onclick")}
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert parsed.open == []
    assert hostile in parsed.text


@pytest.mark.usefixtures("drawn")
def test_names_in_any_script_are_drawn(synthetic):
    comparison = synthetic.comparison(take=2)
    comparison["data"]["class_names"] = ["猫", "犬", "Ελιά", "щука", "ñandú", "🐸", "鳥", "馬", "船", "車"]
    comparison["rows"][1]["label"] = "蒸留"
    text = Page(render_html(comparison)).text
    assert "🐸" in text
    assert "蒸留" in text


def test_empty_comparison_has_a_page():
    text = Page(render_html({"version": 1})).text
    assert "nothing to compare" in text


@pytest.mark.parametrize("absent", [True, False])
def test_absent_blocks_leave_their_section_out(synthetic, absent):
    comparison = synthetic.comparison(take=2, failed=False)
    marks = ('id="similarity"', 'id="teachers"', "Cite what was used", "Settings, data and environment", "<dt>Teacher")
    assert all(mark in render_html(comparison) for mark in marks)
    for key in ("teacher", "curves", "citations", "settings", "data", "student", "environment"):
        comparison[key] = None
        if absent:
            del comparison[key]
    source = render_html(comparison)
    assert not any(mark in source for mark in marks)


def test_rows_may_lack_histories_reliability_and_cost(synthetic):
    comparison = synthetic.comparison(take=3, failed=False)
    for row in comparison["rows"]:
        row["summary"]["relative_cost"] = None
        row["summary"]["seconds"] = {}
        for run in row["runs"]:
            del run["history"], run["reliability"]
            run["best"]["test_nll"] = float("nan")
    source = render_html(comparison)
    for section in ("learning", "reliability", "cost"):
        assert f'id="{section}"' not in source
    assert 'id="differences"' in source


def test_one_seed_shows_no_spread_and_says_so(synthetic):
    text = Page(render_html(synthetic.comparison(seeds=1))).text
    assert "±" not in text
    assert "one seed" in text
    assert "no interval" in text


def test_single_run_without_baseline(synthetic):
    comparison = synthetic.comparison(take=1, failed=False)
    comparison["baseline"] = None
    source = render_html(comparison)
    assert 'id="differences"' not in source
    assert "Plain student reached" in Page(source).text


@pytest.mark.usefixtures("drawn")
def test_many_classes_stay_small(synthetic):
    source = render_html(synthetic.comparison(classes=100))
    assert len(source) < 1_500_000
    assert "Most alike" in source


@pytest.mark.usefixtures("drawn")
def test_same_comparison_gives_the_same_page(synthetic):
    assert render_html(synthetic.comparison()) == render_html(synthetic.comparison())


def test_report_is_written_from_a_file(full, tmp_path):
    source = tmp_path / "comparison.json"
    source.write_text(json.dumps(full))
    target = write_report(source, tmp_path / "deep" / "report.html")
    assert target == tmp_path / "deep" / "report.html"
    assert target.read_text(encoding="utf-8") == render_html(full)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_a_recorded_teacher_is_named_with_what_it_knew(synthetic):
    comparison = synthetic.comparison(take=2)
    comparison["teacher"] = {
        "spec": "recording: resnet56 (top5, 8 views)",
        "recorded_views": 20_000,
        "recorded_accuracy": 0.9312,
        "trained_here": False,
    }
    text = Page(render_html(comparison)).text
    assert "recording: resnet56 (top5, 8 views)" in text
    assert "accuracy 93.12 % on 20,000 recorded training views" in text.replace("\u00a0", " ")


def test_failure_keeps_the_old_report(full, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def fail(*_):
        raise OSError("disk is full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(UserError, match="disk is full"):
        write_report(full, target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("content", [{"version": 2}, [], {}])
def test_other_versions_are_refused(content, tmp_path):
    source = tmp_path / "comparison.json"
    source.write_text(json.dumps(content))
    with pytest.raises(UserError, match="version 1"):
        write_report(source, tmp_path / "report.html")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json"):
        write_report(tmp_path / "nowhere.json", tmp_path / "report.html")


def test_second_baseline_is_marked_and_used(synthetic):
    comparison = synthetic.with_teacher_rows()
    source = render_html(comparison)
    assert source.count(">second baseline<") == 1
    assert source.count("<small>to supervised-teacher</small>") == 1
    assert 'id="cost"' in source


def test_without_test_data_the_page_says_so(synthetic):
    comparison = synthetic.comparison(take=2, failed=False)
    for row in comparison["rows"]:
        row["summary"]["paired"] = None
        for moment in ("best", "last"):
            for metric in ("test_accuracy", "test_nll", "test_ece"):
                del row["summary"][moment][metric]
                for run in row["runs"]:
                    run[moment].pop(metric, None)
    text = Page(render_html(comparison)).text
    assert "there were no test data" in text
    assert "Test accuracy" not in text


def test_poor_teachers_are_found_in_the_rows(synthetic):
    comparison = synthetic.comparison()
    del comparison["curves"]
    assert 'id="teachers"' in render_html(comparison)


def test_a_paper_shared_by_methods_is_cited_once(synthetic):
    comparison = synthetic.comparison(take=1)
    comparison["citations"] = {"tf-kd-self": "@article{a}", "tf-kd-reg": "@article{a}", "kd": "@article{b}"}
    source = render_html(comparison)
    assert source.count("@article{a}") == 1
    assert "tf-kd-self, tf-kd-reg" in source
