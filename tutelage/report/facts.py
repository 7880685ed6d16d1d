"""The plain facts around a comparison: what was trained on what, with which settings, on which machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tutelage.report.measured import TEST, VALIDATION, Measured, measured_of
from tutelage.report.reading import Comparison, block, number
from tutelage.report.rows import Row
from tutelage.report.wording import as_value, count, duration, several

# What the page draws, or says in another place.
SHOWN_ELSEWHERE = {"class_names", "image_size", "pictures"}
# A list that is longer is drawn, or is too long to be read in a table.
READABLE = 8


@dataclass(frozen=True)
class Fact:
    """One key fact: what it is about, its value and the details beneath."""

    term: str
    value: str
    details: tuple[str, ...]


def key_facts(comparison: Comparison, entries: Sequence[Row]) -> list[Fact]:
    """Return the facts that a reader needs before the first number."""
    measured = measured_of(comparison)
    found = [_data(block(comparison.get("data")), measured), _student(block(comparison.get("student")))]
    if comparison.get("teacher"):
        found.append(_teacher(block(comparison["teacher"]), measured))
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
        entries = {name: value for name, value in block(comparison.get(key)).items() if name not in SHOWN_ELSEWHERE}
        lines = [(name, text(value)) for name, value in _flat(entries) if not _is_long(value)]
        if lines:
            found.append((title, lines))
    return found


def moment(comparison: Comparison) -> str:
    """Return when the comparison was made, to the minute; a text that is not a date is returned unchanged."""
    created = str(comparison.get("created") or "")
    try:
        # A hand-made comparison may hold any text.
        when = datetime.fromisoformat(created)
    except ValueError:
        return created
    zone = f" {when.tzname()}" if when.tzname() else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def text(value: Any) -> str:
    """Return a setting's value as text."""
    if value is None:
        return "none"
    # Before numbers, because True is an int.
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, held in values.items():
        if isinstance(held, Mapping) and held:
            found += _flat(held, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", held))
    return found


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and (len(value) > READABLE or any(isinstance(part, list) for part in value))


def _data(data: Mapping[str, Any], measured: Measured) -> Fact | None:
    if not data:
        return None
    sizes = [f"{size:,.0f} {part}" for part in data if _is_split(str(part)) and (size := number(data[part]))]
    shape = []
    if outputs := number(data.get("num_classes")):
        shape.append(several(int(outputs), *measured.outputs))
    if size := data.get("image_size"):
        shape.append(" × ".join(str(side) for side in size) + " pixels")
    return Fact("Data", str(data.get("name") or "unnamed"), tuple(filter(None, (_chunks(sizes), _chunks(shape)))))


def _is_split(name: str) -> bool:
    """Return whether a name is a split's; there may be further ones, such as `validation-mismatched`."""
    return name.partition("-")[0] in {"train", VALIDATION, TEST}


def _student(student: Mapping[str, Any]) -> Fact | None:
    return Fact("Student", str(student.get("spec") or "unnamed"), _size(student)) if student else None


def _teacher(teacher: Mapping[str, Any], measured: Measured) -> Fact | None:
    details = (_level(teacher, measured), _chunks(_others(teacher, measured)), *_size(teacher), _origin(teacher))
    return Fact("Teacher", str(teacher.get("spec") or "unnamed"), tuple(filter(None, details)))


def _level(teacher: Mapping[str, Any], measured: Measured) -> str:
    """Return a teacher's score on the split that is shown, or on the training views that it was recorded on."""
    metric = measured.metric
    asked, recorded = number(teacher.get("recorded_views")), number(teacher.get(f"recorded_{measured.primary}"))
    if asked and recorded is not None:
        level = as_value(recorded, metric)
        return f"{metric.title} {level} on {asked:,.0f} recorded training views"
    found = number(teacher.get(measured.score))
    if found is None:
        return ""
    level = as_value(found, metric)
    return f"{level} {measured.title}" if metric.unit == "share" else f"{measured.title} {level}"


def _others(teacher: Mapping[str, Any], measured: Measured) -> list[str]:
    return [
        f"{metric.short} {as_value(found, metric)}"
        for name, metric in measured.others
        if (found := number(teacher.get(name))) is not None
    ]


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
    finished = [row for row in entries if row.is_finished]
    amounts = sorted({row.seeds for row in finished})
    per_row = f"{amounts[0]} to {amounts[-1]}" if len(amounts) > 1 else str(amounts[0] if amounts else 0)
    details = [f"{len(finished)} of {several(len(entries), 'row')} finished"]
    if amounts == [1]:
        details.append("one seed gives no spread and no interval")
    return Fact("Seeds per row", per_row, tuple(details))


def _chunks(parts: Sequence[str]) -> str:
    """Return the parts in one line, which may break between parts alone."""
    # A space and a hyphen at which no line breaks.
    return ", ".join(part.replace(" ", "\u00a0").replace("-", "\u2011") for part in parts)
