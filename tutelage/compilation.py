"""Compiled networks, and what happens where they cannot be compiled: they run as they are, and one line says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tutelage.features import FeatureExtractor
from tutelage.method import Method

# What speaks of compilation where nobody asked: of GPUs that are absent, and of folders that failures leave.
_TALKATIVE = ("torch.utils.cpp_extension", "torch._inductor.utils")
_GIVES_UP = "torch._dynamo.convert_frame"


def networks(method: Method, *, trained: bool) -> list[FeatureExtractor]:
    """Return the networks of a method that are trained, or those that only answer."""
    found = (module for module in method.modules() if isinstance(module, FeatureExtractor))
    return [network for network in found if is_trained(network) == trained]


def is_trained(network: FeatureExtractor) -> bool:
    """Return whether a network has anything to learn."""
    return any(parameter.requires_grad for parameter in network.parameters())


@contextmanager
def forgiving(tell: Callable[[str], None]) -> Iterator[None]:
    """Within it a network that cannot be compiled runs as it is, to the same results.

    A compiler is first asked for anything when a network first runs, in the middle of a training step: a broken one
    must not end the training there.

    Args:
        tell: Told why, in one line, the first time.
    """
    import torch._dynamo

    told: list[str] = []

    def hear(record: logging.LogRecord) -> bool:
        """Take what a failure logs, its traceback of a hundred lines included."""
        if record.levelno < logging.WARNING:
            return True
        if not told:
            told.append(_cause(record.getMessage()))
            tell(f"Not compiled after all ({told[0]}): the networks run as they are. Turn it off with --compile off.")
        return False

    speaker = logging.getLogger(_GIVES_UP)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    speaker.addFilter(hear)
    try:
        with torch._dynamo.config.patch(suppress_errors=True):
            yield
    finally:
        speaker.removeFilter(hear)


def _cause(message: str) -> str:
    """Return the line of a failure's traceback that names the error."""
    lines = [line.strip() for line in message.splitlines()]
    named = [line for line in lines if "Error: " in line or "Exception: " in line]
    return (named or lines)[0].removeprefix("torch._inductor.exc.")[:200]
