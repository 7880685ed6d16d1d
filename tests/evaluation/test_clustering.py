"""How well clusters agree with classes."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from tutelage.evaluation.clustering import agreement, matched, right_of


@pytest.mark.parametrize("seed", range(4))
def test_the_matching_is_the_best_of_all(seed):
    counts = np.random.default_rng(seed).integers(20, size=(4, 4))
    best = max(sum(counts[row, column] for row, column in enumerate(order)) for order in permutations(range(4)))
    assert right_of(counts) == best
    assert sum(counts[row, column] for row, column in enumerate(matched(counts))) == best


def test_it_can_be_better_to_give_up_the_largest_entry():
    counts = np.array([[10, 9], [9, 0]])
    assert matched(counts).tolist() == [1, 0]
    assert right_of(counts) == 18


def test_classes_and_clusters_may_differ_in_number():
    assert right_of(np.array([[3, 0, 4], [0, 5, 1]])) == 9
    assert matched(np.array([[3, 0], [0, 5], [1, 1]])).tolist() == [0, 1, -1]
    assert right_of(np.array([[3, 0], [0, 5], [1, 1]])) == 8


def test_nmi_and_ari_are_those_of_the_samples():
    counts = np.array([[5, 1, 0], [2, 0, 3]])
    classes, clusters = [0] * 6 + [1] * 5, [0] * 5 + [1] + [0, 0, 2, 2, 2]
    found = agreement(counts)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(classes, clusters))
    assert found["ari"] == pytest.approx(adjusted_rand_score(classes, clusters))
    assert agreement(np.diag([4, 2])) == {"nmi": pytest.approx(1), "ari": pytest.approx(1)}
