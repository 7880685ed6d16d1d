"""What the renderings say of other tasks: an error in metres, of which lower is better, and data without labels."""

import re

import pytest

from tutelage.data.task import task_named
from tutelage.report.bars import scale_of
from tutelage.report.charts.cost import cost_chart
from tutelage.report.charts.exits import exits_chart
from tutelage.report.charts.families import family_charts
from tutelage.report.charts.forest import forest_chart, seed_differences
from tutelage.report.charts.learning import curve, learning_charts, limits
from tutelage.report.charts.poor_teachers import teacher_charts
from tutelage.report.html import render_html
from tutelage.report.markdown import render_markdown
from tutelage.report.rows import Standing, baseline_of, rows
from tutelage.report.verdict import qualifications, verdict


def test_lower_is_better_in_every_standing_and_order(full, regression):
    before, after = rows(full), rows(regression)
    assert [row.standing for row in after] == [row.standing for row in before]
    assert {Standing.BETTER, Standing.WORSE, Standing.SAME} <= {row.standing for row in after}
    assert [row.gain for row in after] == pytest.approx([4 * row.gain for row in before])
    assert after[2].paired_best.mean == pytest.approx(-4 * before[2].paired_best.mean)
    order = [re.findall(r"(?:\. |; )([\w:.=-]+) [+−]", forest_chart(entries).alt) for entries in (before, after)]
    assert order[0] == order[1] == sorted(order[0], key=lambda label: -{r.label: r.gain for r in before}[label])


def test_the_winner_has_the_lowest_error(regression):
    assert re.fullmatch(
        r"Knowledge distillation \(temperature 4.0\) beat the plain student by 0\.082 metres in test RMSE "
        r"\(lower is better, 95 % interval 0\.055 to 0\.108, 3 seeds\)",
        verdict(regression),
    )
    said = " ".join(qualifications(regression))
    assert "At the last epoch the difference is −0.079 metres (−0.109 to −0.049)." in said
    assert "1 also beat the plain student, 5 showed no difference beyond noise, 1 did worse than it." in said


@pytest.mark.parametrize(
    ("take", "shift", "seeds", "said"),
    [
        (2, -0.1, 3, r"ended 0\.\d+ metres above the plain student in test RMSE \(lower is better, 95 % interval"),
        (2, 0.0, 3, r"did not beat the plain student beyond noise \(−0\.\d+ metres in test RMSE, lower is better, 95"),
        (3, 0.0, 1, r"ended 0\.\d+ metres below the plain student in test RMSE \(lower is better\), but one seed"),
        (3, -0.1, 3, r"No method beat the plain student beyond noise \(2 compared, 3 seeds\)"),
    ],
)
def test_what_is_no_win_is_said_plainly(synthetic, retold, take, shift, seeds, said):
    comparison = retold.regression(synthetic.comparison(take=take, shift=shift, seeds=seeds, failed=False))
    assert re.search(said, verdict(comparison))


def test_without_a_baseline_the_lowest_mean_is_named(synthetic, retold):
    comparison = retold.regression(synthetic.comparison(take=3, failed=False)) | {"baseline": None}
    for row in comparison["rows"]:
        row["summary"]["paired"] = None
    lowest = min(row["summary"]["best"]["test_rmse"]["mean"] for row in comparison["rows"])
    said = f"Knowledge distillation has the lowest mean, a test RMSE of {lowest:.3f} metres, with no baseline"
    assert verdict(comparison) == said
    del comparison["rows"][1:]
    assert re.fullmatch(
        r"Plain student reached a test RMSE of [\d.]+ ± [\d.]+ metres \(lower is better, 3 seeds\)", verdict(comparison)
    )


def test_a_baseline_is_plain_where_its_row_says_so(full):
    full["rows"][0]["plain"] = False
    assert "beat Plain student by" in verdict(full)
    full["rows"][0] |= {"plain": True, "method": "other"}
    assert "beat the plain student by" in verdict(full)


