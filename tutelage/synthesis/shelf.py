"""The folder of a synthesis: batches in work, finished batches, and the dataset that they become."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tutelage.errors import UserError
from tutelage.synthesis.header import Header
from tutelage.synthesis.optimizing import State
from tutelage.system.files import atomic

# Hidden, so that no reader of data takes a part of the images for all of them.
_UNFINISHED, _FINISHED = ".unfinished", "data"
_ABOUT = b"tutelage"
# The size of a contact sheet.
_COLUMNS, _ROWS = 12, 20
_OPTIMIZER, _SNAPSHOT = "optimizer.", "snapshot."


@dataclass(frozen=True)
class Shelf:
    """A folder of synthesised images.

    Attributes:
        folder: The folder.
        header: What the images are made from.
    """

    folder: Path
    header: Header

    @property
    def is_finished(self) -> bool:
        """Whether all batches are done and the dataset can be read."""
        return (self.folder / _FINISHED).is_dir()

    def has(self, batch: int) -> bool:
        """Return whether a batch is done."""
        return self._place(batch).exists()

    def missing(self) -> list[int]:
        """Return the numbers of the batches that are not done."""
        return [] if self.is_finished else [batch for batch in range(self.header.batches) if not self.has(batch)]

    def put(self, batch: int, images: Tensor, labels: Tensor, curve: Sequence[dict[str, float]]) -> None:
        """Store a batch that is done.

        Args:
            batch: Its number.
            images: uint8 `[image, channel, height, width]`.
            labels: `[image]`.
            curve: Its losses over the iterations.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = list(self.header.class_names)
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        about = {"fingerprint": self.header.fingerprint, "curve": list(curve)}
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        table = pa.table(
            {
                "image": pa.array(
                    [{"bytes": _png(image), "path": None} for image in images],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                ),
                "label": pa.array(labels.tolist(), pa.int64()),
            }
        ).replace_schema_metadata(metadata | {_ABOUT: json.dumps(about).encode()})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        with atomic(self._place(batch)) as file:
            file.write(buffer.getvalue())

    def publish(self) -> None:
        """Give the dataset its name, once all batches are there."""
        # One rename, so that no reader ever sees a part. Another process may have been first.
        with suppress(FileNotFoundError, OSError):
            os.rename(self.folder / _UNFINISHED, self.folder / _FINISHED)  # noqa: PTH104
        assert self.is_finished

    def save_state(self, batch: int, state: State) -> None:
        """Store how far a batch has come."""
        tensors = {
            "images": state.images,
            **{_OPTIMIZER + name: value for name, value in state.optimizer.items()},
            **{f"{_SNAPSHOT}{number}": images for number, images in state.snapshots.items()},
        }
        about = {
            "iteration": str(state.iteration),
            "curve": json.dumps(state.curve),
            "fingerprint": self.header.fingerprint,
        }
        with atomic(self._state(batch)) as file:
            file.write(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, about))

    def load_state(self, batch: int) -> State | None:
        """Return how far a batch has come; None if it was not begun, or what was kept is not usable."""
        place = self._state(batch)
        if not place.exists():
            return None
        try:
            with safe_open(place, "pt") as opened:
                about: dict[str, str] = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):
            return None
        if about.get("fingerprint") != self.header.fingerprint:
            return None
        return State(
            images=tensors["images"],
            optimizer=_named(tensors, _OPTIMIZER),
            iteration=int(about["iteration"]),
            curve=json.loads(about["curve"]),
            snapshots={int(name): value for name, value in _named(tensors, _SNAPSHOT).items()},
        )

    def drop_state(self, batch: int) -> None:
        """Delete what was kept of a batch in work."""
        self._state(batch).unlink(missing_ok=True)

    def read(self, batch: int) -> tuple[Tensor, list[int], list[dict[str, float]]]:
        """Return the images, the labels and the curve of a batch that is done.

        Raises:
            UserError: If its file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(self._place(batch))
            about: Any = json.loads((table.schema.metadata or {})[_ABOUT])
            cells = table["image"].to_pylist()
            images = torch.stack([_tensor(cell["bytes"], self.header.channels) for cell in cells])
            return images, table["label"].to_pylist(), about["curve"]
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            raise UserError(
                f"{self._place(batch)} is damaged ({error}): delete the file, and move the folder "
                f"{self.folder / _FINISHED} back to {self.folder / _UNFINISHED}; the same command then makes it again."
            ) from error

    def curves(self) -> list[list[dict[str, float]]]:
        """Return the losses of each batch over the iterations; empty lists where nothing was optimised."""
        return [self.read(batch)[2] for batch in range(self.header.batches)]

    def preview(self) -> list[tuple[str, list[NDArray[np.uint8]]]]:
        """Return rows of images, each with the name of their class: the first few of the first batches."""
        names, rows = self.header.class_names, dict[int, list[NDArray[np.uint8]]]()
        for batch in range(self.header.batches):
            images, labels, _ = self.read(batch)
            for image, label in zip(images, labels, strict=True):
                row = rows.setdefault(label, [])
                if len(row) < _COLUMNS:
                    row.append(image.numpy())
            # Large sets are not read to the end for a picture.
            if all(len(row) == _COLUMNS for row in rows.values()):
                break
        shown = sorted(rows)[:_ROWS]
        return [(names[label], rows[label]) for label in shown]

    def _place(self, batch: int) -> Path:
        name = f"train-{batch:05d}-of-{self.header.batches:05d}.parquet"
        done = self.folder / _FINISHED / name
        return done if done.exists() else self.folder / _UNFINISHED / name

    def _state(self, batch: int) -> Path:
        return self.folder / f".batch-{batch:05d}.safetensors"


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _png(image: Tensor) -> bytes:
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _tensor(png: bytes, channels: int) -> Tensor:
    image = Image.open(io.BytesIO(png)).convert("L" if channels == 1 else "RGB")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, channels).permute(2, 0, 1)
