"""Scores over what a recipe counted: one section for each such thing, and none where nothing was noted."""

import pytest

from tutelage.report.charts.curves import curve_sections
from tutelage.report.html import render_html
from tutelage.report.rows import rows


@pytest.fixture
def noted(full):
    """Two rows with curves: three points, the mean of two of the seeds at the last; and a single point."""
    first, second = full["rows"][1:3]
    for place, run in enumerate(first["runs"]):
        run["curves"] = [{"over": "queries", "values": [[100, 0.5], [200, 0.6], [400, 0.7 + 0.02 * place]]}]
    second["runs"][0]["curves"] = [{"over": "queries", "values": [[100, 0.55]]}]
    return full


def test_a_section_shows_the_rows_that_noted_a_curve(noted):
    [section] = curve_sections(rows(noted))
    assert (section.id, section.title) == ("over-queries", "Test accuracy over queries")
    [panel] = section.panels
    first, second = noted["rows"][1:3]
    mean = 70 + 2 * (len(first["runs"]) - 1) / 2
    assert f"{first['label']} has {mean:.2f}" in panel.chart.alt
    assert "at 400" in panel.chart.alt
    assert f"{second['label']} has 55.00" in panel.chart.alt
    page = render_html(noted)
    assert "Over queries" in page
    assert 'id="over-queries"' in page


def test_without_curves_there_is_no_section(full):
    assert curve_sections(rows(full)) == []


def test_points_that_are_no_numbers_are_left_out(noted):
    noted["rows"][1]["runs"] = [{**noted["rows"][1]["runs"][0], "curves": [{"over": "x", "values": [["a", None]]}]}]
    assert [section.id for section in curve_sections(rows(noted))] == ["over-queries"]
