"""Compiling networks. A network that cannot be compiled runs as it is, and one line says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.text import Text

from tutelage.core.method import Method, networks

if TYPE_CHECKING:
    from tutelage.data.loader import Loader
    from tutelage.system.console import Reporter
    from tutelage.training.decisions import Decision

# Loggers that are silenced: they warn about absent GPUs and about folders that failures leave behind.
_TALKATIVE = ("torch.utils.cpp_extension", "torch._inductor.utils")
_GIVES_UP = "torch._dynamo.convert_frame"
# How often one function may be compiled. A network's function is compiled once for each layout and precision of its
# inputs. A function that networks share is compiled by itself after a graph break, and then once more for each network.
_LIMITS = {"recompile_limit": 64, "accumulated_recompile_limit": 1024}


def compiled(method: Method, decision: Decision, loader: Loader, reporter: Reporter) -> AbstractContextManager[None]:
    """Compile the networks that the decision names, and return the context in which to run them.

    Networks that an earlier training compiled are restored if this one does not compile them.

    Args:
        method: The method, its networks in the modes in which they run.
        decision: Which of them to compile.
        loader: The training loader. Code is compiled for its whole batches; smaller batches run uncompiled.
        reporter: Shows one line if a network could not be compiled.
    """
    compiles = decision.compile or decision.compile_teachers
    whole = loader.sizes() if compiles else ()
    for trained, wanted in ((True, decision.compile), (False, decision.compile_teachers)):
        for network in networks(method, trained=trained):
            if wanted:
                network.compile(whole=whole)
            else:
                network.uncompile()
    return forgiving(lambda why: reporter.note(Text(why, "dim"), once=True)) if compiles else nullcontext()


@contextmanager
def forgiving(tell: Callable[[str], None]) -> Iterator[None]:
    """Let networks that cannot be compiled run as they are, with the same results.

    Compilation starts when a network first runs, in the middle of a training step. A broken compiler must not end the
    training there.

    Args:
        tell: Called with the reason, in one line, at the first failure.
    """
    # Imported here, because it is slow and only compiled runs need it.
    import torch._dynamo

    told: list[str] = []

    def hear(record: logging.LogRecord) -> bool:
        """Replace a failure's log record, a traceback of a hundred lines, by one line."""
        if record.levelno < logging.WARNING:
            return True
        if not told:
            told.append(_cause(record.getMessage()))
            what = "No more is compiled" if "recompile_limit" in told[0] else "Not compiled after all"
            tell(f"{what} ({told[0]}): the networks run as they are. Turn it off with --compile off.")
        return False

    speaker = logging.getLogger(_GIVES_UP)
    talkative = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.level for logger in talkative]
    for logger in talkative:
        logger.setLevel(logging.ERROR)
    speaker.addFilter(hear)
    try:
        with torch._dynamo.config.patch({"suppress_errors": True, **_LIMITS}):
            yield
    finally:
        speaker.removeFilter(hear)
        for logger, level in zip(talkative, before, strict=True):
            logger.setLevel(level)


def _cause(message: str) -> str:
    """Return the line of a failure's traceback that names the error."""
    lines = [line.strip() for line in message.splitlines()]
    named = [line for line in lines if "Error: " in line or "Exception: " in line]
    return (named or lines)[0].removeprefix("torch._inductor.exc.")[:200]
