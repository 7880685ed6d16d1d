"""What each exit or peer of a row reaches against what one answer of it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from tutelage.data.task import Metric
from tutelage.report.charts.canvas import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    SKY,
    VERMILLION,
    Chart,
    draw,
    single,
)
from tutelage.report.charts.labels import label_points
from tutelage.report.rows import Estimate, Row, baseline_of
from tutelage.report.wording import count, estimate, listed, sentence, shortened, with_unit

# Colour and shape by family, so that neither of them carries the difference alone.
LOOKS = ((BLUE, "o"), (VERMILLION, "^"), (GREEN, "D"), (PURPLE, "v"), (ORANGE, "P"), (SKY, "X"))
# The most letters of a label.
LETTERS = 18
# Costs within this factor count as one; their points stand side by side, this share of the axis apart.
SAME, APART = 1.02, 0.013


@dataclass(frozen=True)
class Answer:
    """What one network needs for an answer, in multiply-adds, and what it reaches."""

    name: str
    cost: float
    score: Estimate
    is_exit: bool


@dataclass(frozen=True)
class Family:
    """The networks of a row, the cheapest first, and how they are marked."""

    row: Row
    answers: tuple[Answer, ...]
    colour: str
    shape: str


def exits_chart(entries: Sequence[Row]) -> Chart | None:
    """Return scores over the multiply-adds of an answer, or nothing where the cost of no member is known."""
    families = families_of(entries)
    if not families:
        return None
    plain = baseline_of(entries)
    # The baseline as a single point, unless it is a family itself.
    if plain and plain.score and plain.multiply_adds and not any(family.row == plain for family in families):
        alone = Answer(plain.label, plain.multiply_adds, plain.score, is_exit=False)
        families.append(Family(plain, (alone,), INK, "s"))
    measured = families[0].row.measured
    metric = measured.metric

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        # Twice the share, because a narrow axis has fewer pixels.
        moved, ends = placed(families, 2 * APART if is_narrow else APART)
        for family in moved:
            _draw(axes, family)
        _frame(axes, ends, 30 if is_narrow else 1000)
        axes.set_ylabel(listed(measured.title, metric.shown_unit))
        figure.legend(handles=_key(families), loc="outside upper left", ncols=1 if is_narrow else 4, labelcolor=MUTED)
        _labels(figure, axes, moved, is_narrow)

    alt = f"{sentence(metric.title)} against multiply-adds for an answer. " + "; ".join(
        f"{family.row.label}: " + ", ".join(_said(answer, metric) for answer in family.answers) for family in families
    )
    return draw("exits", alt, paint, wide=(900, 440), narrow=(360, 440 + 18 * len(families)))


def families_of(entries: Sequence[Row]) -> list[Family]:
    """Return the rows with members of known cost, each with its deployed network if the cost of that is known too."""
    looks = cycle(LOOKS)
    found = []
    for row in entries:
        members = [
            Answer(member.name, member.multiply_adds, score, member.name.startswith("exit"))
            for member in row.members
            if member.multiply_adds and (score := member.best.get(row.measured.score))
        ]
        if not members or not row.score:
            continue
        if row.multiply_adds:
            # The deployed network is the end of the trunk that the exits leave.
            has_exits = any(answer.is_exit for answer in members)
            members.insert(0, Answer(row.label, row.multiply_adds, row.score, has_exits))
        found.append(Family(row, tuple(sorted(members, key=lambda answer: answer.cost)), *next(looks)))
    return found


def placed(families: Sequence[Family], apart: float) -> tuple[list[Family], tuple[float, float]]:
    """Return the families with points of the same cost moved apart, and the ends of the axis.

    Args:
        families: What is shown.
        apart: How far such neighbours stand from one another, as a share of the axis.
    """
    costs = [answer.cost for family in families for answer in family.answers]
    low, high = min(costs), max(costs)
    # Room is a factor on a logarithmic axis.
    room = max(2.0, (high / low) ** 0.12)
    low, high = low / room, high * room
    step = (high / low) ** apart
    moved = []
    for index, family in enumerate(families):
        answers = []
        for place, answer in enumerate(family.answers):
            # All points of about this cost, in one order: each has its place in a row around the cost.
            others = [
                (i, p)
                for i, other in enumerate(families)
                for p, found in enumerate(other.answers)
                if 1 / SAME < found.cost / answer.cost < SAME
            ]
            shift = others.index((index, place)) - (len(others) - 1) / 2
            answers.append(replace(answer, cost=answer.cost * step**shift))
        moved.append(replace(family, answers=tuple(answers)))
    return moved, (low, high)


def _draw(axes: Axes, family: Family) -> None:
    scale = family.row.measured.metric.scale
    # Only exits are joined: they lie on one trunk, and peers do not.
    chain = [answer for answer in family.answers if answer.is_exit]
    line = ([answer.cost for answer in chain], [scale * answer.score.mean for answer in chain])
    axes.plot(*line, color=family.colour, linewidth=1.5)
    for answer in family.answers:
        std = answer.score.std
        axes.errorbar(
            [answer.cost],
            [scale * answer.score.mean],
            yerr=None if std is None else [scale * std],
            fmt=family.shape,
            color=family.colour,
            markeredgecolor=PAPER,
            markeredgewidth=0.8,
            markersize=8.5,
            elinewidth=1.2,
        )


def _frame(axes: Axes, ends: tuple[float, float], most: float) -> None:
    """Set the scale. Where its ends are at most so many times apart, there are marks within the decades too."""
    low, high = ends
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    # More marks would overlap on a long scale.
    steps = (1, 2, 5) if high / low <= most else (1,)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.margins(y=0.12)
    ticks = [tick for power in decades for step in steps if low <= (tick := step * 10.0**power) <= high]
    axes.set_xticks(ticks, [count(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("multiply-adds for an answer")


def _labels(figure: Figure, axes: Axes, families: Sequence[Family], is_narrow: bool) -> None:
    scale = families[0].row.measured.metric.scale
    answers = [answer for family in families for answer in family.answers]
    label_points(
        figure,
        axes,
        [(answer.cost, scale * answer.score.mean) for answer in answers],
        [shortened(answer.name, LETTERS) for answer in answers],
        [INK] * len(answers),
        reach=[scale * (answer.score.std or 0.0) for answer in answers],
        size=10 if is_narrow else 11.5,
        avoid=[place for family in families for place in _along(family)],
    )


def _along(family: Family, steps: int = 40) -> list[tuple[float, float]]:
    """Return places along the line that joins the exits, which is straight on the logarithmic scale."""
    scale = family.row.measured.metric.scale
    chain = [answer for answer in family.answers if answer.is_exit]
    return [
        (start.cost * (end.cost / start.cost) ** share, scale * (start.score.mean + share * rise))
        for start, end in pairwise(chain)
        for rise in [end.score.mean - start.score.mean]
        for share in (step / steps for step in range(1, steps))
    ]


def _key(families: Sequence[Family]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            color=family.colour,
            marker=family.shape,
            linestyle="-" if sum(answer.is_exit for answer in family.answers) > 1 else "",
            label=shortened(family.row.label, 2 * LETTERS),
        )
        for family in families
    ]


def _said(answer: Answer, metric: Metric) -> str:
    return f"{answer.name} {with_unit(estimate(answer.score, metric), metric)} for {count(answer.cost)}"
