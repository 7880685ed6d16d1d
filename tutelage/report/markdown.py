"""A comparison as a Markdown table for documentation pages."""

from __future__ import annotations

from tutelage.report.reading import Comparison, Row, Standing, rows
from tutelage.report.verdict import verdict
from tutelage.report.wording import ABSENT, cost, decimal, duration, estimate, interval, percent, points

COLUMNS = ("Row", "Accuracy %", "Last epoch %", "Difference (95 % interval)", "NLL", "ECE %", "Time", "Cost", "n")


def render_markdown(comparison: Comparison) -> str:
    """Return the verdict and the table of a comparison as Markdown.

    Args:
        comparison: A comparison of version 1.
    """
    head = f"| {' | '.join(COLUMNS)} |"
    rule = "|:--|" + "--:|" * (len(COLUMNS) - 1)
    body = [f"| {' | '.join(_cells(row))} |" for row in rows(comparison)]
    return "\n".join([f"**{_plain(verdict(comparison))}.**", "", head, rule, *body, ""])


def _cells(row: Row) -> list[str]:
    name = _code(row.label) + (" (baseline)" if row.is_baseline else "")
    if row.accuracy is None:
        return [name, _plain(f"failed: {row.error}"), *[ABSENT] * (len(COLUMNS) - 2)]
    nll, ece = row.best.get("test_nll"), row.best.get("test_ece")
    return [
        name,
        estimate(row.accuracy),
        estimate(row.last.get(row.metric)),
        _gain(row),
        decimal(nll.mean if nll else None),
        percent(ece.mean if ece else None),
        duration(row.seconds),
        cost(row.relative_cost),
        str(row.accuracy.n),
    ]


def _gain(row: Row) -> str:
    if row.paired_best is None:
        return ABSENT
    mean, span = points(row.paired_best.mean), interval(row.paired_best)
    if row.standing in {Standing.BETTER, Standing.WORSE}:
        mean = f"**{mean}**"
    return f"{mean} ({span})" if span else mean


def _code(text: str) -> str:
    return f"`{' '.join(text.split())}`".replace("|", "\\|") if "`" not in text else _plain(text)


def _plain(text: str) -> str:
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\|*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return text
