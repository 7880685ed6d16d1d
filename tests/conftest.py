"""What all tests share."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

SHARED_DATA = Path(os.environ.get("TUTELAGE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _named_code(tmp_path_factory, monkeypatch):
    """Factories that tests name are not remembered for the person who runs them."""
    ledger = tmp_path_factory.getbasetemp() / "named-code"
    monkeypatch.setattr("tutelage.models.trust._ledger", lambda: ledger)


@pytest.fixture
def shared_data():
    """The folder of development datasets; the test skips where it is absent."""
    if not SHARED_DATA.exists():
        pytest.skip(f"the development datasets are not at {SHARED_DATA} (set TUTELAGE_SHARED_DATA)")
    return SHARED_DATA


hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    # A new counterexample belongs to whoever looks for one, not to an unrelated change.
    hypothesis.settings.load_profile("ci")
