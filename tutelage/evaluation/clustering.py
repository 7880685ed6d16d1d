"""How well clusters agree with classes, from a table that counts the samples of each class in each cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

Counts = NDArray[np.int64]


def matched(counts: Counts) -> Counts:
    """Return the cluster of each class, `[class]`, by the one-to-one matching that makes the most samples right.

    The matching is found by the Hungarian method. A class has the cluster -1 where there are fewer clusters.

    Args:
        counts: Samples of each class in each cluster, `[class, cluster]`.
    """
    found = np.full(len(counts), -1, dtype=np.int64)
    classes, clusters = linear_sum_assignment(counts, maximize=True)
    found[classes] = clusters
    return found


def right_of(counts: Counts) -> int:
    """Return how many samples are in the cluster that is matched to their class.

    Args:
        counts: Samples of each class in each cluster, `[class, cluster]`.
    """
    clusters = matched(counts)
    classes = np.flatnonzero(clusters >= 0)
    return int(counts[classes, clusters[classes]].sum())


def agreement(counts: Counts) -> dict[str, float]:
    """Return NMI (normalised by the arithmetic mean of both entropies) and ARI, which need no matching.

    Args:
        counts: Samples of each class in each cluster, `[class, cluster]`.
    """
    classes, clusters = np.indices(counts.shape)
    pairs: list[NDArray[Any]] = [np.repeat(axis.ravel(), counts.ravel()) for axis in (classes, clusters)]
    return {
        "nmi": float(normalized_mutual_info_score(*pairs)),
        "ari": float(adjusted_rand_score(*pairs)),
    }
