"""Pictures in files of their own: sheets of images, curves of losses, bars of distances."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tutelage.report.charts.canvas import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from tutelage.report.wording import shortened
from tutelage.system.files import atomic

Pixels = NDArray[np.uint8]
_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE)
# Images smaller than this are enlarged by a whole factor, so that their pixels stay sharp.
_SIDE, _GAP, _LETTER = 64, 2, 7
_STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}


def contact_sheet(path: Path, rows: Sequence[tuple[str, Sequence[Pixels]]]) -> None:
    """Write a PNG with rows of images, each row with its name before it.

    Args:
        path: The file.
        rows: Names and images, uint8 `[channel, height, width]`.
    """
    height, width = rows[0][1][0].shape[1:]
    factor = max(1, _SIDE // max(height, width))
    height, width = height * factor, width * factor
    names = [shortened(name, 20) for name, _ in rows]
    left = _GAP + _LETTER * max(map(len, names)) + 2 * _GAP if any(names) else _GAP
    columns = max(len(images) for _, images in rows)
    sheet = Image.new("RGB", (left + columns * (width + _GAP), _GAP + len(rows) * (height + _GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (name, (_, images)) in enumerate(zip(names, rows, strict=True)):
        top = _GAP + number * (height + _GAP)
        pen.text((_GAP, top + height // 2 - 5), name, fill="black")
        for column, pixels in enumerate(images):
            sheet.paste(
                _image(pixels).resize((width, height), Image.Resampling.NEAREST), (left + column * (width + _GAP), top)
            )
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    _write(path, buffer)


def loss_curves(path: Path, curves: Sequence[Sequence[Mapping[str, float]]]) -> None:
    """Write a PNG with the losses over the iterations: one panel for each loss, one line for each batch.

    Args:
        path: The file.
        curves: For each batch its points, each a mapping of `iteration`, `loss` and the single losses.
    """
    names = [name for name in curves[0][0] if name != "iteration"]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.2 * len(names), 2.8), dpi=110, layout="constrained")
        for number, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), number + 1)
            for curve in curves:
                steps, values = zip(*((point["iteration"], point[name]) for point in curve), strict=True)
                axes.plot(steps, values, color=BLUE, linewidth=1, alpha=max(0.25, 1 / len(curves)))
            axes.set_title("sum, weighted" if name == "loss" else name)
            axes.set_xlabel("iteration")
            if all(point[name] > 0 for curve in curves for point in curve):
                axes.set_yscale("log")
        _save(figure, path)


def distances(path: Path, rows: Sequence[Mapping[str, Any]], *, unit: str) -> None:
    """Write a PNG with a bar for each row, and beside it what each layer adds.

    Args:
        path: The file.
        rows: Mappings of `name`, `divergence`, `deviation` and `layers`, the nearest first.
        unit: The unit, for the axis.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 1.6 + 0.5 * len(rows)), dpi=110, layout="constrained")
        bars, lines = figure.subplots(1, 2, width_ratios=[2, 3])
        for number, row in enumerate(rows):
            colour = _COLOURS[number % len(_COLOURS)]
            bars.barh(number, row["divergence"], xerr=row["deviation"], color=colour, height=0.6)
            layers = list(row["layers"].values())
            lines.plot(range(1, len(layers) + 1), layers, color=colour, marker=".", label=row["name"], linewidth=1.2)
        names = [f"{shortened(row['name'], 24)}  {row['divergence']:.3g}" for row in rows]
        bars.set_yticks(range(len(rows)), names)
        bars.invert_yaxis()
        bars.set_xscale("log")
        # Labels of the ticks between the powers of ten would run into each other; the values are beside the names.
        bars.xaxis.set_minor_formatter(NullFormatter())
        bars.set_xlabel(unit)
        lines.set_yscale("log")
        lines.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines.set_xlabel("layer, from the input to the last")
        lines.legend(frameon=False)
        _save(figure, path)


def _image(pixels: Pixels) -> Image.Image:
    turned = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return Image.fromarray(turned[:, :, 0] if turned.shape[2] == 1 else turned).convert("RGB")


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    # Without pyplot, which would keep every figure in memory.
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    _write(path, buffer)


def _write(path: Path, buffer: io.BytesIO) -> None:
    with atomic(path) as file:
        file.write(buffer.getvalue())
