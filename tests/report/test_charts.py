import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.report.bars import EDGE, WIDTH, scale_of
from tutelage.report.charts.canvas import spread
from tutelage.report.charts.cost import cost_chart
from tutelage.report.charts.forest import forest_chart, seed_differences
from tutelage.report.charts.learning import OVERLAID, curve, learning_charts
from tutelage.report.charts.reliability import reliability
from tutelage.report.charts.similarity import matrix_of, similar_pairs
from tutelage.report.rows import rows
from tutelage.report.wording import condensed

pytestmark = pytest.mark.usefixtures("drawn")


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12), st.floats(0.1, 20))
def test_spread_labels_keep_their_distance_and_order(wanted, gap):
    placed = spread(wanted, gap)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    assert all(placed[b] - placed[a] >= gap - 1e-6 for a, b in pairwise(order))


def test_spread_leaves_labels_with_room_alone():
    assert spread([5.0, 1.0, 9.0], 1.0) == [5.0, 1.0, 9.0]


def test_bars_hold_all_intervals_and_zero(full):
    entries = rows(full)
    scale = scale_of(entries)
    places = [place for bar in map(scale.bar, entries) if bar for place in (bar.low, bar.mean, bar.high)]
    assert all(EDGE <= place <= WIDTH - EDGE for place in places)
    assert EDGE < scale.zero < WIDTH - EDGE
    assert (scale.zero, "0") in scale.marks
    assert all(bar.low < bar.mean < bar.high for bar in map(scale.bar, entries) if bar)


def test_seed_differences_pair_by_seed(full):
    entries = rows(full)
    base, kd = entries[0], entries[2]
    expected = {
        run["seed"]: run["best"]["test_accuracy"] - other["best"]["test_accuracy"]
        for run, other in zip(kd.runs, base.runs)
    }
    assert seed_differences(kd, base) == pytest.approx(list(expected.values()))


def test_curves_of_unequal_length_are_averaged_where_they_exist(full):
    history = full["rows"][0]["runs"][0]["history"]
    full["rows"][0]["runs"][0]["history"] = {key: values[:10] for key, values in history.items()}
    full["rows"][0]["runs"][1]["history"]["validation_accuracy"][3] = None
    line = curve(rows(full)[0])
    assert len(line.mean) == len(line.epoch) == 30
    assert np.isfinite(line.mean).all()


def test_many_rows_become_small_multiples(synthetic):
    many = rows(synthetic.comparison())
    few = rows(synthetic.comparison(take=OVERLAID))
    assert [caption for caption, _ in learning_charts(few)] == [""]
    captions = [caption for caption, _ in learning_charts(many)]
    assert captions == [row.label for row in many if row.is_finished and not row.is_baseline]


def test_long_labels_are_condensed_rather_than_cut_off(synthetic):
    label = "messy-collaboration:method=(soft-randomization:method=(kd:temperature=8.0,alpha=0.5)),teacher_rate="
    content = synthetic.comparison(take=OVERLAID)
    for number, entry in enumerate(content["rows"]):
        if entry["label"] != content["baseline"]:
            entry["label"] = f"{label}{number}"
    entries = rows(content)
    for chart in (forest_chart(entries), cost_chart(entries), learning_charts(entries)[0][1]):
        drawn = re.findall(r">([^<]*)</text>", chart.wide + (chart.narrow or ""))
        assert any("\u2026" in text for text in drawn)
        assert not any(label in text for text in drawn)
    assert condensed("a" * 20 + "b" * 20, 11) == "aaaaa\u2026bbbbb"
    assert condensed("short", 5) == "short"


def test_reliability_pools_seeds_by_count(full):
    runs = full["rows"][0]["runs"]
    for run, hit, count in zip(runs, (0.2, 0.8, 0.5), (10, 30, 0)):
        run["reliability"] = {"confidence": [0.5, 0.9], "accuracy": [hit, 0.0], "count": [count, 0]}
    bins = reliability(rows(full)[0])
    assert bins.accuracy == pytest.approx([0.65])
    assert bins.share == pytest.approx([1.0])


def test_similar_pairs_are_mutual_and_sorted():
    matrix = matrix_of([[0.9, 0.08, 0.02], [0.04, 0.9, 0.06], [0.01, 0.02, 0.97]])
    pairs = similar_pairs(matrix, ["a", "b", "c"])
    assert [(a, b) for a, b, _ in pairs] == [("a", "b"), ("b", "c"), ("a", "c")]
    assert pairs[0][2] == pytest.approx(0.06)


@pytest.mark.parametrize("value", [None, [], [[1.0]], [[1, 2]], "no", [[1, math.nan], [0, 1]], [[1, 2], [3]]])
def test_what_is_no_matrix_is_left_out(value):
    assert matrix_of(value) is None
