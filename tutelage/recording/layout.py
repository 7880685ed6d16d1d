"""The layout of a recording on disk: rows, shards, files, and their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.recording.quantization import VALUES, Quantization, Values

PARAMETERS, FEATURE = "parameters", "feature:"
# A shard is filled in memory before it is written, so its size is bounded by rows and by bytes.
MOST_ROWS, MOST_BYTES = 8_192, 256 * 2**20


def row_dtype(
    *,
    parameters: int,
    keep: Quantization,
    classes: int,
    values: Values,
    layers: Mapping[str, Sequence[int]],
) -> np.dtype[Any]:
    """Return the type of a row, little-endian and without gaps. A row is what is recorded of one view of one sample.

    Args:
        parameters: How many numbers describe a view.
        keep: What is kept of an answer.
        classes: The number of classes.
        values: How logits, probabilities and features are stored.
        layers: The layers that are kept, each with its shape without the batch.

    Raises:
        UserError: If `keep` asks for more classes than there are, or `values` is not a known type.
    """
    fields: list[Any] = [(PARAMETERS, "<f4", (parameters,)), *keep.fields(classes, values)]
    fields += [(FEATURE + layer, VALUES[values], tuple(shape)) for layer, shape in layers.items()]
    return np.dtype(fields)


def total_bytes(row_bytes: int, *, samples: int, views: int) -> int:
    """Return the size of a recording's rows, in bytes. Headers and checksums add about 500 bytes a shard."""
    return row_bytes * samples * views


def rows_per_shard(row_bytes: int) -> int:
    """Return how many rows a shard has at most: 8,192, or fewer where it would exceed 256 MiB."""
    # A single row may be larger than that, and is then a shard of its own.
    return max(1, min(MOST_ROWS, MOST_BYTES // row_bytes))


def shard_count(samples: int, rows_per_shard: int) -> int:
    """Return how many shards a view has."""
    # Rounded up.
    return -(-samples // rows_per_shard)


def shard_range(samples: int, rows_per_shard: int, shard: int) -> range:
    """Return the positions of a shard's samples in the dataset.

    Args:
        samples: Samples of the dataset.
        rows_per_shard: Rows of every shard but the last, as stored in the header.
        shard: Which shard, from 0.
    """
    assert 0 <= shard < shard_count(samples, rows_per_shard)
    return range(shard * rows_per_shard, min((shard + 1) * rows_per_shard, samples))


def view_folder(folder: Path, view: int) -> Path:
    """Return where the shards of a view are; views count from 0."""
    return folder / f"view-{view:04d}"


def shard_path(folder: Path, view: int, shard: int) -> Path:
    """Return the file of a shard; views and shards count from 0."""
    return view_folder(folder, view) / f"shard-{shard:04d}.npy"


def checksum_path(shard: Path) -> Path:
    """Return the file of a shard's checksum. It is written last, so its presence says that the shard is complete."""
    return shard.with_name(f"{shard.name}.sha256")
