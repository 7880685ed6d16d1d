"""Eight bits answer nearly as the network does, and are scored by themselves."""

import pytest

from tutelage.api import export

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'tutelage[onnx]'")


def test_eight_bits_are_scored_by_themselves(data, network, tmp_path):
    [found] = export(network, to="onnx-int8", data=data, out=tmp_path, progress=False).values()
    assert 0 < found.largest_difference < 0.5
    assert 0.5 < found.agreement <= 1
