"""A task's own pictures are one file, found by its name."""

import pytest

from tutelage.report.html import render_html
from tutelage.report.measured import measured_of
from tutelage.report.rows import rows
from tutelage.report.sections import sections_of, terms_of


def found(comparison):
    return sections_of(comparison, rows(comparison), measured_of(comparison))


def test_classification_has_its_sections(full):
    similarity, reliability = found(full)
    assert (similarity.id, reliability.id) == ("similarity", "reliability")
    assert len(similarity.listing.lines) == 10
    assert [panel.caption for panel in reliability.panels] == [row.label for row in rows(full) if row.is_finished]
    ece = full["rows"][0]["summary"]["best"]["test_ece"]["mean"]
    assert reliability.panels[0].words == f"ECE {100 * ece:.2f} %"
    assert "Dashed: the baseline" in reliability.lede


def test_pictures_that_stand_together_are_drawn_as_those_beside_the_scores(full):
    before = render_html(full)
    for row in full["rows"]:
        for run in row["runs"]:
            run["pictures"] = {"reliability": run.pop("reliability")}
    full["teacher"]["pictures"] = {"class_similarity": full["teacher"].pop("class_similarity")}
    assert render_html(full) == before


def test_a_task_without_a_file_has_no_sections(regression):
    assert found(regression) == []
    assert 'id="reliability"' not in render_html(regression)


@pytest.mark.parametrize("name", ["forest", "canvas", "__init__", "../html", "os", "a.b", "", "Classification"])
def test_a_name_that_is_no_tasks_finds_nothing(full, regression, name):
    task = regression["task"] | {"name": name}
    assert found(full | {"task": task}) == []
    assert "Lower is better" in terms_of(measured_of(regression | {"task": task}))


def test_terms_are_the_tasks_own_or_follow_from_its_titles(full, regression, unmeasured):
    assert terms_of(measured_of(full)).startswith("NLL is the mean negative log-likelihood of the true class")
    expected = "MAE is the mean absolute error. Lower is better for RMSE and MAE; higher is better for R²."
    assert terms_of(measured_of(regression)) == expected
    assert terms_of(measured_of(unmeasured)) == ""
