"""Batches on disk become an ordinary dataset, at once and as a whole."""

import pytest
import torch

from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.synthesis.header import Header
from tutelage.synthesis.optimizing import State
from tutelage.synthesis.settings import Settings
from tutelage.synthesis.shelf import Shelf


@pytest.fixture
def shelf(subject, tmp_path):
    header = Header.of(subject, Settings.of("inception", batch_size=10), images=20, rival=None)
    return Shelf(tmp_path / "made", header)


def fill(shelf):
    torch.manual_seed(0)
    images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(20) % 4
    for batch in range(2):
        rows = slice(10 * batch, 10 * batch + 10)
        assert shelf.missing() == list(range(batch, 2))
        shelf.put(batch, images[rows], labels[rows], [{"iteration": 1.0, "loss": 0.5 + batch}])
    return images, labels


def test_what_is_published_is_read_as_any_dataset(shelf):
    images, labels = fill(shelf)
    with pytest.raises(UserError, match="No images found"):
        load_data(str(shelf.folder))
    assert not shelf.is_finished
    shelf.publish()
    shelf.publish()
    assert shelf.is_finished
    assert shelf.missing() == []
    data = load_data(str(shelf.folder), validation=0, hold_out_test=False)
    assert torch.equal(data.train.images, images)
    assert torch.equal(data.train.targets, labels)
    assert data.class_names == ("0", "1", "2", "3")
    assert [curve[0]["loss"] for curve in shelf.curves()] == [0.5, 1.5]
    rows = shelf.preview()
    assert [(name, len(row)) for name, row in rows] == [(str(number), 5) for number in range(4)]
    assert (rows[1][1][0] == images[1].numpy()).all()


def test_a_state_is_kept_bit_for_bit_and_only_for_this_work(shelf, subject):
    state = State(
        images=torch.randn(2, 3, 8, 8),
        optimizer={"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3, 8, 8)},
        iteration=3,
        curve=[{"iteration": 1.0, "loss": 0.1}],
        snapshots={2: torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)},
    )
    assert shelf.load_state(0) is None
    shelf.save_state(0, state)
    found = shelf.load_state(0)
    assert (found.iteration, found.curve) == (3, state.curve)
    assert torch.equal(found.images, state.images)
    assert all(torch.equal(found.optimizer[name], value) for name, value in state.optimizer.items())
    assert torch.equal(found.snapshots[2], state.snapshots[2])
    other = Header.of(subject, Settings.of("inception", seed=1), images=20, rival=None)
    assert Shelf(shelf.folder, other).load_state(0) is None
    next(shelf.folder.glob(".batch*")).write_bytes(b"half")
    assert shelf.load_state(0) is None
    shelf.drop_state(0)
    assert not any(shelf.folder.iterdir())


def test_a_damaged_batch_is_told(shelf):
    fill(shelf)
    shelf.publish()
    file = next((shelf.folder / "data").iterdir())
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match="is damaged"):
        shelf.curves()
