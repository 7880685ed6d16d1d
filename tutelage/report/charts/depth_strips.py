"""Strips of depth maps: each image beside its true depths and what networks answered, and below how wrong each is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from tutelage.evaluation.depth_pictures import depths_of
from tutelage.report.charts.canvas import Chart
from tutelage.report.charts.grid import (
    Line,
    aspect_of,
    grid,
    jpeg_address,
    label,
    picture,
    png_address,
    svg,
)
from tutelage.report.charts.strips import MOST_NETWORKS, Column

# Near things are bright; in the maps of errors, what is wrong is.
_DEPTHS, _ERRORS = "viridis_r", "inferno"
_WORST = 0.3
"""The relative error of the brightest colour."""
_NONE = (110, 110, 110)
# The scale of depths leaves out the nearest and the farthest hundredth of the pixels.
_PERCENT = (1, 99)
_BAR, _BESIDE = (200, 12), 430
_MARKS = 4


def depth_strip_chart(samples: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Chart | None:
    """Return the strip; None without samples that any column shows.

    Args:
        samples: Position, image and true map of each sample.
        columns: What the networks answered.
    """
    columns = [column for column in columns if column.maps][:MOST_NETWORKS]
    shown = [one for one in samples if any(str(one.get("position")) in column.maps for column in columns)]
    truths = [found for one in shown if (found := _depths(one.get("truth"))) is not None]
    if not truths or not any(np.isfinite(truth).any() for truth in truths):
        return None
    known = np.concatenate([truth[np.isfinite(truth)] for truth in truths])
    low, high = (float(edge) for edge in np.percentile(known, _PERCENT))
    high = max(high, low + 1e-6)
    lines = [line for one in shown for line in _lines(one, columns, (low, high))]
    titles = ["image", "truth", *(column.title for column in columns)]
    parts, top = grid(titles, lines)
    legend, below = _legend(low, high, top)
    alt = (
        f"Images beside their true depths from {low:.2f} to {high:.2f} m and what {', '.join(titles[2:])} answered, "
        "and the relative error of each below it"
    )
    return Chart(alt, svg([*parts, *legend], below, alt))


def _lines(sample: Mapping[str, Any], columns: Sequence[Column], edges: tuple[float, float]) -> list[Line]:
    """Return a line of depths, and one of the errors of each network."""
    truth, aspect = _depths(sample.get("truth")), aspect_of(sample.get("truth"))
    answers = [_depths(column.maps.get(str(sample.get("position")))) for column in columns]
    low, high = edges
    depths = [_painted(found, low, high, _DEPTHS) for found in (truth, *answers)]
    errors = [_painted(_error(found, truth), 0.0, _WORST, _ERRORS) for found in answers]
    return [Line([jpeg_address(sample.get("image")), *depths], aspect), Line(["", "", *errors], aspect)]


def _depths(png: object) -> NDArray[np.float64] | None:
    return depths_of(png) if isinstance(png, str) else None


def _error(found: NDArray[np.float64] | None, truth: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Return the error of each pixel as a share of its true depth, NaN where that is not known."""
    if found is None or truth is None or found.shape != truth.shape:
        return None
    return np.abs(found - truth) / truth


def _painted(values: NDArray[np.float64] | None, low: float, high: float, colours: str) -> str:
    """Return a map of numbers in colours, as the address of an image; empty if there is none."""
    if values is None:
        return ""
    known = np.isfinite(values)
    shares = np.where(known, (values - low) / (high - low), 0.0).clip(0, 1)
    pixels = (255 * mpl.colormaps[colours](shares)[..., :3]).round().astype(np.uint8)
    pixels[~known] = _NONE
    return png_address(Image.fromarray(pixels))


def _legend(low: float, high: float, top: float) -> tuple[list[Markup], float]:
    """Return the scales of depths and of errors side by side, and where they end."""
    digits = max(0, 1 - math.floor(math.log10(high - low)))
    depths = [f"{low + (high - low) * mark / (_MARKS - 1):.{digits}f}" for mark in range(_MARKS)]
    errors = [f"{100 * _WORST * mark / (_MARKS - 1):.0f}" for mark in range(_MARKS)]
    errors[-1] += " or more"
    parts = _scale("depth, m", depths, 0.0, top + 10, _DEPTHS)
    parts += _scale("error, % of the true depth (second lines)", errors, _BESIDE, top + 10, _ERRORS)
    grey = "#{:02x}{:02x}{:02x}".format(*_NONE)
    parts += [
        Markup('<rect x="0" y="{}" width="12" height="12" rx="2" fill="{}"/>').format(f"{top + 66:.1f}", grey),
        label("no depth", 17, top + 76.5),
    ]
    return parts, top + 84


def _scale(title: str, marks: Sequence[str], left: float, top: float, colours: str) -> list[Markup]:
    width, height = _BAR
    ramp = _painted(np.linspace(0, 1, width)[None], 0.0, 1.0, colours)
    parts = [label(title, left, top + 10), picture(ramp, (left, top + 17), (width, height))]
    for place, mark in enumerate(marks):
        anchor = "start" if place == 0 else "middle"
        parts.append(label(mark, left + width * place / (len(marks) - 1), top + height + 32, anchor))
    return parts
