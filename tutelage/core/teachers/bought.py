"""Answers that somebody gave or sold, in a file: `file:answers.parquet`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.core.teachers.naming import TeacherKind
from tutelage.core.teachers.replies import Answers, logits_of
from tutelage.core.teachers.table import TableTeacher
from tutelage.core.teachers.teacher import Teacher
from tutelage.data.dataset import Data
from tutelage.data.decode import read_image, to_pixels
from tutelage.data.samples import Samples
from tutelage.errors import UserError

PREFIX = "file"
# The columns that hold an answer, and what it is. The first that is there counts.
COLUMNS: Mapping[str, Answers] = MappingProxyType(
    {"logits": "logits", "probabilities": "probabilities", "label": "labels"}
)
KEYS = ("image", "file_name", "row")
# How many training samples are read at once.
_CHUNK = 1024
_NAMED = 5


class BoughtTeacher(TableTeacher):
    """Answers from a table, one for each training image, matched by the image itself or by its row.

    Args:
        file: A Parquet or CSV file. Its column `logits`, `probabilities` or `label` (a number or the class's name)
            holds the answers. Its column `image` holds the images, `file_name` their paths beside the file, or `row`
            their positions among the training samples.

    Raises:
        UserError: If the file cannot be read, or lacks these columns.
    """

    def __init__(self, file: str | Path) -> None:
        super().__init__(torch.zeros(0, 0))
        self._file, self._rows = Path(file).expanduser(), _read(Path(file).expanduser())

    def settle(self, data: Data, *, trust_code: bool = False) -> tuple[Data, tuple[str, ...]]:
        """Match the answers with the training samples, and return the data unchanged.

        Raises:
            UserError: If a training sample has no answer, or two different ones.
        """
        data, notes = super().settle(data, trust_code=trust_code)
        kind, answers = self._answers(data)
        places = _positions(self._rows, data, self._file)
        same = _ambiguous(places, answers)
        if same is not None:
            raise UserError(f"{self._file} has two different answers for one image, in rows {same[0]} and {same[1]}.")
        table = [places.found.get(key) for key in places.wanted]
        missing = [number for number, place in enumerate(table) if place is None]
        if missing:
            raise UserError(
                f"{self._file} has no answer for {len(missing)} of the {len(table)} training samples, such as numbers "
                f"{', '.join(map(str, missing[:_NAMED]))}: add them, or train on the others alone. Images are matched "
                "by their pixels as they are read for training."
            )
        rows = np.stack([answers[place] for place in table if place is not None])
        classes = rows.shape[1] if kind != "labels" else data.num_classes
        self.logits = logits_of(kind, rows, classes)
        spare = len(set(places.found)) - len(set(places.wanted))
        unused = f"; {spare} of its images are not among them" if spare > 0 else ""
        told = f"The teacher's {kind} for {len(table)} training samples come from {self._file}{unused}."
        return data, (*notes, told)

    def _answers(self, data: Data) -> tuple[Answers, NDArray[Any]]:
        """Return what the answers are, and the answers, `[row, number]`."""
        column, kind = next((column, kind) for column, kind in COLUMNS.items() if column in self._rows)
        given = self._rows[column]
        empty = [row for row, one in enumerate(given) if one is None]
        if empty:
            raise UserError(f"Rows {', '.join(map(str, empty[:_NAMED]))} of {self._file} have no {column}: fill them.")
        if kind == "labels":
            given = [[_number(one, data.class_names, self._file)] for one in given]
        if len({len(one) for one in given}) > 1:
            raise UserError(f"The {column} of {self._file} have different lengths: one number for each class.")
        found = np.asarray(given, dtype=np.float32)
        if not np.isfinite(found).all():
            raise UserError(f"The {column} of {self._file} hold NaN or infinite numbers.")
        return kind, found


class Positions:
    """Which answer belongs to which training sample.

    Args:
        rows: A key for each row of answers.
        wanted: A key for each training sample.

    Attributes:
        rows: As above.
        wanted: As above.
        found: The first row of each key.
    """

    def __init__(self, rows: Sequence[object], wanted: Sequence[object]) -> None:
        self.rows, self.wanted = rows, wanted
        self.found = {key: place for place, key in reversed(list(enumerate(rows)))}


def _ambiguous(places: Positions, answers: NDArray[Any]) -> tuple[int, int] | None:
    """Return two rows with one key and different answers; None if there are none."""
    pairs = ((places.found[key], place) for place, key in enumerate(places.rows))
    return next(((one, other) for one, other in pairs if not np.array_equal(answers[one], answers[other])), None)


def _positions(rows: Mapping[str, list[Any]], data: Data, file: Path) -> Positions:
    key = next(key for key in KEYS if key in rows)
    count = data.count("train")
    if key == "row":
        if sorted(rows[key]) != list(range(count)):
            raise UserError(
                f"The rows of {file} must be the numbers 0 to {count - 1} of the {count} training samples, each once. "
                "Where some are held out (--validation), the numbers are of what is left: match by image or file_name."
            )
        return Positions(rows[key], range(count))
    samples = data.train
    if not isinstance(samples, Samples) or not data.image_size:
        raise UserError(
            f"{file} is matched by images, and {data.name} are none that could be read twice: match by row."
        )
    return Positions(list(_of_cells(rows[key], key, data, file)), list(_of_samples(samples, file)))


def _of_samples(samples: Samples, file: Path) -> Iterator[bytes]:
    for start in range(0, len(samples), _CHUNK):
        places = range(start, min(start + _CHUNK, len(samples)))
        images, _ = samples.read_batch(torch.tensor(places) if samples.is_resident else list(places))
        if images.dtype != torch.uint8:
            raise UserError(f"{file} is matched by pixels, and these images are {images.dtype}: match by row.")
        yield from (hashlib.sha256(image.tobytes()).digest() for image in images.cpu().contiguous().numpy())


def _of_cells(cells: Sequence[Any], key: str, data: Data, file: Path) -> Iterator[bytes]:
    height, width = data.image_size
    for number, cell in enumerate(cells):
        given = {"path": str(file.parent / cell)} if key == "file_name" else cell
        # A column of images may hold the bytes alone.
        given = {"bytes": given} if isinstance(given, bytes) else given
        image = read_image(given, f"row {number} of {file}")
        pixels = to_pixels(image, channels=data.in_channels, size=(height, width))
        yield hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()


def _number(label: Any, names: Sequence[str], file: Path) -> int:
    if isinstance(label, str):
        if label not in names:
            raise UserError(f"{file} holds the label {label!r}, which is no class of the data: {', '.join(names[:9])}.")
        return names.index(label)
    return int(label)


def _read(file: Path) -> dict[str, list[Any]]:
    import pyarrow as arrow
    from pyarrow import csv, parquet

    readers: dict[str, Callable[[Path], Any]] = {".parquet": parquet.read_table, ".csv": csv.read_csv}
    if file.suffix not in readers:
        raise UserError(f"Answers are read from Parquet or CSV, and {file} is neither: name it .parquet or .csv.")
    try:
        table: dict[str, list[Any]] = readers[file.suffix](file).to_pydict()
    except (OSError, arrow.ArrowException) as error:
        raise UserError(f"The answers in {file} cannot be read: {error}.") from error
    for kind, known in (("answers", [*COLUMNS]), ("which image it is", [*KEYS])):
        if not any(column in table for column in known):
            raise UserError(
                f"{file} has the columns {', '.join(table)}, and none of {', '.join(known)}, which say {kind}."
            )
    return table


class Bought(TeacherKind):
    """Files of answers as teachers."""

    prefix = PREFIX

    def teacher(self, source: object) -> Teacher | None:
        """Return the teacher of a file.

        Raises:
            UserError: If it cannot be read.
        """
        if not isinstance(source, str) or not source.startswith(f"{PREFIX}:"):
            return None
        return BoughtTeacher(source.removeprefix(f"{PREFIX}:").strip())


BOUGHT = Bought()
