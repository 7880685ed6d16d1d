"""Turning a matplotlib figure into inline SVG that follows the colours and the width of the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Colours that stand for the page's own: the SVG writer knows no CSS variables, so they are swapped in afterwards.
INK, MUTED, GRID, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"

# Okabe and Ito's palette without its black and yellow, which vanish on a dark or a light page.
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7"
PAGE_COLOURS = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--card",
    BLUE: "--blue",
    VERMILLION: "--vermillion",
}

STYLE: Any = {
    # Text stays text: the browser draws it, and readers can search it.
    "svg.fonttype": "none",
    # A dollar sign in a label begins no formula.
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": "DejaVu Sans",
    "font.size": 12.5,
    "axes.titlesize": 12.5,
    "axes.labelsize": 12.5,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "legend.handletextpad": 0.3,
    "legend.columnspacing": 1.6,
    "legend.borderaxespad": 0.2,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    # The page's own background shows through.
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}

Size = tuple[int, int]


@dataclass(frozen=True)
class Chart:
    """A chart for wide and for narrow screens; the page shows one of the two."""

    alt: str
    wide: Markup
    narrow: Markup | None = None


def draw(
    name: str, alt: str, paint: Callable[[Figure, bool], None], *, wide: Size, narrow: Size | None = None
) -> Chart:
    """Paint a chart once for wide and, where asked for, once for narrow screens.

    Args:
        name: A name that no other chart of the page has; it keeps the ids of the SVGs apart.
        alt: What the chart shows, for readers who cannot see it.
        paint: Draws on a figure; its second argument says whether the figure is the narrow one.
        wide: Width and height in CSS pixels.
        narrow: The same for the narrow version; without it the wide one is used everywhere.
    """
    large = _svg(f"{name}-w", alt, paint, wide, False)
    return Chart(alt, large, _svg(f"{name}-n", alt, paint, narrow, True) if narrow else None)


def single(figure: Figure, **options: Any) -> Axes:
    """Return the only axes of a figure, without the ticks' own lines."""
    axes: Axes = figure.add_subplot(**options)
    axes.tick_params(length=0, pad=6)
    return axes


def spread(wanted: list[float], gap: float) -> list[float]:
    """Return positions near the wanted ones that keep a gap between neighbours, for labels that must not overlap."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    clusters: list[list[int]] = []
    for index in order:
        # Labels that would touch form a cluster, which is centred where its members want to be on average.
        clusters.append([index])
        while len(clusters) > 1 and _start(clusters[-1], wanted, gap) - _end(clusters[-2], wanted, gap) < gap:
            last = clusters.pop()
            clusters[-1] += last
    placed = list(wanted)
    for cluster in clusters:
        for place, index in enumerate(cluster):
            placed[index] = _start(cluster, wanted, gap) + place * gap
    return placed


def _start(cluster: list[int], wanted: list[float], gap: float) -> float:
    return sum(wanted[index] for index in cluster) / len(cluster) - gap * (len(cluster) - 1) / 2


def _end(cluster: list[int], wanted: list[float], gap: float) -> float:
    return _start(cluster, wanted, gap) + gap * (len(cluster) - 1)


def _svg(name: str, alt: str, paint: Callable[[Figure, bool], None], size: Size, is_narrow: bool) -> Markup:
    width, height = size
    buffer = io.StringIO()
    # The ids in the SVG follow from the name rather than from chance: one comparison always makes the same page.
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser picks the font, so it does not matter which glyphs matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # At 72 dots per inch a unit of the SVG is a CSS pixel. Without pyplot, which would keep every figure in memory.
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure, is_narrow)
        # None leaves a fact out of the file: with a date, two pages of one comparison would differ.
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Markup(_inline(buffer.getvalue(), name, alt, size))


def _inline(svg: str, name: str, alt: str, size: Size) -> str:
    # Without the head of an XML file, and without the SVG's own tag, which is written anew below.
    body = svg[svg.index("<svg") :]
    body = body[body.index(">") + 1 :]
    # All charts of a page share one space of ids: those that something refers to get the chart's name, the others go.
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="(#?)', lambda m: f'href="#{name}-' if m[1] else 'href="', body)
    for colour, variable in PAGE_COLOURS.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(r">\s+<", "><", body)
    width, height = size
    head = f'<svg class="chart" role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {height}"'
    return f'{head} style="max-width:{width}px">{body.strip()}'
