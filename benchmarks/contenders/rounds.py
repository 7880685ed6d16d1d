"""Rounds: processes that take turns, so that only one of them computes at a time."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from contenders.child import take_turns
from contenders.pace import PROMPT
from contenders.setting import Setting

PATIENCE = 1800.0


class Child:
    """A contender's process, and the pipe to it."""

    def __init__(self, target: Callable[..., None], name: str, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.name, (self.pipe, theirs) = name, context.Pipe()
        # Not a daemon, which could not have workers of its own.
        self.process = context.Process(target=target, args=(theirs, *arguments), name=name)
        self.process.start()
        theirs.close()

    def hear(self, patience: float | None = PATIENCE) -> dict[str, Any]:
        """Return what it says next; an error if it died, or says nothing for so many seconds."""
        try:
            if not self.pipe.poll(patience):
                self.process.kill()
                return {"error": f"it said nothing for {patience:.0f} s"}
            return dict(self.pipe.recv())
        except EOFError:
            self.process.join()
            return {"error": f"its process ended with {self.process.exitcode}"}

    def end(self) -> None:
        """Let it go, by force if it does not."""
        _say(self.pipe, "end")
        self.pipe.close()
        self.process.join(timeout=30)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def _say(pipe: Connection, word: str) -> None:
    try:
        pipe.send(word)
    except OSError:
        return


def take_rounds(
    jobs: Mapping[str, tuple[str, Setting]], *, rounds: int, steps: int, lead: int
) -> dict[str, dict[str, Any]]:
    """Return what each job told of its preparation, and of each of its `turns`; or its `error`.

    Args:
        jobs: By name: who trains, as `contenders.child` knows it, and in which setting.
        rounds: How often each has its turn.
        steps: Timed steps of a turn.
        lead: Steps of a turn before them.
    """
    found: dict[str, dict[str, Any]] = {name: {"turns": []} for name in jobs}
    children: list[Child] = []
    try:
        for name, (who, setting) in jobs.items():
            child = Child(take_turns, name, who, setting, lead, steps)
            children.append(child)
            found[name] |= child.hear()
            note(f"{name}: {found[name].get('error') or _ready(found[name])}")
        for number in range(rounds):
            # Another one begins each time, so that none is always behind the same.
            first = number % len(children)
            for child in children[first:] + children[:first]:
                if "error" not in found[child.name]:
                    _say(child.pipe, PROMPT)
                    heard = child.hear()
                    found[child.name] |= {"error": heard["error"]} if "error" in heard else {}
                    found[child.name]["turns"] += [] if "error" in heard else [heard]
            note(f"round {number + 1} of {rounds}")
    finally:
        for child in children:
            child.end()
    for name in jobs:
        if not found[name]["turns"]:
            found[name].setdefault("error", "it took no turn")
    return found


def note(text: str) -> None:
    """Tell whoever waits, beside the result."""
    print(text, file=sys.stderr, flush=True)


def _ready(what: Mapping[str, Any]) -> str:
    return f"ready after {what['prepared']:.0f} s"
