"""Comparisons that several report tests share."""

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("report_synthetic", Path(__file__).parent / "synthetic.py")
generator = sys.modules["report_synthetic"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generator)


@pytest.fixture(scope="session")
def synthetic():
    """The generator of comparisons."""
    return generator


@pytest.fixture
def full(synthetic):
    """Nine finished rows with three seeds, and one that failed."""
    return synthetic.comparison()
