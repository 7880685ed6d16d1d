"""What is shown where nothing was measured, or nothing on validation data."""

import re

from tutelage.report.aspects import answer_costs
from tutelage.report.bars import scale_of
from tutelage.report.charts.cost import cost_chart
from tutelage.report.charts.exits import exits_chart
from tutelage.report.charts.families import family_charts
from tutelage.report.charts.forest import forest_chart
from tutelage.report.charts.learning import learning_charts
from tutelage.report.charts.poor_teachers import teacher_charts
from tutelage.report.html import render_html
from tutelage.report.markdown import render_markdown
from tutelage.report.rows import rows
from tutelage.report.verdict import qualifications, verdict


def test_where_nothing_was_measured_costs_and_losses_are_left(unmeasured, printed):
    assert verdict(unmeasured) == "5 rows finished, but nothing was measured that could be compared"
    assert qualifications(unmeasured) == []
    entries = rows(unmeasured)
    assert [row.is_finished for row in entries] == [True] * 5 + [False]
    assert [bool(row.losses) for row in entries] == [True] * 5 + [False]
    table = [line for line in render_markdown(unmeasured).splitlines() if line.startswith("|")]
    assert table[0] == "| Row | Training losses | Time | Cost | n |"
    assert table[2] == f"| `supervised` (baseline) | ce {entries[0].losses['ce']:.4f} | 63 s | 1.00× | 3 |"
    assert len({line.count("|") for line in table}) == 1
    text = printed(unmeasured)
    assert "Nothing was measured. Losses are means over seeds (n = 3) of the last epoch." in " ".join(text.split())
    assert f"ce {entries[0].losses['ce']:.4f}" in text
    assert "failed" in text


def test_where_nothing_was_measured_no_chart_fails(unmeasured, words):
    entries = rows(unmeasured)
    assert forest_chart(entries) is cost_chart(entries) is exits_chart(entries) is scale_of(entries) is None
    assert learning_charts(entries) == family_charts(entries) == teacher_charts(unmeasured, entries, entries[0]) == []
    page = render_html(unmeasured)
    said = words(page)
    assert "Nothing was measured, so rows can be compared by their cost alone." in said
    assert "No epoch was chosen, because nothing was measured: a row is what its last epoch left." in said
    assert said.count("Did not finish: out of memory") == 1
    cells = [re.findall(r"<td[^>]*>", line) for line in re.findall(r'<tr role="row" class.*?</tr>', page, flags=re.S)]
    spans = [[int(span[1]) if (span := re.search(r'colspan="(\d+)"', cell)) else 1 for cell in line] for line in cells]
    assert {sum(line) for line in spans} == {3}
    assert "–" in answer_costs(unmeasured)


def test_a_task_without_any_metric_is_shown(unmeasured, printed):
    unmeasured["task"] |= {"primary": "", "metrics": {}}
    assert "nothing was measured" in verdict(unmeasured)
    assert "Training losses" in render_html(unmeasured)
    assert "Training losses" in printed(unmeasured)


def test_without_validation_data_no_epoch_is_said_to_be_chosen(regression, printed, words):
    for row in regression["rows"]:
        for holder in [row.get("summary", {}), *row["runs"]]:
            for moment in ("best", "last"):
                holder.get(moment, {}).pop("validation_rmse", None)
            holder.get("history", {}).pop("validation_rmse", None)
    said = words(render_html(regression))
    assert "Test RMSE in metres after the last epoch." in said
    assert "No epoch was chosen, because the RMSE was not measured on validation data" in said
    assert "after the last epoch; difference with" in " ".join(printed(regression).split())
    assert "Test RMSE<small>last epoch, metres</small>" in render_html(regression)
    assert "best epoch" not in render_html(regression)
    assert "At the last epoch" not in " ".join(qualifications(regression))
    table = [line for line in render_markdown(regression).splitlines() if line.startswith("|")]
    assert table[0].startswith("| Row | RMSE (metres) | Difference")
    assert len({line.count("|") for line in table}) == 1


def test_where_no_epoch_was_chosen_runs_show_how_many_they_had(unmeasured):
    page = render_html(unmeasured)
    assert '<th scope="col" class="num">Epochs</th>' in page
    assert " of 30</td>" not in page
