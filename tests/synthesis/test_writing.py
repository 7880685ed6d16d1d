"""A synthesis is the same alone, in parts, and after any stop."""

import signal

import pytest
import torch

import tutelage
from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.synthesis import writing
from tutelage.system.interrupt import Interrupted


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_parts_and_stops_give_what_one_call_gives(make, tmp_path, monkeypatch):
    whole = make(tmp_path / "whole", snapshots=(2,))
    assert whole.is_finished
    assert not make(tmp_path / "parts", snapshots=(2,), part="2/2").is_finished
    assert not (tmp_path / "parts" / "data").exists()

    class Stopping(writing.Interruption):
        """Stops in the third iteration."""

        asked = 0

        @property
        def requested(self):
            Stopping.asked += 1
            return signal.SIGINT if Stopping.asked == 3 else None

        @requested.setter
        def requested(self, value):
            pass

    with monkeypatch.context() as patched:
        patched.setattr(writing, "Interruption", Stopping)
        with pytest.raises(Interrupted, match="Stopped in batch 1 of 2, after 3 of 4 iterations.*same command"):
            make(tmp_path / "parts", snapshots=(2,), part="1/2")
    assert (tmp_path / "parts" / ".batch-00000.safetensors").exists()
    assert make(tmp_path / "parts", snapshots=(2,), part="1/2").is_finished
    for end in ("", "-at-2"):
        assert contents(tmp_path / f"parts{end}") == contents(tmp_path / f"whole{end}")
    before = contents(tmp_path / "whole")
    assert make(tmp_path / "whole", snapshots=(2,)).is_finished
    assert contents(tmp_path / "whole") == before


def test_images_are_made_for_classes_in_turn_or_labelled_by_the_network(make, subject, tmp_path):
    make(tmp_path / "classes", scheme="inception")
    data = load_data(str(tmp_path / "classes"), validation=0, hold_out_test=False)
    assert data.train.targets.tolist() == [0, 1, 2, 3] * 3
    make(tmp_path / "noise", scheme="gaussian", iterations=0)
    data = load_data(str(tmp_path / "noise"), validation=0, hold_out_test=False)
    with torch.no_grad():
        answers = subject.network(data.train.images.float() / 255).argmax(1)
    assert torch.equal(data.train.targets, answers)


def test_other_work_in_the_folder_is_refused(make, tmp_path):
    make(tmp_path / "made", scheme="gaussian", iterations=0)
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        make(tmp_path / "made", scheme="gaussian", iterations=0, seed=1)
    with pytest.raises(UserError, match="holds other files"):
        make(tmp_path, scheme="gaussian", iterations=0)
    with pytest.raises(UserError, match="per_class=0"):
        make(tmp_path / "none", per_class=0)
    assert not (tmp_path / "none").exists()


def test_a_network_without_statistics_leaves_no_folder(make, tmp_path):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
    with pytest.raises(UserError, match="Take --scheme inception"):
        make(tmp_path / "made", teacher=plain, normalize="cifar10")
    assert not (tmp_path / "made").exists()


def test_a_rival_counts(make, network, tmp_path):
    weights = {"competition": 1.0}
    make(tmp_path / "one", scheme="deepinversion", weights=weights, rival=network)
    make(tmp_path / "none", scheme="deepinversion")
    assert contents(tmp_path / "one")["data/train-00000-of-00002.parquet"]
    with pytest.raises(UserError, match="rival"):
        make(tmp_path / "one", scheme="deepinversion", weights=weights)


def test_the_call_of_the_package_adds_pictures(network, tmp_path):
    facts = {"per_class": 2, "image_size": 8, "iterations": 3, "copies": 1, "progress": False, "device": "cpu"}
    assert tutelage.synthesize(network, out=tmp_path / "made", part="2/2", batch_size=4, **facts) is None
    folder = tutelage.synthesize(network, out=tmp_path / "made", part="1/2", batch_size=4, **facts)
    assert {file.name for file in folder.iterdir()} == {"contact-sheet.png", "data", "losses.png", "synthesis.json"}
    # Pictures beside the tables do not become data.
    assert load_data(str(folder), validation=0, hold_out_test=False).count("train") == 8
