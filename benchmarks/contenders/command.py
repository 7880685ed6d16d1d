"""A benchmark as a command: what it is asked, a flag for each part of the setting, and what it leaves."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from contenders.machine import machine
from contenders.setting import Setting
from tutelage.system.files import write_json


class _Help(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Types and defaults of the flags, and the description as it stands."""


def parser_of(about: str | None, *, without: Collection[str] = ()) -> ArgumentParser:
    """Return a parser that knows the setting and where to write.

    Args:
        about: What the benchmark does.
        without: The parts of the setting that it decides itself.
    """
    parser = ArgumentParser(description=about, formatter_class=_Help)
    parser.add_class_arguments(Setting, skip=set(without))
    parser.add_argument("--out", type=Path, help="where to write JSON; otherwise it is only printed")
    return parser


def add_turns(parser: ArgumentParser, *, steps: int, lead: int) -> None:
    """Add how often and how long each has its turn, by default so long."""
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--steps", type=int, default=steps, help="timed steps of a turn")
    parser.add_argument("--lead", type=int, default=lead, help="steps of a turn before the timed ones")


def turns_of(given: Namespace) -> dict[str, int]:
    """Return how often and how long each has its turn, as `take_rounds` takes it."""
    return {"rounds": given.rounds, "steps": given.steps, "lead": given.lead}


def setting_of(given: Namespace) -> Setting:
    """Return the setting that was asked for."""
    return Setting(**{field.name: given[field.name] for field in fields(Setting) if field.name in given})


def publish(
    file: str,
    words: Sequence[str],
    setting: Setting,
    content: Mapping[str, Any],
    *,
    table: Callable[[Mapping[str, Any]], str],
    out: Path | None,
) -> None:
    """Write what was measured, with the command, the setting and the machine, and print it as a table.

    Args:
        file: The benchmark's.
        words: What was typed after it.
        setting: What was asked for.
        content: What was measured.
        table: Makes Markdown of all this.
        out: Where to write; None prints only.
    """
    command = shlex.join(["python", f"benchmarks/{Path(file).name}", *words])
    content = {"command": command, **content, "setting": asdict(setting), "machine": machine(setting)}
    if out is not None:
        write_json(out, content)
    print(table(content))
