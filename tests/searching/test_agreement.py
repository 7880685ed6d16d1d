import pytest

from tutelage.searching.agreement import kendall, spearman


def test_agreement_by_hand():
    # Of six pairs, five agree and one does not.
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    # 1 - 6 sum d^2 / (n (n^2 - 1)).
    assert spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(1 - 6 * 2 / 60)
    assert kendall([1, 2, 3], [9, 5, 1]) == pytest.approx(-1)


def test_one_rank_for_all_agrees_with_nothing():
    assert kendall([1, 1, 1], [1, 2, 3]) is None
    assert spearman([1, 2, 3], [1, 1, 1]) is None
    assert kendall([1], [1]) is None
