"""The words of a teacher's features: whose, how many, and the same again."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tutelage.core.pairing import pair
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.parts.codebook import (
    Clustering,
    compared_size,
    count_vectors,
    first_vectors,
    k_means,
    learn_words,
    teacher_vectors,
)
from tutelage.system.console import Silent
from tutelage.testing.toys import SAMPLES, TRAINING, ToyNetwork, toy_data
from tutelage.training.dry_run import DryRun
from tutelage.training.run import Run


class Hearing(Silent):
    def __init__(self):
        self.heard = []

    def note(self, text, *, once=False):
        self.heard.append(text)


def read(layers="layer2:layer1"):
    """A teacher of 6x8 places, read for a student of 3x4."""
    paired = pair(ToyNetwork(), FrozenTeacher(ToyNetwork(10)), layers, toy_data().example(2))
    return paired.teacher, paired.pairs[0]


def slow_vectors(network):
    """The means of two by two places of the first layer, image by image and row by row."""
    with torch.no_grad():
        maps = network.layer1(toy_data().example(SAMPLES)).tolist()
    corners = [(i, j) for i in (0, 1) for j in (0, 1)]
    return torch.tensor(
        [
            [sum(plane[2 * y + i][2 * x + j] for i, j in corners) / 4 for plane in image]
            for image in maps
            for y in range(3)
            for x in range(4)
        ]
    )


def all_of(pair):
    return torch.ones(SAMPLES * math.prod(compared_size(pair)), dtype=torch.bool)


def test_the_words_of_separate_blobs_are_their_means():
    middles = torch.tensor([[50.0, 0.0], [-50.0, 0.0], [0.0, 50.0], [0.0, -50.0]])
    blobs = middles[:, None] + torch.randn(4, 250, 2)
    means = [[sum(column) / 250 for column in zip(*blob)] for blob in blobs.tolist()]
    # Lloyd's algorithm may start with two words in one blob and stay there: take a start that finds all.
    found = min(
        (k_means(blobs.flatten(0, 1).clone(), 4, seed=seed) for seed in range(10)),
        key=lambda words: torch.cdist(blobs.flatten(0, 1), words).min(1).values.sum(),
    )
    for one, other in zip(sorted(found.tolist()), sorted(means), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_words_are_the_means_of_what_is_nearest_to_them():
    vectors = torch.rand(600, 5)
    words = k_means(vectors.clone(), 7, iterations=500)
    nearest = torch.cdist(vectors, words).argmin(1)
    for number, word in enumerate(words):
        torch.testing.assert_close(vectors[nearest == number].mean(0), word, rtol=1e-4, atol=1e-5)


def test_the_same_seed_finds_the_same_words_and_another_others():
    vectors = torch.randn(3000, 8)
    words = k_means(vectors.clone(), 20, seed=3)
    assert torch.equal(words, k_means(vectors.clone(), 20, seed=3))
    assert not torch.equal(words, k_means(vectors.clone(), 20, seed=2**40 + 1))


def test_equal_vectors_make_no_more_words_than_there_are():
    vectors = torch.tensor([[0.0, 0.0], [3.0, 1.0]]).repeat(20, 1)
    assert sorted(k_means(vectors, 5).tolist()) == [[0.0, 0.0], [3.0, 1.0]]


def test_maps_are_pooled_before_their_vectors_are_taken():
    teacher, pair = read()
    assert compared_size(pair) == (3, 4)
    found = teacher_vectors(teacher, pair, toy_data(), all_of(pair))
    assert found.shape == (SAMPLES * 12, 10)
    torch.testing.assert_close(found, slow_vectors(teacher.network), rtol=1e-4, atol=1e-6)


def test_a_larger_map_of_the_student_leaves_the_teachers_as_it_is():
    teacher, pair = read("layer1:layer2")
    assert compared_size(pair) == (3, 4)
    found = teacher_vectors(teacher, pair, toy_data(), all_of(pair))
    with torch.no_grad():
        maps = teacher.network.layer2(teacher.network.layer1(toy_data().example(SAMPLES)))
    torch.testing.assert_close(found, maps.permute(0, 2, 3, 1).reshape(-1, 20))


def test_some_vectors_are_taken_where_some_are_wanted():
    teacher, pair = read()
    wanted = torch.rand(SAMPLES * 12) < 0.3
    some = teacher_vectors(teacher, pair, toy_data(), wanted)
    torch.testing.assert_close(some, teacher_vectors(teacher, pair, toy_data(), all_of(pair))[wanted])


def test_a_loader_that_leaves_samples_out_gives_fewer_vectors():
    images = TensorDataset(toy_data().example(SAMPLES), torch.arange(SAMPLES) % 6)
    data = toy_data().with_splits(train=DataLoader(images, batch_size=20, drop_last=True))
    teacher, pair = read()
    assert len(teacher_vectors(teacher, pair, data, all_of(pair))) == 40 * 12


def test_what_it_takes_is_said_first(tmp_path):
    hearing = Hearing()
    teacher, pair = read()
    run = Run(tmp_path, TRAINING, reporter=hearing)
    words = learn_words(run, teacher, pair, toy_data(), Clustering(clusters=5))
    assert words.shape == (5, 10)
    (said,) = hearing.heard
    assert "5 words from 576 of the 576 vectors of the teacher's layer1" in said
    assert "MB of memory" in said


def test_there_are_no_more_words_than_vectors_and_that_is_said(tmp_path):
    hearing = Hearing()
    teacher, pair = read()
    words = learn_words(Run(tmp_path, TRAINING, reporter=hearing), teacher, pair, toy_data(), Clustering())
    assert len(words) <= 576
    assert hearing.heard[-1] == f"There are only {len(words):,} words, not 4,096: 576 vectors gave no more."


def test_words_can_be_learned_from_some_vectors(tmp_path, monkeypatch):
    taken = []

    def noting(vectors, clusters, *, iterations, seed):
        taken.append((vectors.clone(), iterations))
        return vectors[:clusters]

    monkeypatch.setattr("tutelage.methods.parts.codebook.k_means", noting)
    teacher, pair = read()
    clustering = Clustering(clusters=5, max_vectors=100, iterations=3)
    for seed in (0, 0, 1):
        learn_words(Run(tmp_path, TRAINING, seed=seed), teacher, pair, toy_data(), clustering)
    (first, iterations), (again, _), (other, _) = taken
    assert (first.shape, iterations) == ((100, 10), 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    every = teacher_vectors(teacher, pair, toy_data(), all_of(pair))
    assert (first[:, None] == every).all(2).any(1).all()


def test_in_a_dry_run_the_first_vectors_stand_in():
    teacher, pair = read()
    words = first_vectors(DryRun(TRAINING), teacher, pair, toy_data(), Clustering(clusters=30))
    assert torch.equal(words, teacher_vectors(teacher, pair, toy_data(), all_of(pair))[:30])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 1}, "clusters=1"),
        ({"iterations": 0}, "iterations=0"),
        ({"clusters": 10, "max_vectors": 9}, "max_vectors=9 must be at least clusters=10"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Clustering(**options)


class Words(nn.Module):
    """A vector for each word, and the mean of a text's words."""

    def __init__(self):
        super().__init__()
        self.words, self.layer, self.head = nn.Embedding(9, 4), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, input_ids, attention_mask=None):
        hidden = self.layer(self.words(input_ids))
        return self.head(hidden.mean(1))


