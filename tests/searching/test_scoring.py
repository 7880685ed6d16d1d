import pytest

from tutelage.errors import UserError
from tutelage.searching import scores
from tutelage.searching.scoring import REGISTERED, Score, register_score, score_named


class Constant(Score):
    """Says the same of every network."""

    def __init__(self, *, value: float = 1.0) -> None:
        super().__init__({"value": 2.0})
        self.value = value

    def terms(self, candidate):
        return {"value": self.value}


def test_scores_have_names_options_and_papers():
    assert {"diswot", "parameters", "multiply-adds", "depth"} <= set(REGISTERED)
    entry = REGISTERED["diswot"]
    assert entry.build is scores.DisWOT
    assert entry.summary.startswith("DisWOT: likeness to the teacher")
    assert entry.options == {"variant": "code", "semantic": 1.0, "relation": 1.0, "trained_teacher": False}
    assert [paper.arxiv for paper in entry.papers] == ["2303.15678"]


def test_a_score_is_named_with_its_options():
    found = score_named("diswot:variant=paper,relation=0.5,trained_teacher=true")
    assert (found.variant, found.weights, found.trained_teacher) == ("paper", {"semantic": 1.0, "relation": 0.5}, True)


def test_a_score_of_ones_own_is_named_by_its_place():
    found = score_named(f"{__name__}:Constant,value=3")
    assert found.total(found.terms(None)) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("diswort", "Did you mean 'diswot'"),
        ("diswot:variant=both", "variant as one of paper, code"),
        ("diswot:semantic=much", "semantic as a number"),
        ("diswot:varian=code", "Did you mean 'variant'"),
        ("parameters:scale=2", "no options"),
        ("tutelage.nowhere:Score", "cannot be imported"),
        ("tutelage.errors:UserError", "is no score"),
        ("diswot:code", "not an option|cannot be imported"),
    ],
)
def test_what_is_no_score_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        score_named(text)


def test_a_name_is_given_once(monkeypatch):
    monkeypatch.setattr("tutelage.searching.scoring.REGISTERED", {})
    register_score("constant")(Constant)
    register_score("constant")(Constant)
    with pytest.raises(ValueError, match="already registered"):
        register_score("constant")(scores.Depth)
