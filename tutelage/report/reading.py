"""Reading `comparison.json`, and taking values out of it that may be absent or of another kind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import UserError

Comparison = Mapping[str, Any]
VERSION = 1


def load(comparison: Comparison | str | Path) -> Comparison:
    """Return a comparison from memory or from its JSON file.

    Args:
        comparison: The comparison itself, or the path of a `comparison.json`.

    Raises:
        UserError: If the file cannot be read or has another version.
    """
    if isinstance(comparison, str | Path):
        path = Path(comparison)
        try:
            comparison = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read the comparison {path}: {error}. Pass a comparison.json.") from error
    if not isinstance(comparison, Mapping) or comparison.get("version") != VERSION:
        found = comparison.get("version") if isinstance(comparison, Mapping) else type(comparison).__name__
        raise UserError(f"This report reads comparisons of version {VERSION}, not {found}. Run the comparison again.")
    return comparison


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    # True is an int, and no score.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def block(value: object) -> Mapping[str, Any]:
    """Return a mapping, or an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def numbers(value: object) -> list[float]:
    """Return a sequence of numbers with NaN where one is missing, or nothing for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [math.nan if (item := number(entry)) is None else item for entry in value]


def picture(holder: Mapping[str, Any], name: str) -> object:
    """Return what a run or the teacher kept to be drawn, under its name; None where there is nothing.

    Args:
        holder: A run, or the comparison's teacher.
        name: The picture's name.
    """
    # Comparisons that were made before tasks had names keep pictures beside the scores.
    return block(holder.get("pictures")).get(name, holder.get(name))


def teacher_of(run: Mapping[str, Any], metric: str) -> float | None:
    """Return the score of the teacher that a run trained or changed itself, or nothing where it noted none.

    Args:
        run: The run.
        metric: The name of the metric.
    """
    # Runs that were made before tasks had names noted one score.
    return number(block(run.get("teacher_scores")).get(metric, run.get(f"teacher_{metric}")))
