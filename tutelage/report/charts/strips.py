"""Strips of images: each row an image beside its true map and what networks answered, with a legend of the classes."""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from markupsafe import Markup
from PIL import Image

from tutelage.report.charts.canvas import Chart
from tutelage.report.charts.grid import LETTER, WIDE, Line, aspect_of, grid, jpeg_address, label, png_address, svg

# Distinct colours, those of large and common things first; classes after them get hues of their own.
_COLOURS = (
    "#5b8ff9", "#a8452c", "#e8c547", "#6f4e9c", "#d98cb3", "#3c8d40", "#f4772e", "#7a6a53", "#1d6fb8", "#d92f4b",
    "#35b6a5", "#9aa0a6", "#b5cf6b", "#8c6d31", "#e7969c", "#17becf", "#7b4173", "#637939", "#bd9e39", "#393b79",
)  # fmt: skip
_NONE = "#202020"
_NOTHING = 255
_GOLDEN = 0.618034
_LINE, _CHIP = 22, 26
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
    lines = []
    for one in shown:
        cells = [jpeg_address(one.get("image")), _map(one.get("truth"))]
        cells += [_map(column.maps.get(str(one.get("position")))) for column in columns]
        lines.append(Line(cells, aspect_of(one.get("truth"))))
    parts, top = grid(titles, lines)
    legend, below = _legend(names, top)
    alt = f"Images beside their true classes and what {', '.join(titles[2:])} answered, in the colours of {len(names)} "
    return Chart(f"{alt}classes", svg([*parts, *legend], below, f"{alt}classes"))


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
    return png_address(image)


def _legend(names: Sequence[str], top: float) -> tuple[list[Markup], float]:
    """Return the names of the classes beside their colours, in lines, and where they end."""
    parts: list[Markup] = []
    left, top = 0.0, top + 8
    for number, name in enumerate([*names, "no class"]):
        room = _CHIP + LETTER * len(name)
        if left + room > WIDE and left:
            left, top = 0.0, top + _LINE
        colour = colour_of(number) if number < len(names) else _NONE
        chip = Markup('<rect x="{}" y="{}" width="12" height="12" rx="2" fill="{}"/>')
        parts += [chip.format(f"{left:.1f}", f"{top:.1f}", colour), label(name, left + 17, top + 10.5)]
        left += room
    return parts, top + _LINE
