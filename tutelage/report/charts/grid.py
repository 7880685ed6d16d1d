"""A grid of small pictures with headings, as one SVG."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from markupsafe import Markup, escape
from PIL import Image

from tutelage.report.wording import shortened

WIDE = 900
GAP = 6
LETTER = 7.2
"""The width of a letter at the size of the text."""
TEXT = 12.5
_HEAD = 24


@dataclass(frozen=True)
class Line:
    """A line of pictures.

    Attributes:
        cells: Addresses of images, one for each column; an empty one leaves its place free.
        aspect: Height divided by width.
    """

    cells: Sequence[str]
    aspect: float


def grid(titles: Sequence[str], lines: Sequence[Line]) -> tuple[list[Markup], float]:
    """Return the parts of an SVG that has a heading for each column and the pictures below it, and where they end.

    Args:
        titles: The headings.
        lines: The pictures.
    """
    width = (WIDE - GAP * (len(titles) - 1)) / len(titles)
    parts, top = [_heading(title, index * (width + GAP), width) for index, title in enumerate(titles)], float(_HEAD)
    for line in lines:
        height = width * line.aspect
        for index, address in enumerate(line.cells):
            if address:
                parts.append(picture(address, (index * (width + GAP), top), (width, height)))
        top += height + GAP
    return parts, top


def picture(address: str, corner: tuple[float, float], size: tuple[float, float]) -> Markup:
    """Return an image at a place.

    Args:
        address: Its address.
        corner: Its left and its top.
        size: Width and height.
    """
    place = 'x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"'.format(*corner, *size)
    # The page brightens pictures of charts in the dark, which would change the colours that the legend explains.
    return Markup(f'<image {place} preserveAspectRatio="none" style="filter:none" href="{escape(address)}"/>')


def label(text: str, left: float, baseline: float, anchor: str = "start") -> Markup:
    """Return a text at a place."""
    return Markup('<text x="{}" y="{}" font-size="{}" text-anchor="{}" fill="var(--ink)">{}</text>').format(
        f"{left:.1f}", f"{baseline:.1f}", TEXT, anchor, text
    )


def svg(parts: Sequence[Markup], height: float, alt: str) -> Markup:
    """Return an SVG of these parts, as wide as a page."""
    head = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}" style="max-width:{}px">').format(
        alt, WIDE, f"{height:.0f}", WIDE
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def jpeg_address(encoded: object) -> str:
    """Return the address of a JPEG in base64; empty if there is none."""
    return f"data:image/jpeg;base64,{encoded}" if isinstance(encoded, str) else ""


def png_address(image: Image.Image) -> str:
    """Return an image as the address of a PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def aspect_of(png: Any) -> float:
    """Return height divided by width of a PNG in base64; that of most photographs if there is none."""
    if not isinstance(png, str):
        return 0.75
    width, height = Image.open(BytesIO(base64.b64decode(png))).size
    return height / width


def _heading(title: str, left: float, width: float) -> Markup:
    return label(shortened(title, max(6, int(width / LETTER))), left, 15)
