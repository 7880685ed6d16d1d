"""The score of each network of a search against its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from tutelage.report.charts.canvas import BLUE, INK, MUTED, Chart, draw, single
from tutelage.report.charts.labels import label_points
from tutelage.report.wording import count

# The best ones that are labelled; more labels would cover the points.
_LABELLED = 3


def search_chart(content: Mapping[str, Any]) -> Chart:
    """Return scores over parameters, the best networks marked and numbered.

    Args:
        content: The content of `search.json`.
    """
    scored = [each for each in content["candidates"] if each["score"] is not None]
    best = content["best"]

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        axes.scatter(*_points(scored), s=18, facecolors="none", edgecolors=MUTED, linewidths=1.0)
        axes.scatter(*_points(best), s=46, color=BLUE, zorder=3)
        sizes = [each["parameters"] for each in scored]
        # Sizes of a wide space differ by factors; those of a narrow one would all stand at one mark.
        if max(sizes) > 8 * min(sizes):
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda amount, _: count(amount)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("parameters")
        axes.set_ylabel(f"score: {content['score']}")
        axes.margins(x=0.08, y=0.1)
        figure.legend(handles=_key(best), loc="outside upper left", ncols=1 if is_narrow else 2, labelcolor=MUTED)
        _labels(figure, best[:_LABELLED], list(zip(*_points(scored))))

    first = best[0]
    alt = (
        f"Score against parameters of {len(scored)} networks. The best is {first['network']} with "
        f"{count(first['parameters'])} parameters and the score {first['score']:.4g}."
    )
    return draw("search", alt, paint, wide=(900, 430), narrow=(360, 400))


def _points(found: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Return the places of some networks: parameters, and scores."""
    return [each["parameters"] for each in found], [each["score"] for each in found]


def _labels(figure: Figure, best: Sequence[Mapping[str, Any]], avoid: Sequence[tuple[float, float]]) -> None:
    places = list(zip(*_points(best)))
    texts = [str(rank) for rank in range(1, len(best) + 1)]
    inks, reach = [INK] * len(best), [0.0] * len(best)
    label_points(figure, figure.axes[0], places, texts, inks, reach=reach, size=12, avoid=avoid)


def _key(best: Sequence[Mapping[str, Any]]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            color=BLUE,
            markersize=6.8,
            label=f"the best {len(best)}, with ranks",
        ),
        Line2D([], [], linestyle="", marker="o", markerfacecolor="none", color=MUTED, markersize=4.2, label="others"),
    ]
