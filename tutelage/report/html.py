"""The HTML report: one file that opens offline in any browser and needs no script."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tutelage.report import wording
from tutelage.report.bars import WIDTH, scale_of
from tutelage.report.charts.cost import cost_chart
from tutelage.report.charts.exits import exits_chart
from tutelage.report.charts.families import family_charts
from tutelage.report.charts.forest import forest_chart
from tutelage.report.charts.learning import learning_charts
from tutelage.report.charts.poor_teachers import teacher_charts
from tutelage.report.charts.reliability import reliability_charts
from tutelage.report.charts.similarity import matrix_of, similar_pairs, similarity_chart
from tutelage.report.charts.uncertainty import uncertainty_charts
from tutelage.report.facts import key_facts, moment, tables
from tutelage.report.reading import Comparison, Row, baseline_of, block, load, number, rows
from tutelage.report.verdict import qualifications, verdict
from tutelage.system.files import atomic

PAIRS = 10


def write_report(comparison: Comparison | str | Path, target: str | Path) -> Path:
    """Write the report of a comparison; a reader never sees half a file.

    Args:
        comparison: The comparison, or the path of its `comparison.json`.
        target: Where the HTML file goes; its folder is made.

    Returns:
        The path of the report.

    Raises:
        UserError: If the comparison cannot be read or the report cannot be written.
    """
    page = render_html(load(comparison))
    path = Path(target)
    with atomic(path) as file:
        file.write(page.encode())
    return path


def render_html(comparison: Comparison) -> str:
    """Return the report of a comparison as one self-contained page.

    Args:
        comparison: A comparison of version 1.
    """
    environment = Environment(
        loader=PackageLoader("tutelage", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "points": wording.points,
        "estimate": wording.estimate,
        "interval": wording.interval,
        "decimal": wording.decimal,
        "duration": wording.duration,
        "cost": wording.cost,
        "count": wording.count,
        "breakable": breakable,
        "unbroken": unbroken,
    }
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(css=Markup(css), **_context(comparison))


def breakable(text: str) -> Markup:
    """Return a label that may break after a colon, comma, equals sign or slash."""
    escaped = str(Markup.escape(text))
    for mark in (":", ",", "=", "/"):
        escaped = escaped.replace(mark, f"{mark}<wbr>")
    return Markup(escaped)


def unbroken(text: str) -> str:
    """Return a sentence whose numbers stay with their units at the end of a line."""
    return re.sub(r" (?=%|±|points|seed)|(?<=±) |(?<=[a-z]) (?=[0-9])", "\u00a0", text)


def _context(comparison: Comparison) -> Mapping[str, Any]:
    entries = rows(comparison)
    baseline = baseline_of(entries)
    return {
        "title": str(comparison.get("title") or "Comparison"),
        "headline": verdict(comparison),
        "qualifications": qualifications(comparison),
        "created": moment(comparison),
        "version": str(comparison.get("tutelage") or ""),
        "command": str(comparison.get("command") or ""),
        "facts": key_facts(comparison, entries),
        "rows": entries,
        "baseline": baseline,
        "measured": entries[0].metric.replace("_", " ") if entries else "test accuracy",
        "compared": sum(row.paired_best is not None for row in entries),
        "has_interval": any(row.paired_best and row.paired_best.low is not None for row in entries),
        "only_one_seed": all(row.accuracy.n == 1 for row in entries if row.accuracy),
        "scale": scale_of(entries),
        "bar_width": WIDTH,
        "has_members": any(row.members for row in entries if row.accuracy),
        "has_teacher": bool(comparison.get("teacher")),
        "runs": _runs(entries),
        "commands": [row for row in entries if row.command],
        "tables": tables(comparison),
        "citations": _citations(block(comparison.get("citations"))),
        **_charts(comparison, entries, baseline),
    }


def _charts(comparison: Comparison, entries: Sequence[Row], baseline: Row | None) -> dict[str, Any]:
    return {
        "forest": forest_chart(entries),
        "learning": learning_charts(entries),
        "families": family_charts(entries),
        "exits": exits_chart(entries),
        "cost": cost_chart(entries),
        "teachers": teacher_charts(comparison, entries, baseline),
        "reliability": reliability_charts(entries),
        "uncertainty": uncertainty_charts(comparison, entries),
        "foreign": str(block(block(comparison.get("data")).get("foreign")).get("name") or ""),
        **_similarity(comparison),
    }


def _similarity(comparison: Comparison) -> dict[str, Any]:
    matrix = matrix_of(block(comparison.get("teacher")).get("class_similarity"))
    if matrix is None:
        return {"similarity": None, "pairs": []}
    names = [str(name) for name in block(comparison.get("data")).get("class_names") or []]
    if len(names) != len(matrix):
        names = [f"class {index}" for index in range(len(matrix))]
    return {"similarity": similarity_chart(matrix, names), "pairs": similar_pairs(matrix, names, most=PAIRS)}


def _runs(entries: Sequence[Row]) -> list[dict[str, Any]]:
    found = []
    for row in entries:
        for run in row.runs:
            best, last = block(run.get("best")), block(run.get("last"))
            found.append(
                {
                    "label": row.label,
                    "seed": run.get("seed", wording.ABSENT),
                    "epoch": f"{run.get('best_epoch', wording.ABSENT)} of {run.get('epochs', wording.ABSENT)}",
                    "validation": number(best.get("validation_accuracy")),
                    "test": number(best.get("test_accuracy")),
                    "last": number(last.get("test_accuracy")),
                    "nll": number(best.get("test_nll")),
                    "ece": number(best.get("test_ece")),
                    "seconds": number(run.get("seconds")),
                    "also": _also(run),
                }
            )
    return found


def _citations(entries: Mapping[str, Any]) -> dict[str, str]:
    """Return each text once, under the names of all that it is for."""
    names: dict[str, list[str]] = {}
    for name, entry in entries.items():
        names.setdefault(str(entry), []).append(str(name))
    return {", ".join(shared): entry for entry, shared in names.items()}


def _also(run: Mapping[str, Any]) -> str:
    notes = []
    if (teacher := number(run.get("teacher_accuracy"))) is not None:
        notes.append(f"teacher {wording.percent(teacher)} %")
    for member in run.get("members") or []:
        reached = number(block(block(member).get("best")).get("test_accuracy"))
        notes.append(f"{block(member).get('name')} {wording.percent(reached)} %")
    return ", ".join(notes)
