"""A comparison as a Markdown table for documentation pages."""

from __future__ import annotations

from tutelage.report.reading import Comparison, Estimate, Member, Row, Standing, rows
from tutelage.report.verdict import verdict
from tutelage.report.wording import ABSENT, cost, count, decimal, duration, estimate, interval, percent, points

COLUMNS = ("Row", "Accuracy %", "Last epoch %", "Difference (95 % interval)", "NLL", "ECE %", "Time", "Cost", "n")


def render_markdown(comparison: Comparison) -> str:
    """Return the verdict and the table of a comparison as Markdown.

    Args:
        comparison: A comparison of version 1.
    """
    head = f"| {' | '.join(COLUMNS)} |"
    rule = "|:--|" + "--:|" * (len(COLUMNS) - 1)
    body = [f"| {' | '.join(cells)} |" for row in rows(comparison) for cells in _lines(row)]
    return "\n".join([f"**{_plain(verdict(comparison))}.**", "", head, rule, *body, ""])


def _lines(row: Row) -> list[list[str]]:
    members = row.members if row.accuracy else ()
    return [_cells(row), *(_member_cells(member, row.metric) for member in members)]


def _cells(row: Row) -> list[str]:
    name = _code(row.label) + (" (baseline)" if row.is_baseline else "")
    if row.accuracy is None:
        return [name, _plain(f"failed: {row.error}"), *[ABSENT] * (len(COLUMNS) - 2)]
    if row.members:
        name = f"{name}: {_network(row.deployed or 'deployed', row.network, row.parameters)}"
    return [
        name,
        estimate(row.accuracy),
        estimate(row.last.get(row.metric)),
        _gain(row),
        decimal(_mean(row.best.get("test_nll"))),
        percent(_mean(row.best.get("test_ece"))),
        duration(row.seconds),
        cost(row.relative_cost),
        str(row.accuracy.n),
    ]


def _member_cells(member: Member, metric: str) -> list[str]:
    """Return a line without a difference: the pairing is for the deployed network."""
    accuracy = member.best.get(metric)
    return [
        f"↳ {_network(member.name, member.network, member.parameters)}",
        estimate(accuracy),
        estimate(member.last.get(metric)),
        "",
        decimal(_mean(member.best.get("test_nll"))),
        percent(_mean(member.best.get("test_ece"))),
        "",
        "",
        str(accuracy.n) if accuracy else ABSENT,
    ]


def _network(name: str, network: str | None, parameters: float | None) -> str:
    size = f"{count(parameters)} parameters" if parameters is not None else ""
    return ", ".join(filter(None, (_code(name), _code(network) if network else "", size)))


def _mean(value: Estimate | None) -> float | None:
    return value.mean if value else None


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
