"""A score of each class, for several networks side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from tutelage.report.charts.canvas import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, VERMILLION, Chart, draw, single
from tutelage.report.wording import shortened

LOOKS = ((MUTED, "o"), (VERMILLION, "s"), (BLUE, "D"), (GREEN, "^"), (ORANGE, "v"), (PURPLE, "P"), (SKY, "X"))
_LETTERS = 26
# In lines of classes.
_APART = 0.1


def class_scores_chart(name: str, title: str, scores: Mapping[str, Sequence[float]], names: Sequence[str]) -> Chart:
    """Return a line for each class with a mark for each network; the classes that networks do best come first.

    Args:
        name: A name that no other chart of the page has.
        title: What the score is, such as `IoU`.
        scores: Shares by network, one for each class; NaN where there is none. The first seven are drawn.
        names: One name for each class.
    """
    shown = dict(list(scores.items())[: len(LOOKS)])
    means = [_mean([values[index] for values in shown.values()]) for index in range(len(names))]
    order = sorted(range(len(names)), key=lambda index: means[index])

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for number, ((label, values), (colour, mark)) in enumerate(zip(shown.items(), LOOKS)):
            # A little below one another, so that equal scores do not hide each other.
            shift = _APART * ((len(shown) - 1) / 2 - number)
            found = [(100 * values[index], place + shift) for place, index in enumerate(order)]
            there = [point for point in found if math.isfinite(point[0])]
            axes.plot(
                *zip(*there) if there else ([], []),
                linestyle="none",
                marker=mark,
                color=colour,
                markersize=6,
                alpha=0.9,
                label=shortened(label, _LETTERS),
            )
        axes.set_yticks(range(len(order)), [shortened(names[index], _LETTERS) for index in order])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.set_xlim(-2, 102)
        axes.set_xlabel(f"{title}, %")
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=1 if is_narrow else 3)

    said = "; ".join(
        f"{label}: "
        + ", ".join(
            f"{names[index]} {100 * values[index]:.1f}" for index in order[::-1] if math.isfinite(values[index])
        )
        for label, values in shown.items()
    )
    height = 90 + 24 * len(names)
    return draw(
        name, f"{title} of each class in per cent. {said}", paint, wide=(900, height), narrow=(360, height + 90)
    )


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else -1.0