def test_markdown_has_the_tasks_columns_with_units(regression):
    lines = render_markdown(regression).splitlines()
    assert lines[2] == (
        "| Row | RMSE (metres) | Last epoch (metres) | Difference (95 % interval; lower is better) | MAE (metres) | R² "
        "| Time | Cost | n |"
    )
    best = regression["rows"][2]["summary"]["best"]
    cells = [cell.strip() for cell in lines[6].split("|")]
    assert cells[2] == f"{best['test_rmse']['mean']:.3f} ± {best['test_rmse']['std']:.3f}"
    assert cells[4].startswith("**−0.082** (−0.108 to −0.055)")
    assert cells[5:7] == [f"{best['test_mae']['mean']:.3f}", f"{best['test_r2']['mean']:.4f}"]


def test_console_table_fits_with_more_columns(regression, synthetic, retold, printed):
    for comparison in (regression, retold.regression(synthetic.families())):
        text = printed(comparison)
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text
        assert "RMSE: lower is better." in text
    assert re.search(r"Test RMSE +MAE *\n", text)
    assert re.search(r"Row +metres +Difference +metres +R² +Time +Cost", text)


def test_page_says_units_and_direction(regression, words):
    said = words(render_html(regression))
    for text in (
        "Test RMSE in metres at the epoch with the best validation RMSE, and at the last epoch. Lower is better.",
        "Differences are in metres to the baseline",
        "Lower is better: a row to the left of zero is better than the baseline.",
        "The scale leaves out the fall of the first epochs.",
        "RMSE against cost",
        "The epoch was chosen on validation RMSE; the test data served only to report.",
        "10 values",
        "test RMSE 1.151 metres",
    ):
        assert text in said
    assert not re.search(r"accuracy|per cent|points|NLL|ECE|class", said.split("Reproduce")[1])


def test_every_run_shows_what_was_measured(regression):
    page = render_html(regression)
    table = page[page.index('<table class="runs">') :]
    heads = re.findall(r'<th scope="col" class="num">(.*?)</th>', table)
    shown = ["Validation RMSE (metres)", "Test RMSE (metres)", "Test RMSE, last (metres)", "MAE (metres)", "R²"]
    assert heads == ["Seed", "Best epoch", *shown, "Time"]
    best = regression["rows"][0]["runs"][0]["best"]
    cells = re.findall(r'<td class="num">(.*?)</td>', table)
    assert cells[2] == f"{best['validation_rmse']:.3f}"
    assert cells[6] == f"{best['test_r2']:.4f}"


@pytest.mark.usefixtures("drawn")
def test_charts_are_in_the_metrics_own_unit(regression, synthetic, retold):
    entries = rows(regression)
    assert forest_chart(entries).alt.startswith("Differences in test RMSE to the baseline, in metres, lower is better.")
    assert "difference in test RMSE, metres (lower is better, to the left)" in forest_chart(entries).wide
    assert "test RMSE, metres" in cost_chart(entries).wide
    few = rows(retold.regression(synthetic.comparison(take=3)))
    assert "validation RMSE, metres" in learning_charts(few)[0][1].wide
    (poor,) = teacher_charts(regression, entries, baseline_of(entries))
    assert "the teacher&#x27;s own RMSE, metres" in poor[1].wide or "the teacher's own RMSE, metres" in poor[1].wide
    assert "teacher 3.400 metres" in poor[1].alt
    members = rows(retold.regression(synthetic.families()))
    assert "test RMSE, metres" in exits_chart(members).wide
    assert "Validation RMSE over epochs" in family_charts(members)[0][1].alt
    # The seeds' differences are those of the same metric.
    assert seed_differences(entries[2], entries[0]) == pytest.approx(
        [run["best"]["test_rmse"] - other["best"]["test_rmse"] for run, other in zip(entries[2].runs, entries[0].runs)]
    )


