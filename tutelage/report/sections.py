"""The sections that a task's own pictures fill: one file under `charts/`, found by the task's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from tutelage.report.measured import Measured
from tutelage.report.reading import Comparison
from tutelage.report.rows import Row
from tutelage.report.wording import sentence, short

if TYPE_CHECKING:
    from tutelage.report.charts.canvas import Chart

CHARTS = "tutelage.report.charts"


@dataclass(frozen=True)
class Panel:
    """A chart of a section.

    Attributes:
        chart: The chart.
        caption: The label of what it shows; empty for the only chart of a section.
        words: What it comes to, in words.
    """

    chart: Chart
    caption: str = ""
    words: str = ""


@dataclass(frozen=True)
class Listing:
    """A small table beside a section's only chart: texts to the left and numbers to the right."""

    title: str
    columns: tuple[str, str]
    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        id: What the page's links call it; no other section has it.
        name: What the list of sections calls it.
        title: Its heading.
        lede: What it shows and how to read it.
        panels: Its charts; several become small panels, each with its caption.
        listing: A table beside its only chart.
    """

    id: str
    name: str
    title: str
    lede: str
    panels: Sequence[Panel]
    listing: Listing | None = None


def sections_of(comparison: Comparison, entries: Sequence[Row], measured: Measured) -> list[Section]:
    """Return the sections of the task's own pictures; none for a task without a file of pictures.

    Args:
        comparison: The comparison.
        entries: Its rows.
        measured: What they are judged by.
    """
    file = _file(measured.task)
    make: Callable[[Comparison, Sequence[Row]], list[Section]] | None = getattr(file, "sections", None)
    return make(comparison, entries) if make else []


def terms_of(measured: Measured) -> str:
    """Return what the short names of the metrics stand for: in the task's own words, else in their titles.

    Args:
        measured: What the rows are judged by.
    """
    own = getattr(_file(measured.task), "TERMS", None)
    if own is not None:
        return str(own)
    # Only what has a column is explained.
    shown = [measured.metric] if measured.split else []
    shown += [metric for _, metric in measured.others]
    meant = [f"{metric.short} is the {metric.title}" for metric in shown if metric.short not in {"", metric.title}]
    lower = [short(metric) for metric in shown if not metric.higher_is_better]
    higher = [short(metric) for metric in shown if metric.higher_is_better]
    ways = [f"{way} is better for {_joined(of)}" for way, of in (("lower", lower), ("higher", higher)) if of]
    return " ".join(f"{sentence(said)}." for said in (", ".join(meant), "; ".join(ways)) if said)


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _file(task: str) -> ModuleType | None:
    """Return a task's file of pictures, if there is one."""
    name = f"{CHARTS}.{task.replace('-', '_')}"
    # The name comes from a file that anybody may have written, and must not lead to another module.
    is_there = re.fullmatch(r"[a-z][a-z0-9-]*", task) and find_spec(name)
    return import_module(name) if is_there else None
