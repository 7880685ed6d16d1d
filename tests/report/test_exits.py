from itertools import pairwise

import pytest

from tutelage.report.charts.exits import exits_chart, families_of, placed
from tutelage.report.html import render_html
from tutelage.report.rows import rows

pytestmark = pytest.mark.usefixtures("drawn")


@pytest.fixture
def family(synthetic):
    """Five rows, three of which trained several networks."""
    return synthetic.families()


def test_exits_chart_tells_what_an_answer_costs(family):
    chart = exits_chart(rows(family))
    reached = [member["best"]["test_accuracy"] for member in family["rows"][2]["summary"]["members"]]
    exits = [f"exit-{n} {100 * at['mean']:.2f} ± {100 * at['std']:.2f} %" for n, at in enumerate(reached, 1)]
    assert f"{exits[0]} for 2.31 M, {exits[1]} for 6.02 M, byot " in chart.alt
    assert "ensemble" not in chart.alt
    assert chart.alt.endswith("for 12.5 M")
    assert "; supervised: supervised 60.18 ± 0.28 % for 12.5 M" in chart.alt
    for name in ("exit-1", "exit-2", "byot", "student-2", "student-3", "student-4", "supervised"):
        assert f">{name}</text>" in chart.wide
    assert 'id="exits"' in render_html(family)


def test_exits_are_joined_and_peers_are_not(family):
    byot, dml, afd = families_of(rows(family))
    assert [(answer.name, answer.is_exit) for answer in byot.answers] == [
        ("exit-1", True),
        ("exit-2", True),
        ("byot", True),
    ]
    assert not any(answer.is_exit for answer in (*dml.answers, *afd.answers))
    assert [answer.cost for answer in afd.answers] == sorted(answer.cost for answer in afd.answers)


def test_points_of_the_same_cost_stand_side_by_side(family):
    families = families_of(rows(family))
    moved, (low, high) = placed(families, 0.01)
    pairs = [(old, new) for a, b in zip(families, moved) for old, new in zip(a.answers, b.answers)]
    same = [new.cost for old, new in pairs if old.cost == 12_480_000]
    assert len(set(same)) == len(same) == 5
    gaps = [b / a for a, b in pairwise(sorted(same))]
    assert gaps == pytest.approx([(high / low) ** 0.01] * 4)
    assert all(old == new for old, new in pairs if old.cost != 12_480_000)
    assert low < 2_310_000
    assert high > 101_200_000


def test_exits_chart_needs_a_member_with_a_cost(family):
    for row in family["rows"]:
        for member in row["summary"]["members"]:
            member["multiply_adds"] = None
    assert exits_chart(rows(family)) is None
    assert 'id="exits"' not in render_html(family)
    family["rows"][2]["summary"]["members"][0]["multiply_adds"] = 2_310_000
    assert "exit-1" in exits_chart(rows(family)).alt


def test_exits_chart_does_without_the_cost_of_the_baseline_and_of_the_row(family):
    family["rows"][0]["multiply_adds"] = family["rows"][3]["multiply_adds"] = None
    alt = exits_chart(rows(family)).alt
    assert "supervised" not in alt
    assert "dml: student-2 " in alt
