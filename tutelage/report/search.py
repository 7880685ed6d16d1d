"""The result of a search as a table, as sentences and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.table import Table

from tutelage.report.html import breakable
from tutelage.report.wording import count, duration, several
from tutelage.system.files import atomic

# Above this the score says little that the number of parameters does not say.
_ALIKE = 0.8


def search_table(content: Mapping[str, Any]) -> Table:
    """Return the best networks of a search as a table for a terminal.

    Args:
        content: The content of `search.json`.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("", "Network"):
        table.add_column(head, overflow="fold")
    heads = ("Score", *(_spaced(name) for name in _terms(content)), "Parameters", "Multiply-adds")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows(content):
        table.add_row(*row)
    return table


def rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells of the best networks: rank, network, score, its terms where it has several, and sizes."""
    return [
        [
            str(rank),
            each["network"],
            f"{each['score']:.4g}",
            *(f"{each['terms'][name]:.4g}" for name in _terms(content)),
            count(each["parameters"]),
            count(each["multiply_adds"]),
        ]
        for rank, each in enumerate(content["best"], start=1)
    ]


def search_summary(content: Mapping[str, Any]) -> str:
    """Return what was searched, what was left out, and how far the score says more than size does."""
    outcomes = dict(content["outcomes"])
    scored = outcomes.pop("scored", 0)
    # Every network was seen, or a part of them.
    whole = scored + sum(outcomes.values()) == content["networks"]
    share = "all" if whole else "chosen by evolution,"
    text = (
        f"{several(scored, 'network')} scored of {content['networks']:,} in the space ({share} with "
        f"{content['limits']}), in {duration(content['seconds'])}."
    )
    for outcome, amount in outcomes.items():
        text += f" {amount} {outcome}, such as {content['reasons'][outcome]}."
    return " ".join(filter(None, (text, _agreement(content))))


def write_search_page(content: Mapping[str, Any], target: Path) -> Path:
    """Write the page of a search; a reader never sees half a file.

    Args:
        content: The content of `search.json`.
        target: Where the HTML file goes.

    Returns:
        The path of the page.
    """
    # Imported late: commands that draw nothing do not wait for matplotlib.
    from tutelage.report.charts.search import search_chart

    environment = Environment(
        loader=PackageLoader("tutelage", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["breakable"] = breakable
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    page = environment.get_template("search.html").render(
        css=Markup(css),
        content=content,
        chart=search_chart(content),
        summary=search_summary(content),
        rows=rows(content),
        heads=[_spaced(name) for name in _terms(content)],
        settings=_settings(content),
        folder=target.parent,
    )
    with atomic(target) as file:
        file.write(page.encode())
    return target


def _agreement(content: Mapping[str, Any]) -> str:
    """Return a sentence about the score and the number of parameters."""
    tau = content["agreement"]
    if tau is None or content["score"].partition(":")[0] == "parameters":
        return ""
    said = f"The score ranks these networks much as their number of parameters does (Kendall's tau {tau:.2f})"
    if tau < _ALIKE:
        said = (
            f"The score ranks these networks otherwise than their number of parameters does (Kendall's tau {tau:.2f})"
        )
    return said + ": train the best of both before you trust it (docs/results/search.md)."


def _terms(content: Mapping[str, Any]) -> list[str]:
    terms = list(content["best"][0]["terms"])
    return terms if len(terms) > 1 else []


def _spaced(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _settings(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the search was asked, for the page."""
    named = ("space", "score", "limits", "teacher", "data", "batch_size", "draws", "seed", "device")
    return [(_spaced(name), str(content[name])) for name in named if content[name] is not None]
