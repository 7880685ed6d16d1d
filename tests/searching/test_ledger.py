import pytest

from tutelage.errors import UserError
from tutelage.searching.examining import Result
from tutelage.searching.ledger import NAME, Ledger

FACTS = {"version": 1, "space": "s0", "seed": 0}
ONE = Result(network="a", outcome="scored", score=0.1 + 0.2, terms={"x": 1 / 3}, parameters=5, multiply_adds=6)
OTHER = Result(network="b", outcome="not built", reason="why")


def test_results_come_back_bit_by_bit(tmp_path):
    ledger = Ledger(tmp_path / "deep" / "folder", FACTS)
    assert not (tmp_path / "deep").exists()
    ledger.add(ONE)
    ledger.add(OTHER)
    again = Ledger(tmp_path / "deep" / "folder", FACTS)
    assert (again.get("a"), again.get("b"), again.get("c"), len(again)) == (ONE, OTHER, None, 2)


@pytest.mark.parametrize("torn", ['{"network": "c"', "{", '{"network": "c", "outcome": "scored"}'])
def test_half_a_line_of_a_killed_process_is_dropped(tmp_path, torn):
    Ledger(tmp_path, FACTS).add(ONE)
    whole = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(whole + torn)
    ledger = Ledger(tmp_path, FACTS)
    assert len(ledger) == 1
    ledger.add(OTHER)
    assert len(Ledger(tmp_path, FACTS)) == 2


@pytest.mark.parametrize("content", ["", '{"version": 1'])
def test_a_file_without_a_whole_line_counts_as_none(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    Ledger(tmp_path, FACTS).add(ONE)
    assert len(Ledger(tmp_path, FACTS)) == 1


def test_another_search_is_not_gone_on_with(tmp_path):
    Ledger(tmp_path, FACTS).add(ONE)
    with pytest.raises(UserError, match=r"another search: seed was 0 and is 1; data was None and is 'x'\. Choose"):
        Ledger(tmp_path, {**FACTS, "seed": 1, "data": "x"})


@pytest.mark.parametrize("content", ["{}\nno\n", '{}\n{"outcome": 1}\n'])
def test_damage_is_told(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    with pytest.raises(UserError, match="damaged"):
        Ledger(tmp_path, {})


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        Ledger(tmp_path / "file" / "folder", FACTS).add(ONE)
