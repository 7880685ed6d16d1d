"""Answers in files: a table in CSV, TSV or Parquet, or a folder of pictures. Each is written whole or not at all."""

from __future__ import annotations

import colorsys
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tutelage.errors import UserError
from tutelage.system.files import atomic, whole

TABLES = (".csv", ".tsv", ".parquet")
CLASSES = "classes.txt"
PREDICTION = "prediction"

Columns = Mapping[str, NDArray[Any]]


def check_target(out: Path, *, is_table: bool, overwrite: bool) -> None:
    """Refuse a place for answers that cannot be written, before any network is asked.

    Args:
        out: The file or the folder.
        is_table: Whether the answers are a table, or pictures in a folder.
        overwrite: Whether what is there may be replaced.

    Raises:
        UserError: If it has the wrong ending, or something is there that may not be replaced.
    """
    if is_table and out.suffix.lower() not in TABLES:
        raise UserError(
            f"The answers are a table, and {out.name} has none of the endings {', '.join(TABLES)}: name a file of one "
            "of these kinds."
        )
    if is_table and out.is_dir():
        raise UserError(f"{out} is a folder, and the answers are a table: name a file, such as {out / 'answers.csv'}.")
    if not is_table and out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, and the answers are pictures: name a folder for them.")
    is_free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not is_free and not overwrite:
        raise UserError(f"{out} is there already: choose another --out (out=), or add --overwrite (overwrite=True).")
    if not is_free and not is_table and not (out / CLASSES).is_file():
        raise UserError(f"{out} holds other things than answers ({CLASSES} is missing), so it is not replaced.")


def write_table(out: Path, columns: Columns) -> None:
    """Write columns as the file's ending says: .tsv holds the names of the samples and the predictions alone.

    Args:
        out: The file.
        columns: The columns; the first one names the samples.

    Raises:
        UserError: If there is no single prediction for a .tsv file, or the file cannot be written.
    """
    suffix = out.suffix.lower()
    if suffix == ".tsv":
        if PREDICTION not in columns:
            raise UserError(f"{out} would hold one prediction for each sample, and there are several: write .csv.")
        columns = {name: columns[name] for name in (next(iter(columns)), PREDICTION)}
    with atomic(out) as file:
        if suffix == ".parquet":
            _write_parquet(file, columns)
        else:
            _write_text(file, columns, delimiter="\t" if suffix == ".tsv" else ",")


def write_maps(out: Path, maps: Iterable[tuple[str, NDArray[Any]]], *, classes: Sequence[str]) -> None:
    """Write maps as PNG files, those of 8 bits with a palette, and the names of the numbers beside them.

    Args:
        out: The folder. What it held is replaced.
        maps: The name of each file below the folder, and its map of whole numbers, `[height, width]`.
        classes: The name of each number.

    Raises:
        UserError: If the folder cannot be written.
    """
    with whole(out) as scratch:
        scratch.mkdir()
        colours = _palette(len(classes))
        for name, values in maps:
            file = scratch / name
            file.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(values)
            if values.dtype == np.uint8:
                image.putpalette(colours)
            image.save(file)
        (scratch / CLASSES).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def picture_names(names: Sequence[str | int]) -> list[str]:
    """Return a name of a PNG file for each sample: its own with another ending, or its number with leading zeros."""
    digits = len(str(max(len(names) - 1, 0)))
    texts = [f"{name:0{digits}d}" if isinstance(name, int) else name for name in names]
    short = [str(Path(text).with_suffix(".png")) for text in texts]
    # Two images that differ only in their ending keep it.
    return short if len(set(short)) == len(short) else [f"{text}.png" for text in texts]


def _write_parquet(file: IO[bytes], columns: Columns) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), file)


def _write_text(file: IO[bytes], columns: Columns, *, delimiter: str) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    # Eight digits tell any two numbers of 32 bits apart that matter, and are read by people.
    rendered = [
        [f"{value:.8g}" for value in values.tolist()] if values.dtype.kind == "f" else values.tolist()
        for values in columns.values()
    ]
    writer.writerows(zip(*rendered, strict=True))
    # Not closed with the wrapper: the file is still to be named.
    text.flush()
    text.detach()


def _palette(classes: int) -> list[int]:
    """Return red, green and blue of each class: black, then hues far from those before them."""
    found = [0, 0, 0]
    for number in range(1, min(classes, 256)):
        # The golden ratio leaves no two hues near each other.
        hue = number * 0.61803398875 % 1.0
        found += [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.65, 0.95)]
    return found


def joined(parts: Sequence[tuple[Sequence[int], Columns]]) -> dict[str, NDArray[Any]]:
    """Return the columns of batches as whole columns, in the order of the samples.

    Args:
        parts: The positions of a batch's samples, and the columns of its answers.
    """
    if not parts:
        return {}
    order = np.argsort(np.concatenate([np.asarray(positions, dtype=np.int64) for positions, _ in parts]))
    return {name: np.concatenate([columns[name] for _, columns in parts])[order] for name in parts[0][1]}