def test_learning_curves_leave_out_the_fall_of_the_first_epochs(regression):
    line = curve(rows(regression)[0])
    low, high = limits([line])
    assert high < line.mean[0]
    assert low < line.mean.min() < line.mean[-1] < high


def test_bars_hold_errors_of_any_size(regression, retold, synthetic):
    for factor in (1e-7, 1.0, 1e6):
        lines = {"accuracy": retold.Line("mae", -factor, factor)}
        entries = rows(retold.retold(synthetic.comparison(), task_named("regression").describe(), lines))
        bars = [bar for bar in map(scale_of(entries).bar, entries) if bar]
        assert max(bar.high for bar in bars) - min(bar.low for bar in bars) > 70
        shown = [row.measured.metric.text(row.score.mean) for row in entries if row.score]
        assert [len(text.replace(".", "").lstrip("0")) for text in shown] == [6 if factor > 1 else 4] * len(shown)


def test_a_method_that_trained_its_teacher_notes_its_scores(regression, words):
    for row in regression["rows"][-4:-2]:
        for run in row["runs"]:
            run["teacher_scores"] = {"rmse": run.pop("teacher_rmse"), "mae": 1.0}
    del regression["curves"]
    assert "Learning from poor teachers" in words(render_html(regression))
    assert "teacher 3.160 metres" in words(render_html(regression))


def test_other_shares_are_points_without_another_word(synthetic, retold, words):
    lines = {"accuracy": retold.Line("map"), "nll": retold.Line("bce"), "ece": retold.Line("f1", -1, 1)}
    comparison = retold.retold(synthetic.comparison(), task_named("multi-label").describe(), lines)
    assert "beat the plain student by 2.04 points (95 % interval" in verdict(comparison)
    head = render_markdown(comparison).splitlines()[2]
    assert head.startswith(
        "| Row | Mean average precision % | Last epoch % | Difference (95 % interval) | F1 % | BCE ("
    )
    assert "10 labels" in words(render_html(comparison))


def test_several_validation_splits_do_not_disturb(regression, words):
    for row in regression["rows"]:
        for holder in [row.get("summary", {}), *row["runs"]]:
            for moment in ("best", "last"):
                if moment in holder:
                    holder[moment]["validation-far_rmse"] = holder[moment]["validation_rmse"]
    regression["data"]["validation-far"] = 300
    assert "300 validation-far" in words(render_html(regression)).replace("\u00a0", " ").replace("\u2011", "-")


def test_beside_long_numbers_the_interval_stands_below_the_difference(synthetic, retold, printed):
    lines = {"accuracy": retold.Line("mae", -1e6, 1e6), "nll": retold.Line("mse", 1e4), "ece": retold.Line("r2", -1e2)}
    comparison = retold.retold(synthetic.comparison(), task_named("regression").describe(), lines)
    comparison["task"]["metrics"]["mae"] |= {"significant": False, "digits": 2}
    text = printed(comparison)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert re.search(r"\n +\[−[\d.]+, \+[\d.]+\] ", text)
    assert text.splitlines()[1].endswith("Cost ")


def test_a_spike_of_one_row_does_not_flatten_the_others(synthetic, retold):
    comparison = retold.regression(synthetic.comparison(take=4, failed=False))
    comparison["rows"][1]["runs"][0]["history"]["validation_rmse"][12] = 1e6
    curves = [line for row in rows(comparison) if (line := curve(row))]
    low, high = limits(curves)
    assert low < min(line.mean.min() for line in curves)
    assert max(line.end for line in curves) < high < 20


def test_a_long_title_gives_way_to_the_short_name_at_the_head_of_a_column(regression):
    assert "Test RMSE<small>best epoch, metres</small>" in render_html(regression)
    regression["task"]["metrics"]["rmse"]["title"] = "root mean squared error"
    page = render_html(regression)
    assert "Test RMSE<small>best epoch, metres</small>" in page
    assert "The epoch was chosen on validation root mean squared error" in page
    assert "RMSE is the root mean squared error" in page
