"""Placing labels beside the points of a scatter plot so that they cover neither points nor one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# About the width of a letter as a share of its size; which font the browser takes is not known here.
LETTER = 0.6
Box = tuple[float, float, float, float]


def label_points(
    figure: Figure,
    axes: Axes,
    places: Sequence[tuple[float, float]],
    texts: Sequence[str],
    inks: Sequence[str],
    *,
    reach: Sequence[float],
    size: float,
    avoid: Sequence[tuple[float, float]] = (),
) -> None:
    """Write a text beside every point, where there is room, with a thin line to it where the room is further off.

    Args:
        figure: The figure of the axes; it is laid out here.
        axes: Where the points were drawn; its limits must be final.
        places: The points in data coordinates.
        texts: One text per point.
        inks: One colour per text.
        reach: How far the error bar of each point extends up and down, in data coordinates.
        size: The letter size in pixels.
        avoid: Places in data coordinates, such as along a line, that labels leave free where they can.
    """
    # Axes get their final place in the figure only when it is drawn, and points their pixels with it.
    figure.draw_without_rendering()
    spots = [(float(x), float(y)) for x, y in axes.transData.transform(list(places))]
    # Pixels of one unit upwards.
    unit = float(axes.transData.transform((0, 1))[1] - axes.transData.transform((0, 0))[1])
    widths = [LETTER * size * len(text) for text in texts]
    bounds: Box = axes.get_window_extent().extents
    offsets = _places(spots, [far * unit for far in reach], widths, size, bounds, _around(axes, avoid))
    for place, text, ink, offset in zip(places, texts, inks, offsets, strict=True):
        _write(axes, text, place, offset, ink, size)


def _write(
    axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], ink: str, size: float
) -> None:
    line = {"arrowstyle": "-", "color": ink, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 5}
    axes.annotate(
        text,
        place,
        xytext=offset,
        textcoords="offset pixels",
        va="center",
        color=ink,
        fontsize=size,
        # A label right beside its point needs no line.
        arrowprops=line if offset[1] else None,
        annotation_clip=False,
        # The layout is final: a label that counted would move the axes under the points.
        in_layout=False,
    )


def _around(axes: Axes, places: Sequence[tuple[float, float]]) -> list[Box]:
    drawn = axes.transData.transform(list(places)) if places else ()
    return [(float(x) - 3, float(y) - 3, float(x) + 3, float(y) + 3) for x, y in drawn]


def _places(
    spots: Sequence[tuple[float, float]],
    reach: Sequence[float],
    widths: Sequence[float],
    size: float,
    bounds: Box,
    lines: Sequence[Box],
) -> list[tuple[float, float]]:
    """Return the offset of every label: the cheapest that the labels before it have left."""
    # What a label must not cover: markers, their error bars, and lines, each with a margin of some pixels.
    taken: list[Box] = [(x - 7, y - 7, x + 7, y + 7) for x, y in spots]
    taken += [(x - 2, y - far, x + 2, y + far) for (x, y), far in zip(spots, reach, strict=True)]
    taken += lines
    chosen = []
    for index, ((x, y), width) in enumerate(zip(spots, widths, strict=True)):
        options = [(dx, dy, _box(x + dx, y + dy, width, 1.25 * size)) for dx, dy in _offsets(width)]
        prices = [_price(option, index, spots, taken, bounds) for option in options]
        dx, dy, box = options[prices.index(min(prices))]
        taken.append(box)
        chosen.append((dx, dy))
    return chosen


def _offsets(width: float) -> list[tuple[float, float]]:
    # In pixels. Of equally good places the first is taken, so the order is one of preference.
    beside = [(11.0, 0.0), (-11.0 - width, 0.0)]
    slanted = [(dx, dy) for dy in (14.0, -14.0, 26.0, -26.0, 40.0, -40.0) for dx in (9.0, -9.0 - width, -width / 2)]
    return beside + slanted


def _box(x: float, y: float, width: float, height: float) -> Box:
    return (x, y - height / 2, x + width, y + height / 2)


def _shared(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _distance(spot: tuple[float, float], box: Box) -> float:
    dx = max(box[0] - spot[0], 0.0, spot[0] - box[2])
    dy = max(box[1] - spot[1], 0.0, spot[1] - box[3])
    return math.hypot(dx, dy)


def _price(
    option: tuple[float, float, Box], index: int, spots: Sequence[tuple[float, float]], taken: Sequence[Box], frame: Box
) -> float:
    dx, dy, box = option
    outside = (box[2] - box[0]) * (box[3] - box[1]) - _shared(box, frame)
    own = _distance(spots[index], box)
    # A label nearer to another point than to its own would be read as that point's.
    strays = sum(_distance(spot, box) <= own for k, spot in enumerate(spots) if k != index)
    return (
        10 * sum(_shared(box, other) for other in taken) + 10 * outside + 200 * strays + abs(dy) + 0.1 * abs(min(dx, 0))
    )
