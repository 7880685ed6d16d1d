"""A comparison of classification told as one of another task: its scores renamed and mapped, all else as it was."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SCORE = re.compile(r"(validation|test|teacher|student)_(accuracy|nll|ece)(/.*)?")
METRES = {
    "rmse": {"title": "RMSE", "short": "RMSE", "unit": "metres", "higher_is_better": False, "digits": 3},
    "mae": {"title": "mean absolute error", "short": "MAE", "unit": "metres", "higher_is_better": False, "digits": 3},
    "r2": {"title": "R²", "short": "R²"},
    "bias": {"title": "bias", "unit": "metres", "higher_is_better": False},
}
DEPTH = {"name": "distances", "title": "depth", "primary": "rmse", "outputs": ["value", "values"], "metrics": METRES}


@dataclass(frozen=True)
class Line:
    """What a score becomes: another name, and a line through its values."""

    name: str
    slope: float = 1.0
    start: float = 0.0

    def of(self, value: float | None) -> float | None:
        """Return the value of the other score."""
        return None if value is None else self.start + self.slope * value


# An accuracy of 60 % becomes an error of 1.6 metres, and a gain of a point one of 4 cm.
IN_METRES = {"accuracy": Line("rmse", -4.0, 4.0), "nll": Line("mae"), "ece": Line("r2", -1.0, 1.0)}


def regression(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison as one of regression in metres, lower is better: a row's gain stays a gain, of opposite sign."""
    return retold(comparison, DEPTH, IN_METRES)


def retold(comparison: Mapping[str, Any], task: Mapping[str, Any], lines: Mapping[str, Line]) -> dict[str, Any]:
    """The comparison as one of another task; scores without a line go."""
    found = _told(copy.deepcopy(dict(comparison)), lines)
    for row in found["rows"]:
        paired, slope = row.get("summary", {}).get("paired"), lines["accuracy"].slope
        for gap in (paired or {}).values():
            low, high = gap["low"], gap["high"]
            ends = (None, None) if low is None else sorted((slope * low, slope * high))
            gap |= {"mean": slope * gap["mean"], "low": ends[0], "high": ends[1]}
    return found | {"task": copy.deepcopy(dict(task))}


def unmeasured(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison as one in which nothing was measured: costs and losses alone are left."""
    task = {"name": "unlabelled", "title": "learning without labels", "primary": "knn_accuracy", "metrics": {}}
    task["metrics"] = {"knn_accuracy": {"title": "k-NN accuracy", "short": "k-NN acc.", "unit": "share", "digits": 2}}
    found = _told(copy.deepcopy(dict(comparison)), {})
    for row in found["rows"]:
        row.get("summary", {})["paired"] = None
        for run in row["runs"]:
            run.pop("reliability", None)
    for key in ("curves", "teacher"):
        found.pop(key, None)
    return found | {"task": task}


def _told(value: Any, lines: Mapping[str, Line]) -> Any:
    if isinstance(value, list):
        return [_told(part, lines) for part in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, part in value.items():
        match = SCORE.fullmatch(str(key))
        if match is None:
            found[key] = _told(part, lines)
        elif match[2] in lines:
            line = lines[match[2]]
            found[f"{match[1]}_{line.name}{match[3] or ''}"] = _mapped(part, line.of, abs(line.slope))
    return found


def _mapped(value: Any, of: Callable[[float | None], float | None], spread: float) -> Any:
    """Map a score: one number, one an epoch or a seed, or a mean with its standard deviation."""
    if isinstance(value, list):
        return [of(part) for part in value]
    if isinstance(value, dict):
        std = value["std"]
        return value | {"mean": of(value["mean"]), "std": None if std is None else spread * std}
    return of(value)
