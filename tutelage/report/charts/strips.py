"""Strips of images: each row an image beside its true map and what networks answered, with a legend of the classes."""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from markupsafe import Markup, escape
from PIL import Image

from tutelage.report.charts.canvas import Chart
from tutelage.report.wording import shortened

# Distinct colours, those of large and common things first; classes after them get hues of their own.
_COLOURS = (
    "#5b8ff9", "#a8452c", "#e8c547", "#6f4e9c", "#d98cb3", "#3c8d40", "#f4772e", "#7a6a53", "#1d6fb8", "#d92f4b",
    "#35b6a5", "#9aa0a6", "#b5cf6b", "#8c6d31", "#e7969c", "#17becf", "#7b4173", "#637939", "#bd9e39", "#393b79",
)  # fmt: skip
_NONE = "#202020"
_NOTHING = 255
_GOLDEN = 0.618034
_WIDE, _GAP, _HEAD, _LINE = 900, 6, 24, 22
_LETTER, _CHIP = 7.2, 26
MOST_NETWORKS = 5


@dataclass(frozen=True)
class Column:
    """A column of maps.

    Attributes:
        title: Its heading.
        maps: PNG files in base64 by the position of the sample.
    """

    title: str
    maps: Mapping[str, Any]


def strip_chart(samples: Sequence[Mapping[str, Any]], columns: Sequence[Column], names: Sequence[str]) -> Chart | None:
    """Return the strip; None without samples that any column shows.

    Args:
        samples: Position, image and true map of each sample.
        columns: What the networks answered.
        names: One name for each class.
    """
    columns = [column for column in columns if column.maps][:MOST_NETWORKS]
    shown = [one for one in samples if any(str(one.get("position")) in column.maps for column in columns)]
    if not shown:
        return None
    titles = ["image", "truth", *(column.title for column in columns)]
    width = (_WIDE - _GAP * (len(titles) - 1)) / len(titles)
    parts, top = [_heading(title, index * (width + _GAP), width) for index, title in enumerate(titles)], float(_HEAD)
    for one in shown:
        cells = [_jpeg(one.get("image")), _map(one.get("truth"))]
        cells += [_map(column.maps.get(str(one.get("position")))) for column in columns]
        height = width * _aspect(one.get("truth"))
        for index, cell in enumerate(cells):
            if cell:
                parts.append(_cell(cell, index * (width + _GAP), top, width, height))
        top += height + _GAP
    legend, below = _legend(names, top)
    alt = f"Images beside their true classes and what {', '.join(titles[2:])} answered, in the colours of {len(names)} "
    return Chart(f"{alt}classes", _svg([*parts, *legend], below, f"{alt}classes"))


def colour_of(number: int) -> str:
    """Return the colour of a class."""
    if number < len(_COLOURS):
        return _COLOURS[number]
    red, green, blue = colorsys.hsv_to_rgb((number * _GOLDEN) % 1, 0.65, 0.85)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _map(png: object) -> str:
    """Return a map of class numbers as a PNG in colours, as the address of an image; empty if there is none."""
    if not isinstance(png, str):
        return ""
    image = Image.open(BytesIO(base64.b64decode(png))).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    palette = [colour_of(number) for number in range(_NOTHING)] + [_NONE]
    image.putpalette(bytes.fromhex("".join(colour.removeprefix("#") for colour in palette)))
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _jpeg(encoded: object) -> str:
    return f"data:image/jpeg;base64,{encoded}" if isinstance(encoded, str) else ""


def _aspect(png: object) -> float:
    if not isinstance(png, str):
        return 0.75
    width, height = Image.open(BytesIO(base64.b64decode(png))).size
    return height / width


def _heading(title: str, left: float, width: float) -> Markup:
    text = shortened(title, max(6, int(width / _LETTER)))
    return Markup('<text x="{}" y="15" font-size="12.5" fill="var(--ink)">{}</text>').format(f"{left:.1f}", text)


def _cell(address: str, left: float, top: float, width: float, height: float) -> Markup:
    place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'
    # The page brightens pictures of charts in the dark, which would change the colours of the classes.
    return Markup(f'<image {place} preserveAspectRatio="none" style="filter:none" href="{escape(address)}"/>')


def _legend(names: Sequence[str], top: float) -> tuple[list[Markup], float]:
    """Return the names of the classes beside their colours, in lines, and where they end."""
    parts, left, top = [], 0.0, top + 8
    for number, name in enumerate([*names, "no class"]):
        room = _CHIP + _LETTER * len(name)
        if left + room > _WIDE and left:
            left, top = 0.0, top + _LINE
        colour = colour_of(number) if number < len(names) else _NONE
        parts.append(
            Markup(
                '<rect x="{}" y="{}" width="12" height="12" rx="2" fill="{}"/>'
                '<text x="{}" y="{}" font-size="12.5" fill="var(--ink)">{}</text>'
            ).format(f"{left:.1f}", f"{top:.1f}", colour, f"{left + 17:.1f}", f"{top + 10.5:.1f}", name)
        )
        left += room
    return parts, top + _LINE


def _svg(parts: Sequence[Markup], height: float, alt: str) -> Markup:
    head = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}" style="max-width:{}px">').format(
        alt, _WIDE, f"{height:.0f}", _WIDE
    )
    return head + Markup("").join(parts) + Markup("</svg>")
