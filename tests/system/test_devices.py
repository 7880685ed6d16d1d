"""Devices and threads."""

import pytest
import torch

from tutelage.errors import UserError
from tutelage.system.devices import device_type, has_native_bf16, threads


def test_devices_that_do_not_exist_are_told():
    assert device_type("cpu") == "cpu"
    with pytest.raises(UserError, match="Did you mean 'cpu'"):
        device_type("gpu")


def test_devices_that_are_absent_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no cuda device here"):
        device_type("cuda")


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with threads(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_whether_bf16_is_native_is_known_of_every_device(monkeypatch):
    for answer in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda answer=answer: {"amx_bf16": answer}, raising=False)
        assert has_native_bf16("cpu") is answer
    assert has_native_bf16("mps") is False


def test_a_torch_that_cannot_be_asked_does_not_know_whether_bf16_is_native(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_native_bf16("cpu") is None
