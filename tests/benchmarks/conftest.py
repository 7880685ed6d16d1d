"""One tiny setting for all benchmarks."""

import pytest
import torch
from contenders.occasion import with_recording
from contenders.setting import Setting

TINY = Setting(data="random", teacher="tiny_cnn,width=6", student="tiny_cnn,width=4", batch=8, subset=40, workers=0)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Leave the generators of other tests as they are, and compile nothing: that takes minutes."""
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    with torch.random.fork_rng():
        yield


@pytest.fixture
def tiny():
    return TINY


@pytest.fixture(scope="session")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "recording"
    return with_recording(TINY, folder, views=2, keep="full").recording
