import pytest

from tutelage.searching.agreement import spearman
from tutelage.searching.published import s0
from tutelage.searching.space import Space

TABLE = s0()


def tau_a(one, other):
    """Return Kendall's tau without a correction for ties, by a loop over all pairs."""
    pairs = [(i, j) for i in range(len(one)) for j in range(i)]
    signs = [((one[i] - one[j]) * (other[i] - other[j])) for i, j in pairs]
    return sum((sign > 0) - (sign < 0) for sign in signs) / len(pairs)


def test_the_table_is_that_of_the_space():
    space = Space.parse("s0")
    assert [str(each.network) for each in TABLE] == [str(space.network(genes)) for genes in space.all()]


def test_what_the_table_says():
    best = max(TABLE, key=lambda each: each.kd)
    assert (best.network.options, best.kd) == ({"stage1": 5, "stage2": 5, "stage3": 7}, 74.86)
    assert max(each.supervised for each in TABLE) == TABLE[-1].supervised == 72.56
    kd, supervised = [each.kd for each in TABLE], [each.supervised for each in TABLE]
    assert tau_a(supervised, kd) == pytest.approx(0.834, abs=5e-4)
    assert spearman(supervised, kd) == pytest.approx(0.957, abs=5e-4)


def test_parameters_and_depth_rank_it_as_known():
    # All but the blocks is the same for all. A block has two convolutions of its stage's width, with normalisation.
    blocks = {f"stage{n}": 2 * (9 * width**2 + 2 * width) for n, width in ((1, 16), (2, 32), (3, 64))}
    parameters = [sum(n * blocks[stage] for stage, n in each.network.options.items()) for each in TABLE]
    depths, kd = [sum(each.network.options.values()) for each in TABLE], [each.kd for each in TABLE]
    assert tau_a(parameters, kd) == pytest.approx(0.872, abs=5e-4)
    assert spearman(parameters, kd) == pytest.approx(0.968, abs=5e-4)
    assert tau_a(depths, kd) == pytest.approx(0.613, abs=5e-4)
    assert spearman(depths, kd) == pytest.approx(0.811, abs=5e-3)
