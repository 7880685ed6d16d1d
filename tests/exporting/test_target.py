"""Formats by name: those that are there, with the packages that they need."""

import pytest

from tutelage.api import export
from tutelage.errors import UserError


def test_requests_that_cannot_be_met(data, network, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="timm"):
        export(network, to="timm", data=data, out=tmp_path, progress=False)
    with pytest.raises(UserError, match="onxx"):
        export(network, to="onxx", data=data, out=tmp_path, progress=False)
    with pytest.raises(UserError, match="Say where to write"):
        export(network, to="pt2", data=data)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx needs onnx, onnxscript, onnxruntime: pip install 'tutelage\[onnx\]'"):
        export(network, to="onnx", data=data, out=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []
