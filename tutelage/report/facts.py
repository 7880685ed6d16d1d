"""The plain facts around a comparison: what was trained on what, with which settings, on which machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tutelage.report.reading import Comparison, Row, block, number
from tutelage.report.wording import count, decimal, duration, percent, several

SHOWN_ELSEWHERE = {"class_names", "class_similarity", "image_size"}


@dataclass(frozen=True)
class Fact:
    """One key fact: what it is about, its value and the details beneath."""

    term: str
    value: str
    details: tuple[str, ...]


def key_facts(comparison: Comparison, entries: Sequence[Row]) -> list[Fact]:
    """Return the facts that a reader needs before the first number."""
    found = [_data(block(comparison.get("data"))), _student(block(comparison.get("student")))]
    if comparison.get("teacher"):
        found.append(_teacher(block(comparison["teacher"])))
    found.append(_seeds(entries))
    return [fact for fact in found if fact]


def tables(comparison: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the settings, data, models and environment as titled lists of names and values."""
    found = []
    for key, title in (
        ("settings", "Training settings"),
        ("data", "Data"),
        ("student", "Student"),
        ("teacher", "Teacher"),
        ("environment", "Environment"),
    ):
        lines = [
            (name, text(value)) for name, value in _flat(block(comparison.get(key))) if name not in SHOWN_ELSEWHERE
        ]
        if lines:
            found.append((title, lines))
    return found


def moment(comparison: Comparison) -> str:
    """Return when the comparison was made, to the minute, or whatever it says instead."""
    created = str(comparison.get("created") or "")
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        return created
    zone = f" {when.tzname()}" if when.tzname() else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def text(value: Any) -> str:
    """Return a setting's value as it is best read."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _data(data: Mapping[str, Any]) -> Fact | None:
    if not data:
        return None
    sizes = [f"{size:,.0f} {part}" for part in ("train", "validation", "test") if (size := number(data.get(part)))]
    shape = []
    if classes := number(data.get("num_classes")):
        shape.append(several(int(classes), "class").replace("classs", "classes"))
    if size := data.get("image_size"):
        shape.append(" × ".join(str(side) for side in size) + " pixels")
    return Fact("Data", str(data.get("name") or "unnamed"), tuple(filter(None, (_chunks(sizes), _chunks(shape)))))


def _student(student: Mapping[str, Any]) -> Fact | None:
    return Fact("Student", str(student.get("spec") or "unnamed"), _size(student)) if student else None


def _teacher(teacher: Mapping[str, Any]) -> Fact | None:
    reached = number(teacher.get("test_accuracy"))
    accuracy = (f"{percent(reached)} % test accuracy",) if reached is not None else ()
    asked, right = number(teacher.get("recorded_views")), number(teacher.get("recorded_accuracy"))
    if asked and right is not None:
        accuracy = (f"{percent(right)} % right on {asked:,.0f} recorded training views",)
    calibration = []
    if (nll := number(teacher.get("test_nll"))) is not None:
        calibration.append(f"NLL {decimal(nll)}")
    if (ece := number(teacher.get("test_ece"))) is not None:
        calibration.append(f"ECE {percent(ece)} %")
    origin = _origin(teacher)
    details = (*accuracy, _chunks(calibration), *_size(teacher), origin)
    return Fact("Teacher", str(teacher.get("spec") or "unnamed"), tuple(filter(None, details)))


def _origin(teacher: Mapping[str, Any]) -> str:
    if not teacher.get("trained_here"):
        return ""
    seconds = number(teacher.get("seconds"))
    return "trained here" if seconds is None else f"trained here in {duration(seconds)}"


def _size(model: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for key, noun in (("parameters", "parameters"), ("multiply_adds", "multiply-adds")):
        if amount := number(model.get(key)):
            found.append(f"{count(amount)} {noun}")
    return (_chunks(found),) if found else ()


def _seeds(entries: Sequence[Row]) -> Fact:
    finished = [row for row in entries if row.accuracy]
    amounts = sorted({row.accuracy.n for row in finished if row.accuracy})
    per_row = f"{amounts[0]} to {amounts[-1]}" if len(amounts) > 1 else str(amounts[0] if amounts else 0)
    details = [f"{len(finished)} of {several(len(entries), 'row')} finished"]
    if amounts == [1]:
        details.append("one seed gives no spread and no interval")
    return Fact("Seeds per row", per_row, tuple(details))


def _chunks(parts: Sequence[str]) -> str:
    """Return the parts in one line that breaks between them only."""
    return ", ".join(part.replace(" ", "\u00a0").replace("-", "\u2011") for part in parts)
