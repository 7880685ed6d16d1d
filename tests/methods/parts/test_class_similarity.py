import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tutelage.core.pairing import pair
from tutelage.core.teachers import BlackBoxTeacher, EnsembleTeacher, FrozenTeacher
from tutelage.data.images import ResidentImages
from tutelage.errors import NoLayersError, UserError
from tutelage.methods.parts.class_similarity import (
    cka_distances,
    class_distances,
    class_rows,
    cosine_distances,
    rows_of_layer,
    rows_of_logits,
    sharpened,
)
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.kinds import KINDS
from tutelage.testing.toys import CLASSES, TRAINING, ToyNetwork, toy_data, toy_recording
from tutelage.training.run import Run

X = torch.tensor([[1, 0], [0, 1], [2, 2]], dtype=torch.float64)
Y = torch.tensor([[1, 1], [0, 2], [3, 0]], dtype=torch.float64)


def slow_cka(x, y):
    """By the centred Gram matrices of the rows: another way to the same number."""
    grams = []
    for rows in (x.tolist(), y.tolist()):
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        centred = [[value - mean for value, mean in zip(row, means, strict=True)] for row in rows]
        grams.append([[sum(a * b for a, b in zip(one, other, strict=True)) for other in centred] for one in centred])

    def product(one, other):
        return sum(a * b for rows in zip(one, other, strict=True) for a, b in zip(*rows, strict=True))

    return product(*grams) / math.sqrt(product(grams[0], grams[0]) * product(grams[1], grams[1]))


def test_known_answers():
    distances = cka_distances(torch.stack([X, Y]))
    assert 1 - distances[0, 1].item() == pytest.approx(0.8602915336, abs=5e-11)
    assert sharpened(distances, 1.0)[0, 1].item() == pytest.approx(0.1303882805, abs=5e-11)
    # Row is paired with row: in another order it is another number.
    assert 1 - cka_distances(torch.stack([X, Y[[1, 2, 0]]]))[0, 1].item() == pytest.approx(0.3345578186, abs=5e-11)
    costs = sharpened(torch.tensor([0.0, 0.2, 0.6], dtype=torch.float64), 1.0)
    assert costs.tolist() == pytest.approx([0, 0.1812692469, 0.4511883639], abs=5e-11)


def test_distances_are_the_slow_loops():
    torch.manual_seed(0)
    rows = torch.randn(4, 7, 3, dtype=torch.float64)
    found = cka_distances(rows.clone())
    for one in range(4):
        for other in range(4):
            expected = 0 if one == other else 1 - slow_cka(rows[one], rows[other])
            assert found[one, other].item() == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert torch.equal(found, found.T)


def test_size_place_and_rotation_of_either_class_mean_nothing_and_a_class_of_equal_rows_is_like_no_other():
    torch.manual_seed(0)
    rows = torch.randn(2, 9, 3, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    moved = torch.stack([rows[0], 5 * rows[1] @ turn - 100])
    torch.testing.assert_close(cka_distances(moved), cka_distances(rows.clone()))
    assert cka_distances(torch.stack([X, X])).abs().max() < 1e-12
    constant = cka_distances(torch.stack([X, torch.ones_like(X)]))
    assert constant.tolist() == [[0, 1], [1, 0]]


def test_classifiers_rows_are_compared_by_their_cosine():
    found = cosine_distances(torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0], [-1.0, 0.0], [0.0, 0.0]]))
    root = 1 - math.sqrt(0.5)
    assert found[0].tolist() == pytest.approx([0, 1, root, 2, 1])
    assert found.diagonal().tolist() == [0] * 5


def paired(teacher=None):
    data = toy_data()
    return pair(ToyNetwork(), teacher or FrozenTeacher(ToyNetwork(10)), "auto", data.example(2), take="last")


