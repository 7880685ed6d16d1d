"""The terminal table of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tutelage.data.task import Metric
from tutelage.report.measured import Measured, measured_of
from tutelage.report.reading import Comparison
from tutelage.report.rows import Estimate, Member, Row, Standing, rows
from tutelage.report.verdict import verdict
from tutelage.report.wording import (
    ABSENT,
    cost,
    count,
    direction,
    duration,
    estimate,
    losses,
    mean_of,
    sentence,
    short,
    signed,
)

__all__ = ["render_table", "verdict"]

# Characters of the terminal, and of the narrowest first column.
WIDTH, ROW = 100, 16
# The columns that no task measures.
BESIDE = ("Time", "Cost")

STYLES = {Standing.BASELINE: "bold", Standing.BETTER: "bold cyan", Standing.WORSE: "yellow", Standing.SAME: "dim"}


def render_table(comparison: Comparison, *, width: int = WIDTH) -> Table:
    """Return a comparison as a table that fits a terminal. No number is cut off.

    Args:
        comparison: A comparison of version 1.
        width: Columns of the terminal.
    """
    *layouts, last = _layouts(comparison)
    return next((table for table in layouts if _fits(table, width)), last)


def _layouts(comparison: Comparison) -> Iterator[Table]:
    """Yield the table in narrower and narrower layouts."""
    yield _table(comparison, " ")
    # Beside long numbers, the interval stands below the difference.
    yield _table(comparison, "\n")
    yield _table(comparison, "\n", is_tight=True)
    # What rows are compared by stays.
    for count_left in range(1, 1 + len(BESIDE) + len(measured_of(comparison).others)):
        yield _table(comparison, "\n", is_tight=True, left_out=count_left)


def _table(comparison: Comparison, apart: str, *, is_tight: bool = False, left_out: int = 0) -> Table:
    """Return the table.

    Args:
        comparison: A comparison.
        apart: What stands between a difference and its interval.
        is_tight: Whether columns stand close.
        left_out: How many columns to leave out, from the right.
    """
    entries, measured = rows(comparison), measured_of(comparison)
    titles = [*_headings(measured), *BESIDE]
    kept = len(titles) - left_out
    caption = _caption(entries, measured, left_out=[" ".join(title.split()) for title in titles[kept:]])
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=is_tight, caption=caption, caption_justify="left"
    )
    table.add_column("Row", overflow="fold", min_width=ROW)
    if not measured.split:
        table.add_column("Training losses", overflow="fold")
    for title in titles[:kept]:
        table.add_column(title, justify="right", no_wrap=True)
    for row in entries:
        table.add_row(*_cells(row, apart)[: len(table.columns)])
        for member in row.members if row.is_finished else ():
            table.add_row(*_member_cells(member, measured)[: len(table.columns)])
    return table


def _fits(table: Table, width: int) -> bool:
    """Return whether the table fits if its first column is as narrow as possible."""
    texts = [[column.header, *column.cells] for column in table.columns[1:]]
    lines = [[line for text in column for line in str(text).splitlines()] for column in texts]
    # So many characters stand between columns, and one at either end.
    apart = 2 if table.collapse_padding else 3
    return ROW + sum(max(map(cell_len, column)) + apart for column in lines) + 2 <= width


def _headings(measured: Measured) -> list[str]:
    """Return the heads of the columns of what was measured."""
    if not measured.split:
        return []
    split = "Test" if measured.is_tested else "Val."
    first = _heading(f"{split} {short(measured.metric)}", measured.metric)
    return [first, "Difference", *(_heading(short(metric), metric) for _, metric in measured.others)]


def _heading(name: str, metric: Metric) -> str:
    """Return the head of a column. A unit that is a word stands below the name, to save width."""
    return (" " if metric.shown_unit == "%" else "\n").join(filter(None, (name, metric.shown_unit)))


def _cells(row: Row, apart: str) -> list[RenderableType]:
    name: RenderableType = Text(
        row.label + (" (baseline)" if row.is_baseline else ""), style="bold" if row.is_baseline else ""
    )
    if not row.is_finished:
        # The first of these cells says that the row failed; time and cost come on top.
        width = len(_headings(row.measured)) or 1
        return [name, Text("failed", style="red"), *(Text(ABSENT, style="dim") for _ in range(width + 1))]
    if row.members:
        # A row with members names the network that its numbers are of.
        name = Group(name, _network(row.deployed or "deployed", row.network, row.parameters))
    metric = row.measured.metric
    reached = [Text(estimate(row.score, metric)), Text(_gap(row, apart), style=STYLES.get(row.standing, ""))]
    reached += [Text(text) for text in _others(row.best, row.measured)]
    if not row.measured.split:
        reached = [Text(losses(row))]
    return [name, *reached, Text(duration(row.seconds)), Text(cost(row.relative_cost))]


def _member_cells(member: Member, measured: Measured) -> list[RenderableType]:
    """Return a line without a difference: the pairing is for the deployed network."""
    best, last = (estimate(scores.get(measured.score), measured.metric) for scores in (member.best, member.last))
    texts = [best, f"last {last}", *_others(member.best, measured)] if measured.split else [""]
    name = _network(member.name, member.network, member.parameters)
    return [name, *(Text(text, style="dim") for text in texts), Text(), Text()]


def _others(scores: Mapping[str, Estimate], measured: Measured) -> list[str]:
    return [mean_of(scores.get(name), metric) for name, metric in measured.others]


def _network(name: str, network: str | None, parameters: float | None) -> Padding:
    size = count(parameters) if parameters is not None else None
    return Padding(Text(", ".join(filter(None, (name, size, network))), style="dim"), (0, 0, 0, 2))


def _gap(row: Row, apart: str) -> str:
    gap, metric = row.paired_best, row.measured.metric
    if gap is None:
        return ABSENT
    mean = signed(gap.mean, metric)
    if gap.low is None or gap.high is None:
        return mean
    return f"{mean}{apart}[{signed(gap.low, metric)}, {signed(gap.high, metric)}]"


def _caption(entries: Sequence[Row], measured: Measured, *, left_out: Sequence[str]) -> Text:
    """Return what the numbers of the table are, and what a wider terminal would show."""
    finished = [row for row in entries if row.is_finished]
    amounts = {row.seeds for row in finished}
    # What the numbers are, before anything about single columns.
    said = _numbers(amounts, measured)
    if measured.split and direction(measured.metric):
        said += f" {sentence(measured.metric.title)}: {direction(measured.metric)}."
    if any(row.members for row in finished):
        said += " Indented: the networks of a row and their parameters; the row's numbers are those of the first."
    if left_out:
        said += f" Left out because the terminal is narrow: {', '.join(left_out)}."
    return Text(said)


def _numbers(amounts: set[int], measured: Measured) -> str:
    seeds = "n = " + " to ".join(str(n) for n in sorted({min(amounts), max(amounts)})) if amounts else "no result"
    if not measured.split:
        return f"Nothing was measured. Losses are means over seeds ({seeds}) of the last epoch."
    when = "at the best validation epoch" if measured.chosen_on else "after the last epoch"
    if amounts == {1}:
        return f"One seed: no spread and no interval. {sentence(measured.metric.title)} {when}."
    return f"Mean ± std over seeds ({seeds}) {when}; difference with 95 % paired interval."
