"""The HTML report: one file that opens offline in any browser and needs no script."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tutelage.data.task import Metric
from tutelage.report import wording
from tutelage.report.bars import WIDTH, scale_of
from tutelage.report.facts import key_facts, moment, tables
from tutelage.report.measured import TEST, Measured, measured_of
from tutelage.report.reading import Comparison, block, load, number, teacher_of
from tutelage.report.rows import Row, baseline_of, rows
from tutelage.report.sections import sections_of, terms_of
from tutelage.report.verdict import qualifications, verdict
from tutelage.system.files import atomic


@dataclass(frozen=True)
class _Column:
    """A score of single runs: the head of its column, where it is found, and what it is."""

    head: str
    score: str
    which: str
    metric: Metric

    def of(self, run: Mapping[str, Any]) -> str:
        """Return the score as shown."""
        return wording.as_shown(number(block(run.get(self.which)).get(self.score)), self.metric)


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
    # Before the file is opened, so that a comparison that cannot be read leaves no file.
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
    # Labels come from users, so they are escaped. A misspelt name in the template is an error, not an empty text.
    environment = Environment(
        loader=PackageLoader("tutelage", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"listed": wording.listed, "unit_words": unit_words}
    environment.filters |= {
        "signed": wording.signed,
        "estimate": wording.estimate,
        "mean": wording.mean_of,
        "interval": wording.interval,
        "losses": wording.losses,
        "duration": wording.duration,
        "cost": wording.cost,
        "count": wording.count,
        "short": wording.short,
        "sentence": wording.sentence,
        "breakable": breakable,
        "unbroken": unbroken,
    }
    # Inside the page, which is one file and opens offline.
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(css=Markup(css), **_context(comparison))


def breakable(text: str) -> Markup:
    """Return a label that may break after a colon, comma, equals sign or slash."""
    # Escaped first, because the breaks that are put in are tags.
    escaped = str(Markup.escape(text))
    for mark in (":", ",", "=", "/"):
        escaped = escaped.replace(mark, f"{mark}<wbr>")
    return Markup(escaped)


def unbroken(text: str, unit: str) -> str:
    """Return a sentence whose numbers stay with their units at the end of a line.

    Args:
        text: The sentence.
        unit: The unit of differences, beside per cent.
    """
    units = "|".join(filter(None, ("%|±|seed", re.escape(unit))))
    # Before a unit, after a ±, and between a word and the number that follows it.
    return re.sub(rf" (?={units})|(?<=±) |(?<=[a-z]) (?=[0-9])", "\u00a0", text)


def unit_words(metric: Metric) -> str:
    """Return a metric's unit as a sentence says it, such as ` in per cent`; nothing for a bare number."""
    unit = "per cent" if metric.shown_unit == "%" else metric.shown_unit
    return f" in {unit}" if unit else ""


def _context(comparison: Comparison) -> Mapping[str, Any]:
    entries, measured = rows(comparison), measured_of(comparison)
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
        "measured": measured,
        "metric": measured.metric,
        "reminder": wording.direction(measured.metric),
        "terms": terms_of(measured),
        "compared": sum(row.paired_best is not None for row in entries),
        "has_interval": any(row.paired_best and row.paired_best.low is not None for row in entries),
        "only_one_seed": all(row.seeds == 1 for row in entries if row.is_finished),
        "scale": scale_of(entries),
        "bar_width": WIDTH,
        "has_members": any(row.members for row in entries if row.is_finished),
        "has_teacher": bool(comparison.get("teacher")),
        "run_heads": [column.head for column in _columns(measured)],
        "runs": _runs(entries, measured),
        "commands": [row for row in entries if row.command],
        "tables": tables(comparison),
        "citations": _citations(block(comparison.get("citations"))),
        **_charts(comparison, entries, baseline),
    }


def _charts(comparison: Comparison, entries: Sequence[Row], baseline: Row | None) -> dict[str, Any]:
    # Only where something is drawn: matplotlib takes long to import.
    from tutelage.report.charts.cost import cost_chart
    from tutelage.report.charts.curves import curve_sections
    from tutelage.report.charts.exits import exits_chart
    from tutelage.report.charts.families import family_charts
    from tutelage.report.charts.forest import forest_chart
    from tutelage.report.charts.learning import learning_charts
    from tutelage.report.charts.poor_teachers import teacher_charts

    return {
        "forest": forest_chart(entries),
        "learning": learning_charts(entries),
        "families": family_charts(entries),
        "exits": exits_chart(entries),
        "cost": cost_chart(entries),
        "teachers": teacher_charts(comparison, entries, baseline),
        "sections": curve_sections(entries) + sections_of(comparison, entries, measured_of(comparison)),
    }


def _columns(measured: Measured) -> list[_Column]:
    """Return the columns of what single runs reached."""
    name, metric = wording.short(measured.metric), measured.metric
    found = [(f"{measured.chosen_on} {name}", measured.choosing_score, "best", metric)] if measured.chosen_on else []
    if measured.is_tested:
        found += [(f"{TEST} {name}", measured.score, "best", metric)]
        found += [(f"{TEST} {name}, last", measured.score, "last", metric)]
    found += [(wording.short(other), score, "best", other) for score, other in measured.others]
    return [
        _Column(wording.heading(wording.sentence(head), other), score, which, other)
        for head, score, which, other in found
    ]


def _runs(entries: Sequence[Row], measured: Measured) -> list[dict[str, Any]]:
    columns = _columns(measured)
    return [
        {
            "label": row.label,
            "seed": run.get("seed", wording.ABSENT),
            "epoch": _epoch(run, measured),
            "scores": [column.of(run) for column in columns],
            "seconds": number(run.get("seconds")),
            "also": _also(run, measured),
        }
        for row in entries
        for run in row.runs
    ]


def _epoch(run: Mapping[str, Any], measured: Measured) -> str:
    epochs = str(run.get("epochs", wording.ABSENT))
    return f"{run.get('best_epoch', wording.ABSENT)} of {epochs}" if measured.chosen_on else epochs


def _citations(entries: Mapping[str, Any]) -> dict[str, str]:
    """Return each text once, under all names that share it."""
    # Methods that share papers have the same text.
    names: dict[str, list[str]] = {}
    for name, entry in entries.items():
        names.setdefault(str(entry), []).append(str(name))
    return {", ".join(shared): entry for entry, shared in names.items()}


def _also(run: Mapping[str, Any], measured: Measured) -> str:
    """Return what else a run measured: the score of its own teacher, and those of its other networks."""
    found = [("teacher", teacher_of(run, measured.primary))]
    for member in map(block, run.get("members") or []):
        found.append((str(member.get("name")), number(block(member.get("best")).get(measured.score))))
    return ", ".join(f"{name} {wording.as_value(level, measured.metric)}" for name, level in found if level is not None)
