"""A codebook of a teacher's features: k-means over all places of all training samples."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tutelage.core.pairing import LayerPair
from tutelage.core.teachers import Teacher
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.evaluation.scores import EVALUATION_BATCH
from tutelage.features.maps import resize
from tutelage.features.padding import valid_tokens
from tutelage.losses import wide
from tutelage.system.devices import device_type
from tutelage.training.run import Run

# Three or more threads add up their sums in any order, so that one seed would not always give the same words.
_THREADS = 2


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """Settings for learning the words.

    Attributes:
        clusters: Number of words.
        iterations: Iterations of k-means, at most.
        max_vectors: Largest number of vectors to learn from; None takes all.

    Raises:
        UserError: If a number is out of its range.
    """

    clusters: int = 4096
    iterations: int = 20
    max_vectors: int | None = None

    def __post_init__(self) -> None:
        if self.clusters < 2:
            raise UserError(f"clusters={self.clusters} must be 2 or more.")
        if self.iterations < 1:
            raise UserError(f"iterations={self.iterations} must be 1 or more.")
        if self.max_vectors is not None and self.max_vectors < self.clusters:
            raise UserError(
                f"max_vectors={self.max_vectors} must be at least clusters={self.clusters}: each word needs a vector."
            )


def learn_words(run: Run, teacher: Teacher, pair: LayerPair, data: Data, clustering: Clustering) -> Tensor:
    """Return the words of a layer of the teacher, `[word, channel]`.

    Args:
        run: The run. It gives device and seed, and its reporter is told the memory that this takes.
        teacher: A teacher that reads the layer.
        pair: The layer of the teacher, and the student's layer that it is compared with.
        data: The data.
        clustering: The settings, such as the number of words.
    """
    device, seed, clusters = device_type(run.training.device), run.seed_of("codebook"), clustering.clusters
    total = count_vectors(pair, data)
    # None is all of them.
    count = min(total, clustering.max_vectors or total)
    # In MB: a float32 takes four bytes.
    size = count * pair.teacher.channels * 4 / 1e6
    run.reporter.note(
        f"Learning {clusters:,} words from {count:,} of the {total:,} vectors of the teacher's {pair.teacher.layer}. "
        f"This takes {size:,.1f} MB of memory, and {3 * size:,.1f} MB where many are equal; max_vectors takes fewer."
    )
    vectors = teacher_vectors(teacher, pair, data, _drawn(total, count, seed), device=device)
    words = k_means(vectors, min(clusters, len(vectors)), iterations=clustering.iterations, seed=seed)
    if len(words) < clusters:
        run.reporter.note(
            f"There are only {len(words):,} words, not {clusters:,}: {len(vectors):,} vectors gave no more."
        )
    return words


def first_vectors(run: Run, teacher: Teacher, pair: LayerPair, data: Data, clustering: Clustering) -> Tensor:
    """Return the teacher's first vectors, one for each word. They stand for the words in a dry run."""
    total = count_vectors(pair, data)
    wanted = torch.arange(total) < min(clustering.clusters, clustering.max_vectors or total)
    return teacher_vectors(teacher, pair, data, wanted, device=device_type(run.training.device))


def count_vectors(pair: LayerPair, data: Data) -> int:
    """Return the number of places in all training samples, without padding.

    Args:
        pair: The layer of the teacher, and the student's layer that it is compared with.
        data: The data.
    """
    # Vectors are counted after pooling, because the words are learned from pooled maps.
    each = math.prod(compared_size(pair))
    # Samples of one size have equally many places, so the data need not be read.
    if pair.teacher.layout.kind != "tokens" or pair.teacher.layout.aspect is not None:
        return data.count("train") * each
    batches = data.loader("train", train=False, batch_size=EVALUATION_BATCH).epoch(0)
    # The lengths of sequences differ, so they are counted batch by batch.
    masks = ((valid_tokens(batch.inputs), len(batch)) for batch in batches)
    return sum(samples * each if valid is None else int((valid != 0).sum()) for valid, samples in masks)


def teacher_vectors(teacher: Teacher, pair: LayerPair, data: Data, wanted: Tensor, *, device: str = "cpu") -> Tensor:
    """Return the teacher's features at places of the training images, without augmentation, `[vector, channel]`.

    Args:
        teacher: A teacher that reads the layer. It is moved to the CPU in the end.
        pair: The teacher's layer and the student's. The map is pooled to the student's size if that is smaller.
        data: The data.
        wanted: Which places to return, image by image and row by row, without padding: booleans
            `[image x height x width]`.
        device: Where to compute.
    """
    # Reserved at once: joining the parts of all batches in the end would take the memory twice.
    vectors = torch.empty(int(wanted.sum()), pair.teacher.channels)
    seen = found = 0
    teacher.to(device)
    try:
        for batch in data.loader("train", train=False, batch_size=EVALUATION_BATCH, device=device).epoch(0):
            output = teacher(batch)
            maps, mask = wide(pair.teacher.map(output)), pair.teacher.mask(output)
            if mask is None:
                places = resize(maps, compared_size(pair)).movedim(1, 3).flatten(0, 2).cpu()
            else:
                places = maps.movedim(1, 3)[mask[:, 0]].cpu()
            # `wanted` counts places in the order of the batches.
            asked = wanted[seen : seen + len(places)]
            kept = places[: len(asked)][asked]
            vectors[found : found + len(kept)] = kept
            seen, found = seen + len(places), found + len(kept)
            # The other images hold nothing that is wanted.
            if found == len(vectors):
                break
    finally:
        teacher.to("cpu")
    return vectors[:found]


def k_means(vectors: Tensor, clusters: int, *, iterations: int = 20, seed: int = 0) -> Tensor:
    """Return the centres of clusters, `[cluster, channel]`. Centres to which no vector is nearest are left out.

    Args:
        vectors: `[vector, channel]`, in float32 and on the CPU. They are changed in place, and changed back in the end.
        clusters: Number of clusters, at most as many as vectors. They start at vectors drawn at random.
        iterations: Iterations of Lloyd's algorithm, at most.
        seed: Seed for drawing the starts.
    """
    # Imported here, because it takes a second: commands that learn no words should not wait for it.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    # `tol=0` goes on until the words stay, or the iterations end. Seeds of numpy are below 2**32.
    search = KMeans(
        clusters, init="random", n_init=1, max_iter=iterations, tol=0.0, copy_x=False, random_state=seed % 2**32
    )
    with threadpool_limits(_THREADS), warnings.catch_warnings():
        # scikit-learn warns of clusters that stay empty; those are left out below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(vectors.numpy())
    return torch.from_numpy(search.cluster_centers_[np.unique(search.labels_)])


def compared_size(pair: LayerPair) -> tuple[int, int]:
    """Return the height and width at which two maps are compared: the smaller height and the smaller width."""
    (height, width), (other_height, other_width) = pair.student.size, pair.teacher.size
    return min(height, other_height), min(width, other_width)


def _drawn(total: int, count: int, seed: int) -> Tensor:
    """Return which of all vectors to learn from, as booleans."""
    if count == total:
        return torch.ones(total, dtype=torch.bool)
    wanted = torch.zeros(total, dtype=torch.bool)
    wanted[torch.from_numpy(np.random.default_rng(seed).choice(total, count, replace=False))] = True
    return wanted
