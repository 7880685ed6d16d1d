import pytest

from tutelage.report.rows import Standing, rows
from tutelage.report.verdict import qualifications, verdict


def compared(*intervals, baseline="supervised", n=3):
    entries = [{"label": "supervised", "method": "supervised", "title": "Plain student", "runs": [{}]}]
    for index, (mean, low, high) in enumerate(intervals):
        gap = {"mean": mean, "low": low, "high": high, "n": n}
        entries.append({"label": f"m{index}", "method": f"m{index}", "title": f"Method {index}", "runs": [{}]})
        entries[-1]["summary"] = {"paired": {"best": gap, "last": gap}}
    for entry in entries:
        accuracy = {f"{split}_accuracy": {"mean": 0.6, "std": 0.01, "n": n} for split in ("validation", "test")}
        entry["summary"] = {**entry.get("summary", {}), "best": accuracy}
    return {"version": 1, "baseline": baseline, "rows": entries}


def test_a_winner_is_named_with_its_interval():
    comparison = compared((0.021, 0.009, 0.033), (0.01, -0.001, 0.021))
    assert verdict(comparison) == "Method 0 beat the plain student by 2.10 points (95 % interval 0.90 to 3.30, 3 seeds)"
    said = " ".join(qualifications(comparison))
    assert "At the last epoch the difference is +2.10 points (+0.90 to +3.30)." in said
    assert "The other method showed no difference beyond noise." in said
    assert "not corrected for 2 comparisons" in said


def test_the_largest_clear_difference_wins_over_a_larger_unclear_one():
    assert verdict(compared((0.05, -0.01, 0.11), (0.01, 0.002, 0.018))).startswith("Method 1 beat")


@pytest.mark.parametrize("low", [0.0, -0.004])
def test_an_interval_that_touches_zero_is_no_win(low):
    comparison = compared((0.01, low, 0.02), (-0.02, -0.03, -0.01))
    assert verdict(comparison) == "No method beat the plain student beyond noise (2 compared, 3 seeds)"
    assert "1 fell below the plain student" in qualifications(comparison)[0]


def test_one_method_alone():
    assert "did not beat the plain student beyond noise (+1.00 points" in verdict(compared((0.01, -0.01, 0.03)))
    fell = "Method 0 fell 2.00 points below the plain student (95 % interval 1.00 to 3.00, 3 seeds)"
    assert verdict(compared((-0.02, -0.03, -0.01))) == fell


def test_one_seed_claims_nothing():
    comparison = compared((0.03, None, None), n=1)
    assert verdict(comparison) == (
        "Method 0 ended 3.00 points above the plain student, but one seed cannot tell that from noise"
    )
    assert qualifications(comparison) == []


def test_an_interval_from_one_seed_is_not_believed():
    assert rows(compared((0.03, 0.01, 0.05), n=1))[1].standing is Standing.UNKNOWN


def test_no_baseline_and_nothing_finished():
    assert "no baseline" in verdict(_without())
    failed = {"version": 1, "rows": [{"label": "kd", "error": "out of memory", "runs": []}]}
    assert verdict(failed) == "No run has finished, so there is nothing to compare"


def _without():
    comparison = compared((0.02, 0.01, 0.03), baseline=None)
    comparison["rows"][1]["summary"]["paired"] = None
    return comparison


def test_rows_that_share_a_title_are_told_apart(full):
    assert verdict(full).startswith("Knowledge distillation (temperature 4.0) beat the plain student by")


def test_baseline_comes_first_and_is_found_by_label_before_method(full):
    full["rows"].append(full["rows"].pop(0))
    assert [row.is_baseline for row in rows(full)] == [True] + [False] * 9
    full["baseline"] = "kd:temperature=1.0"
    assert rows(full)[0].label == "kd:temperature=1.0"


def test_rows_with_a_baseline_of_their_own_stay_out_of_the_verdict(synthetic):
    comparison = synthetic.with_teacher_rows()
    assert verdict(comparison).startswith("Knowledge distillation beat the plain student")
    said = " ".join(qualifications(comparison))
    assert "Reversed distillation is compared with supervised-teacher: +" in said
    assert "not corrected for 2 comparisons" in said
    assert [row.standing for row in rows(comparison)][3:] == [Standing.BASELINE, Standing.BETTER]


def test_without_test_data_the_validation_accuracy_is_shown(synthetic):
    comparison = synthetic.comparison(take=1, failed=False)
    for moment in ("best", "last"):
        for metric in ("test_accuracy", "test_nll", "test_ece"):
            del comparison["rows"][0]["summary"][moment][metric]
    assert "% validation accuracy (3 seeds)" in verdict(comparison)
