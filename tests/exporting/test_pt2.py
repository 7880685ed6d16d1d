"""A program of PyTorch says what its network says, in a process without Tutelage."""

import json

import torch

from tutelage.api import export


def test_the_file_says_what_the_network_says(data, network, tmp_path):
    [found] = export(network, to="pt2", data=data, out=tmp_path, progress=False).values()
    assert found.largest_difference < 1e-5
    assert (found.agreement, found.samples, found.split) == (1.0, 50, "test")
    assert found.scores["accuracy"] == found.network_scores["accuracy"]
    assert set(found.latency) == set(found.network_latency) == {1, 32}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([found.file, "export.json"])
    # Anybody with PyTorch reads it, names of the classes included.
    names = {"class_names.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=names).module()
    images = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(program(images), network(images))
    assert json.loads(names["class_names.json"]) == ["0", "1", "2"]
