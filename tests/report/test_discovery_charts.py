"""What the report draws of novel class discovery: which cluster holds which class."""

import pytest

from tutelage.report.charts.discovery import clusters_of, sections
from tutelage.report.rows import rows

NAMES = ["fox <red>", "gnu"]


def comparison(count=1, clusters=([[8, 2], [1, 9]], [[6, 4], [5, 5]])):
    """Return a comparison with some rows, each of two seeds."""
    runs = [
        {"best": {"test_novel_accuracy": 0.7}, "pictures": {} if one is None else {"clusters": one}, "history": {}}
        for one in clusters
    ]
    means = {
        "test_accuracy": {"mean": 0.6, "std": 0.0, "n": 2},
        "test_novel_accuracy": {"mean": 0.7, "std": 0.0, "n": 2},
        "test-training_novel_accuracy": {"mean": 0.81, "std": 0.0, "n": 2},
    }
    entries = [
        {"label": f"row {n}", "method": "m", "runs": runs, "summary": {"best": means, "last": means}}
        for n in range(count)
    ]
    metrics = {name: {"title": name, "unit": "share"} for name in ("accuracy", "novel_accuracy")}
    task = {"name": "x", "title": "x", "primary": "accuracy", "metrics": metrics, "hidden": NAMES}
    return {"version": 1, "task": task, "data": {}, "rows": entries}


def test_shares_are_of_all_seeds_together():
    (row,) = rows(comparison())
    assert clusters_of(row).tolist() == [pytest.approx([0.7, 0.3]), pytest.approx([0.3, 0.7])]


def test_each_row_has_a_panel_with_its_numbers_in_words():
    (section,) = sections(comparison(2), rows(comparison(2)))
    assert [panel.caption for panel in section.panels] == ["row 0", "row 1"]
    assert "fox <red> 70 %; gnu 70 %" in section.panels[0].chart.alt
    assert section.panels[0].words == "in the matched cluster: 70.0 % of test images, 81.0 % of training images"
    assert "<red>" not in section.panels[0].chart.wide
    assert "rows are drawn" not in section.lede


def test_more_rows_than_are_drawn_are_told():
    (section,) = sections(comparison(9), rows(comparison(9)))
    assert len(section.panels) == 8
    assert "The first 8 of 9 rows are drawn." in section.lede


@pytest.mark.parametrize("clusters", [(None,), ("no table",), ([[1, 2]],), ([["a", "b"], [1, 2]],)])
def test_without_clusters_nothing_is_drawn(clusters):
    content = comparison(clusters=clusters)
    assert sections(content, rows(content)) == []


def test_many_classes_are_drawn_without_names():
    wide = [[1 if row == column else 0 for column in range(25)] for row in range(25)]
    content = comparison(clusters=(wide,))
    (section,) = sections(content, rows(content))
    assert "class 25" not in section.panels[0].chart.wide
    assert "class 1 100 %" in section.panels[0].chart.alt
