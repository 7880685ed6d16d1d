"""What the benchmarks are asked on the command line: a flag for each part of the setting, and how long to measure."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from contenders.setting import Setting


def parser_of(about: str | None, *, without: Collection[str] = ()) -> argparse.ArgumentParser:
    """Return a parser that knows the setting and where to write.

    Args:
        about: What the benchmark does.
        without: The parts of the setting that it decides itself.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Setting):
        if field.name not in without:
            kind = int if field.name in ("subset", "threads") else str if field.default is None else type(field.default)
            parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    parser.add_argument("--out", type=Path, help="where to write JSON")
    return parser


def add_turns(parser: argparse.ArgumentParser, *, steps: int, lead: int) -> None:
    """Add how often and how long each has its turn, by default so long."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=steps, help="timed steps of a turn")
    parser.add_argument("--lead", type=int, default=lead, help="steps of a turn before the timed ones")


def turns_of(given: argparse.Namespace) -> dict[str, int]:
    """Return how often and how long each has its turn, as `take_rounds` takes it."""
    return {"rounds": given.rounds, "steps": given.steps, "lead": given.lead}


def setting_of(given: argparse.Namespace) -> Setting:
    """Return the setting that was asked for."""
    known = {field.name for field in fields(Setting)}
    return Setting(**{name: value for name, value in vars(given).items() if name in known})