class Texts:
    """Two batches of texts, each padded to its longest."""

    LENGTHS = ((4, 2, 1), (3, 5))

    def __init__(self):
        self.batches = []
        for lengths in self.LENGTHS:
            mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
            inputs = {"input_ids": torch.randint(9, mask.shape), "attention_mask": mask}
            self.batches.append(Batch(inputs=inputs, targets=torch.zeros(len(lengths))))

    def count(self, split):
        return sum(map(len, self.batches))

    def loader(self, *_, **__):
        return self

    def epoch(self, _):
        return iter(self.batches)


def test_padding_makes_no_words():
    texts, network = Texts(), Words()
    _, teacher, (one,) = pair(Words(), FrozenTeacher(network), "layer", texts.batches[0].inputs)
    assert count_vectors(one, texts) == 4 + 2 + 1 + 3 + 5
    found = teacher_vectors(teacher, one, texts, torch.ones(15, dtype=torch.bool))
    expected = [
        network.layer(network.words(batch.inputs["input_ids"][number, :length]))
        for lengths, batch in zip(Texts.LENGTHS, texts.batches, strict=True)
        for number, length in enumerate(lengths)
    ]
    torch.testing.assert_close(found, torch.cat(expected).detach())
    some = torch.arange(15) % 3 == 1
    assert torch.equal(teacher_vectors(teacher, one, texts, some), found[some])
