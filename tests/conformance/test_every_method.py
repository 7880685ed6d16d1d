"""Every registered method meets every check, or says in its registration why it cannot."""

import pytest

from tutelage import registry
from tutelage.testing import CHECKS


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", registry.names())
def test_conformance(method, check):
    entry = registry.get(method)
    if check in entry.exceptions:
        with pytest.raises(AssertionError):
            CHECKS[check](entry)
    else:
        CHECKS[check](entry)


@pytest.mark.parametrize("method", registry.names())
def test_exceptions_name_checks(method):
    assert set(registry.get(method).exceptions) <= set(CHECKS)
