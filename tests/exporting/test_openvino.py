"""OpenVINO says what the network says."""

import pytest

from tutelage.api import export

pytest.importorskip("openvino", reason="needs openvino: pip install 'tutelage[openvino]'")


def test_the_file_says_what_the_network_says(data, network, tmp_path):
    [found] = export(network, to="openvino", data=data, out=tmp_path, progress=False).values()
    assert found.largest_difference < 1e-5
    assert (found.agreement, found.samples, found.split) == (1.0, 50, "test")
    assert found.scores["accuracy"] == found.network_scores["accuracy"]
    assert set(found.latency) == set(found.network_latency) == {1, 32}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([found.file, "export.json"])
    assert found.size == sum(file.stat().st_size for file in (tmp_path / "openvino").iterdir())