def test_rows_are_the_first_samples_of_each_class_in_the_order_of_the_data():
    data, (_, teacher, pairs) = toy_data(), paired()
    found = class_rows(teacher, rows_of_layer(pairs[0].teacher), data, 3)
    images, targets = data.train.read_batch(torch.arange(len(data.train)))
    maps = teacher.network.layer2(teacher.network.layer1(images)) if images.is_floating_point() else None
    if maps is None:
        batch = next(iter(data.loader("train", train=False, batch_size=len(data.train)).epoch(0)))
        maps, targets = teacher.network.layer2(teacher.network.layer1(batch.inputs)), batch.targets
    for label in range(CLASSES):
        chosen = (targets == label).nonzero()[:3, 0]
        torch.testing.assert_close(found[label], maps[chosen].flatten(2).transpose(1, 2).flatten(0, 1))


def test_the_smallest_class_says_how_many_and_samples_without_a_label_do_not_count():
    data = toy_data()
    targets = torch.arange(48) % CLASSES
    targets[targets == 4] = torch.tensor([4, -1, 4, -1, -1, -1, -1, -1])
    short = data.with_splits(train=ResidentImages(data.train.images, targets))
    teacher = FrozenTeacher(ToyNetwork(10))
    assert class_rows(teacher, rows_of_logits, short, 50).shape == (CLASSES, 2, CLASSES)
    targets[targets == 4] = -1
    none = data.with_splits(train=ResidentImages(data.train.images, targets))
    with pytest.raises(UserError, match="class 4 has 0 with a label.*similarity=classifier"):
        class_rows(teacher, rows_of_logits, none, 50)


def test_padded_texts_are_compared_by_the_mean_of_their_tokens():
    kind = KINDS["text"]
    data, network = kind.data(), kind.network(5, True)
    read = pair(kind.network(3, True), FrozenTeacher(network), "auto", data.example(2), take="last")
    found = class_rows(read.teacher, rows_of_layer(read.pairs[0].teacher), data, 2)
    assert found.shape == (CLASSES, 2, 10)


def distances(folder, teacher=None, **options):
    read = paired(teacher) if options.get("kind", "features") == "features" else None
    data, given = toy_data(), teacher or FrozenTeacher(ToyNetwork(10))
    options = {"kind": "features", "samples": 4, "paired": read} | options
    return class_distances(Run(folder, TRAINING), given, data, data.example(2), **options)


def test_classes_are_compared_once_in_a_run(tmp_path):
    torch.manual_seed(0)
    teacher = FrozenTeacher(ToyNetwork(10))
    first = distances(tmp_path, teacher)
    with torch.no_grad():
        kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert torch.equal(distances(tmp_path, teacher), first)
    assert first.shape == (CLASSES, CLASSES)
    assert (first + torch.eye(CLASSES)).min() > 0
    for options in ({"samples": 5}, {"kind": "logits"}):
        with pytest.raises(UserError, match="results of other work"):
            distances(tmp_path, teacher, **options)
    teacher.load_state_dict({name: value + 1 for name, value in kept.items()})
    with pytest.raises(UserError, match="results of other work"):
        distances(tmp_path, teacher)


def test_who_has_only_answers_is_compared_by_them(tmp_path):
    networks = [ToyNetwork(10) for _ in range(2)]
    ensemble = EnsembleTeacher([FrozenTeacher(network) for network in networks])
    box = BlackBoxTeacher(networks[0].eval(), identity="one")
    for number, teacher in enumerate((ensemble, box)):
        with pytest.raises(NoLayersError):
            distances(tmp_path / f"{number}", teacher, kind="features")
        assert distances(tmp_path / f"{number}", teacher, kind="logits").isfinite().all()
    recorded = RecordedTeacher(toy_recording("full"))
    with pytest.raises(UserError, match="a recording has only its views"):
        distances(tmp_path / "recorded", recorded, kind="logits")


def test_soft_labels_count_for_their_likeliest_class():
    data = toy_data()
    soft = nn.functional.one_hot(torch.arange(48) % CLASSES, CLASSES) * 0.8 + 0.03
    changed = replace(data, splits={**data.splits, "train": ResidentImages(data.train.images, soft)})
    teacher = FrozenTeacher(ToyNetwork(10))
    hard = class_rows(teacher, rows_of_logits, data, 4)
    assert torch.equal(class_rows(teacher, rows_of_logits, changed, 4), hard)
