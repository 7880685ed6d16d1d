"""A comparison as a Markdown table for documentation pages."""

from __future__ import annotations

from collections.abc import Mapping

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
    heading,
    interval,
    losses,
    mean_of,
    sentence,
    short,
    signed,
)


def render_markdown(comparison: Comparison) -> str:
    """Return the verdict and the table of a comparison as Markdown.

    Args:
        comparison: A comparison of version 1.
    """
    columns = _columns(measured_of(comparison))
    head = f"| {' | '.join(map(_plain, columns))} |"
    rule = "|:--|" + "--:|" * (len(columns) - 1)
    body = [f"| {' | '.join(cells)} |" for row in rows(comparison) for cells in _lines(row, len(columns))]
    return "\n".join([f"**{_plain(verdict(comparison))}.**", "", head, rule, *body, ""])


def _columns(measured: Measured) -> list[str]:
    """Return the heads of the columns."""
    metric = measured.metric
    if not measured.split:
        return ["Row", "Training losses", "Time", "Cost", "n"]
    return [
        "Row",
        heading(sentence(metric.title), metric),
        *([heading("Last epoch", metric)] if measured.chosen_on else ()),
        "; ".join(filter(None, ("Difference (95 % interval", direction(metric)))) + ")",
        *(heading(short(other), other) for _, other in measured.others),
        "Time",
        "Cost",
        "n",
    ]


def _lines(row: Row, width: int) -> list[list[str]]:
    if not row.is_finished:
        # The error takes the second cell; the others of the row are marked as absent.
        return [[_name(row), _plain(f"failed: {row.error}"), *[ABSENT] * (width - 2)]]
    return [_cells(row), *(_member_cells(member, row.measured) for member in row.members)]


def _cells(row: Row) -> list[str]:
    name = _name(row)
    if row.members:
        name = f"{name}: {_network(row.deployed or 'deployed', row.network, row.parameters)}"
    return [name, *_reached(row), duration(row.seconds), cost(row.relative_cost), str(row.seeds)]


def _reached(row: Row) -> list[str]:
    """Return what a row reached, or its losses where nothing was measured."""
    measured = row.measured
    if not measured.split:
        return [_plain(losses(row))]
    return [
        estimate(row.score, measured.metric),
        *_last(row.last, measured),
        _gap(row),
        *_others(row.best, measured),
    ]


def _member_cells(member: Member, measured: Measured) -> list[str]:
    """Return a line without a difference: the pairing is for the deployed network."""
    name = f"↳ {_network(member.name, member.network, member.parameters)}"
    if not measured.split:
        return [name, "", "", "", ""]
    best = member.best.get(measured.score)
    return [
        name,
        estimate(best, measured.metric),
        *_last(member.last, measured),
        "",
        *_others(member.best, measured),
        "",
        "",
        str(best.n) if best else ABSENT,
    ]


def _last(scores: Mapping[str, Estimate], measured: Measured) -> list[str]:
    """Return the cell of the last epoch; where no epoch was chosen there is none, since all scores are of the last."""
    return [estimate(scores.get(measured.score), measured.metric)] if measured.chosen_on else []


def _others(scores: Mapping[str, Estimate], measured: Measured) -> list[str]:
    return [mean_of(scores.get(name), metric) for name, metric in measured.others]


def _name(row: Row) -> str:
    return _code(row.label) + (" (baseline)" if row.is_baseline else "")


def _network(name: str, network: str | None, parameters: float | None) -> str:
    size = f"{count(parameters)} parameters" if parameters is not None else ""
    return ", ".join(filter(None, (_code(name), _code(network) if network else "", size)))


def _gap(row: Row) -> str:
    if row.paired_best is None:
        return ABSENT
    mean, span = signed(row.paired_best.mean, row.measured.metric), interval(row.paired_best, row.measured.metric)
    # Bold only where the interval leaves out zero.
    if row.standing in {Standing.BETTER, Standing.WORSE}:
        mean = f"**{mean}**"
    return f"{mean} ({span})" if span else mean


def _code(text: str) -> str:
    # A bar would end the cell even inside code, and a backtick would end the code.
    return f"`{' '.join(text.split())}`".replace("|", "\\|") if "`" not in text else _plain(text)


def _plain(text: str) -> str:
    # The ampersand first, or it would change the escape of `<`; below, the backslash first for the same reason.
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\|*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return text
