"""The terminal table of a comparison."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tutelage.report.reading import Comparison, Difference, Estimate, Member, Row, Standing, rows
from tutelage.report.verdict import verdict
from tutelage.report.wording import ABSENT, cost, count, decimal, duration, estimate, percent, points

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
        for member in row.members if row.accuracy else ():
            table.add_row(*_member_cells(member, row.metric))
    return table


def _cells(row: Row) -> list[RenderableType]:
    name: RenderableType = Text(
        row.label + (" (baseline)" if row.is_baseline else ""), style="bold" if row.is_baseline else ""
    )
    if row.accuracy is None:
        return [name, Text("failed", style="red"), *(Text(ABSENT, style="dim") for _ in range(5))]
    if row.members:
        name = Group(name, _network(row.deployed or "deployed", row.network, row.parameters))
    return [
        name,
        Text(estimate(row.accuracy)),
        Text(_gain(row.paired_best), style=STYLES.get(row.standing, "")),
        Text(decimal(_mean(row.best.get("test_nll")))),
        Text(percent(_mean(row.best.get("test_ece")))),
        Text(duration(row.seconds)),
        Text(cost(row.relative_cost)),
    ]


def _member_cells(member: Member, metric: str) -> list[RenderableType]:
    """Return a line without a difference: the pairing is for the deployed network."""
    return [
        _network(member.name, member.network, member.parameters),
        Text(estimate(member.best.get(metric)), style="dim"),
        Text(f"last {estimate(member.last.get(metric))}", style="dim"),
        Text(decimal(_mean(member.best.get("test_nll"))), style="dim"),
        Text(percent(_mean(member.best.get("test_ece"))), style="dim"),
        Text(),
        Text(),
    ]


def _network(name: str, network: str | None, parameters: float | None) -> Padding:
    size = count(parameters) if parameters is not None else None
    return Padding(Text(", ".join(filter(None, (name, size, network))), style="dim"), (0, 0, 0, 2))


def _mean(value: Estimate | None) -> float | None:
    return value.mean if value else None


def _gain(difference: Difference | None) -> str:
    if difference is None:
        return ABSENT
    if difference.low is None or difference.high is None:
        return points(difference.mean)
    return f"{points(difference.mean)} [{points(difference.low)}, {points(difference.high)}]"


def _caption(entries: list[Row]) -> Text:
    amounts = {row.accuracy.n for row in entries if row.accuracy}
    families = any(row.members for row in entries if row.accuracy)
    below = (
        " Indented: the networks of a row and their parameters; the row's numbers are the first one's."
        if families
        else ""
    )
    if amounts == {1}:
        return Text(f"One seed: no spread and no interval. Accuracy at the best validation epoch.{below}")
    seeds = "n = " + " to ".join(str(n) for n in sorted({min(amounts), max(amounts)})) if amounts else "no result"
    return Text(
        f"Mean ± std over seeds ({seeds}) at the best validation epoch; difference with 95 % paired interval.{below}"
    )
