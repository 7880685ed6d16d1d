import pytest

from tutelage.report.charts.uncertainty import uncertainty_charts
from tutelage.report.html import render_html
from tutelage.report.rows import rows

pytestmark = pytest.mark.usefixtures("drawn")

BINS = {"edges": [0.0, 0.5, 1.0], "test": [3.0, 1.0], "foreign": [1.0, 1.0]}


def with_uncertainty(comparison):
    comparison["data"]["foreign"] = {"name": "elsewhere", "samples": 2}
    comparison["teacher"] |= {"uncertainty": {"total": BINS, "knowledge": BINS}, "foreign_auroc_knowledge": 0.75}
    comparison["rows"][0]["runs"][0]["uncertainty"] = {"total": BINS}
    comparison["rows"][0]["summary"]["best"]["foreign_auroc_total"] = {"mean": 0.625, "std": 0.0, "n": 3}
    return comparison


def test_the_ensemble_comes_first_and_each_kind_has_its_picture(full):
    comparison = with_uncertainty(full)
    found = uncertainty_charts(comparison, rows(comparison))
    label = comparison["rows"][0]["label"]
    assert [(caption, words) for caption, words, _ in found] == [
        ("teacher: total", ""),
        ("teacher: knowledge", "AUROC 75.00 %"),
        (f"{label}: total", "AUROC 62.50 %"),
    ]
    page = render_html(comparison)
    assert 'id="uncertainty"' in page
    assert "Red: elsewhere" in page


def test_without_histograms_there_is_no_section(full):
    assert uncertainty_charts(full, rows(full)) == []
    assert 'id="uncertainty"' not in render_html(full)


def test_histograms_that_are_damaged_are_left_out(full):
    comparison = with_uncertainty(full)
    comparison["teacher"]["uncertainty"] = {"total": {"edges": [0.0], "test": [1.0]}, "knowledge": 3}
    comparison["rows"][0]["runs"][0]["uncertainty"] = None
    assert uncertainty_charts(comparison, rows(comparison)) == []
