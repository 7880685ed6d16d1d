"""Who hears how a call is getting on."""

from __future__ import annotations

from tutelage.system.console import Reporter, Silent, Terminal


def reporter_of(progress: bool) -> Reporter:
    """Return a reporter that shows progress, or none."""
    return Terminal() if progress else Silent()
