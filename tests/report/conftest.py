"""Comparisons that several report tests share."""

import pytest
import synthetic as generator


@pytest.fixture(scope="session")
def synthetic():
    """The generator of comparisons."""
    return generator


@pytest.fixture
def full(synthetic):
    """Nine finished rows with three seeds, and one that failed."""
    return synthetic.comparison()
