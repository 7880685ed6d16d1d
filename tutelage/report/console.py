"""The terminal table of a comparison."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from tutelage.report.reading import Comparison, Difference, Row, Standing, rows
from tutelage.report.verdict import verdict
from tutelage.report.wording import ABSENT, cost, decimal, duration, estimate, percent, points

__all__ = ["render_table", "verdict"]

STYLES = {Standing.BASELINE: "bold", Standing.BETTER: "bold cyan", Standing.WORSE: "yellow", Standing.SAME: "dim"}


def render_table(comparison: Comparison) -> Table:
    """Return a comparison as a table that fits a terminal of 100 columns.

    Args:
        comparison: A comparison of version 1.
    """
    entries = rows(comparison)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=_caption(entries), caption_justify="left")
    table.add_column("Row", overflow="fold", min_width=16)
    accuracy = "Val. acc. %" if entries and entries[0].metric == "validation_accuracy" else "Test acc. %"
    for heading in (accuracy, "Difference", "NLL", "ECE %", "Time", "Cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in entries:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[Text]:
    name = Text(row.label + (" (baseline)" if row.is_baseline else ""), style="bold" if row.is_baseline else "")
    if row.accuracy is None:
        return [name, Text("failed", style="red"), *(Text(ABSENT, style="dim") for _ in range(5))]
    nll, ece = row.best.get("test_nll"), row.best.get("test_ece")
    return [
        name,
        Text(estimate(row.accuracy)),
        Text(_gain(row.paired_best), style=STYLES.get(row.standing, "")),
        Text(decimal(nll.mean if nll else None)),
        Text(percent(ece.mean if ece else None)),
        Text(duration(row.seconds)),
        Text(cost(row.relative_cost)),
    ]


def _gain(difference: Difference | None) -> str:
    if difference is None:
        return ABSENT
    if difference.low is None or difference.high is None:
        return points(difference.mean)
    return f"{points(difference.mean)} [{points(difference.low)}, {points(difference.high)}]"


def _caption(entries: list[Row]) -> Text:
    amounts = {row.accuracy.n for row in entries if row.accuracy}
    if amounts == {1}:
        return Text("One seed: no spread and no interval. Accuracy at the best validation epoch.")
    seeds = "n = " + " to ".join(str(n) for n in sorted({min(amounts), max(amounts)})) if amounts else "no result"
    return Text(f"Mean ± std over seeds ({seeds}) at the best validation epoch; difference with 95 % paired interval.")
