"""The curves inside a row: the deployed network's beside those of its peers, its exits and their ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

from matplotlib.figure import Figure

from tutelage.report.charts.canvas import BLUE, INK, MUTED, Chart, draw, single
from tutelage.report.charts.learning import LINES, Curve, curve, end_labels, limits, stroke, summary
from tutelage.report.rows import Row, reference_of
from tutelage.report.wording import sentence, shortened

LETTERS = 18
# The height in pixels that a label takes, and that the epochs below the axes take.
LABEL, EPOCHS = 17, 50


def family_charts(entries: Sequence[Row]) -> list[tuple[str, Chart]]:
    """Return a chart for every row with curves of its members, with the row's label."""
    found = []
    for index, row in enumerate(entries):
        members = [line for member in row.members if (line := curve(row, member.name))]
        if members:
            found.append((row.label, _panel(index, row, members, reference_of(row, entries))))
    return found


def _panel(index: int, row: Row, members: Sequence[Curve], reference: Row | None) -> Chart:
    deployed, baseline = curve(row), curve(reference) if reference else None
    lines = [(line, colour, style, 1.3) for line, (colour, style) in zip(members, _looks(len(members)), strict=True)]
    if baseline:
        # What is drawn first lies beneath: the baseline at the bottom, the deployed network on top.
        lines.insert(0, (replace(baseline, label="baseline"), MUTED, (0, (2, 2)), 1.3))
    if deployed:
        lines.append((replace(deployed, label=row.deployed or "deployed"), INK, "-", 2.1))
    curves = [line for line, *_ in lines]
    # High enough for all the labels at the ends.
    height = max(250, EPOCHS + (LABEL + 2) * len(curves))

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for line, colour, style, width in lines:
            stroke(axes, line, colour, style, width)
        axes.set_ylim(*limits(curves))
        axes.set_xlabel("epoch")
        shown = [replace(line, label=shortened(line.label, LETTERS)) for line in curves]
        end_labels(axes, shown, [colour for _, colour, *_ in lines], share=LABEL / (height - EPOCHS))

    # The deployed network is named first.
    said = "; ".join(summary(line) for line in reversed(curves))
    alt = f"{sentence(row.measured.choosing_title)} over epochs, the networks of {row.label}. {said}"
    return draw(f"family{index}", alt, paint, wide=(480, height), narrow=(360, height))


def _looks(amount: int) -> list[tuple[str, object]]:
    """Return a colour and a dash for every member, the same for the same place in every row."""
    return list(islice(cycle([(BLUE, "-"), *LINES[1:]]), amount))
