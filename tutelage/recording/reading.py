"""Reading a recording: the views of a batch, and what the teacher said about them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import OrderedDict
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.augment import Augmentation
from tutelage.data.batch import Output
from tutelage.data.dataset import Data
from tutelage.data.plan import RecordedViews
from tutelage.errors import UserError
from tutelage.recording import shards
from tutelage.recording.header import Header
from tutelage.recording.identity import DataIdentity
from tutelage.recording.layout import FEATURE, PARAMETERS, shard_path
from tutelage.recording.planning import in_views

PREFIX = "recording"
"""What stands before the folder of a recording where a teacher is named."""


def _most_open() -> int:
    """Return how many shards may be open at once: each holds a file open."""
    try:
        import resource
    except ImportError:  # Not a Unix.
        return 256
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Half of them, as others open files, too; and each is a mapping, of which a process may have 65,530.
    return 4096 if allowed == resource.RLIM_INFINITY else max(64, min(4096, allowed // 2))


_MOST_OPEN = _most_open()


class Recording(RecordedViews):
    """The finished views of a recording, as `RecordedViews`.

    Which views are used is settled here: those that are added later are not seen.

    Args:
        folder: Where it is.
        views: How many views to use, the first ones; None for all that are finished.

    Attributes:
        folder: Where it is.
        header: What it is of.
        note: What is left out because it is unfinished; empty if nothing is.
        layers: The recorded layers that are read.

    Raises:
        UserError: If there is no recording, no finished view, or fewer views than asked for.
    """

    def __init__(self, folder: Path | str, *, views: int | None = None) -> None:
        self.folder = Path(folder)
        self.header = Header.read(self.folder)
        self._keep, self._classes = self.header.quantization, self.header.classes
        self.layers, self._row = tuple(self.header.layers), self.header.row_dtype
        counts = {
            view: shards.complete_shards(self.folder, self.header, view) for view in shards.views_present(self.folder)
        }
        finished = [view for view, count in counts.items() if count == self.header.shards]
        self.note = "; ".join(
            f"view {view} is unfinished: {count} of {self.header.shards} shards"
            for view, count in counts.items()
            if count < self.header.shards
        )
        self._numbers = np.array(_chosen(self.folder, finished, views, self.note), dtype=np.int64)
        self._open: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._verified: set[int] = set()

    @property
    def views(self) -> int:
        """How many views of each sample are used."""
        return len(self._numbers)

    @cached_property
    def augmentation(self) -> Augmentation:
        """What the views' parameters belong to."""
        return Augmentation.parse(self.header.augmentation)

    def origin(self) -> dict[str, Any]:
        """Return the header."""
        return self.header.to_json()

    @cached_property
    def fingerprint(self) -> str:
        """Stands for the content that is used: header and checksums."""
        digest = hashlib.sha256(json.dumps(self.header.to_json(), sort_keys=True).encode())
        for view in self._numbers.tolist():
            for shard in range(self.header.shards):
                digest.update(shards.checksum(self.folder, view, shard).encode())
        return digest.hexdigest()[:16]

    def only(self, layers: Collection[str]) -> Recording:
        """Return the same recording, of which no other layers are read.

        Args:
            layers: Their names; those that were not recorded do not matter.
        """
        if set(self.layers) <= set(layers):
            return self
        twin = copy.copy(self)
        twin.layers = tuple(layer for layer in self.layers if layer in layers)
        others = {FEATURE + layer for layer in self.header.layers if layer not in twin.layers}
        whole = self.header.row_dtype
        twin._row = np.dtype([(field, whole[field]) for field in whole.names or () if field not in others])
        return twin

    def check(self, data: Data) -> None:
        """Refuse to be replayed for other samples than were recorded; their labels may be others.

        Args:
            data: What is about to be trained on.

        Raises:
            UserError: If their number or their pixels differ, as far as `DataIdentity` knows these.
        """
        same_number = data.count("train") == self.header.samples
        if not same_number or not self.header.data.shows_images_of(DataIdentity.of(data)):
            raise UserError(
                f"This trains on other samples than the recording in {self.folder} is of, whose answers would be "
                "taken for theirs. Pass the teacher itself."
            )

    def check_goes_on(self, begun: Mapping[str, Any], folder: Path) -> None:
        """Refuse to go on with a training on more or fewer views of the same recording, and say how to go on.

        Args:
            begun: The `identity` that the training was begun with.
            folder: The training's folder, for the message.

        Raises:
            UserError: If the number of views differs.
        """
        if begun["views"] == self.views:
            return
        try:
            same = Recording(self.folder, views=begun["views"]).fingerprint == begun["fingerprint"]
        except UserError:
            same = False
        if same:
            grew = ", as it grew meanwhile or more are asked for" if self.views > begun["views"] else ""
            raise UserError(
                f"{folder} was begun with {in_views(begun['views'])} of the recording in {self.folder}, and would go "
                f"on with {self.views}{grew}: write --teacher {PREFIX}:{self.folder},views={begun['views']}, or "
                "choose another folder with --out."
            )

    def read(self, indices: Tensor, views: Tensor) -> tuple[Tensor, Output]:
        """Return the view parameters, float32 `[batch, width]`, and what the teacher said, in float32.

        Args:
            indices: Position of each sample in the training split, `[batch]`, on the CPU.
            views: Which of the used views of it, `[batch]`, from 0.

        Raises:
            UserError: If a shard is damaged, or there is no such sample or view.
        """
        rows = self._rows(indices.numpy(), views.numpy())
        features = {layer: torch.from_numpy(rows[FEATURE + layer].astype(np.float32)) for layer in self.layers}
        parameters = torch.from_numpy(rows[PARAMETERS].astype(np.float32))
        return parameters, Output(logits=self._keep.logits(rows, self._classes), features=features)

    def verify(self) -> list[str]:
        """Return the names of the damaged shards, such as `view-0003/shard-0001.npy`: all content is read."""
        damaged = [
            shard_path(Path(), view, shard)
            for view in shards.views_present(self.folder)
            for shard in range(self.header.shards)
            if shards.state(self.folder, self.header, view, shard) == "damaged"
        ]
        return [path.as_posix() for path in damaged]

    def _rows(self, indices: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows of samples and views, those of one shard read at once."""
        if not len(indices):
            return np.empty(0, self._row)
        if indices.min() < 0 or indices.max() >= self.header.samples or views.min() < 0 or views.max() >= self.views:
            raise UserError(
                f"The recording in {self.folder} has {self.views} views of {self.header.samples} samples, and was "
                f"asked for view {views.max()} and sample {indices.max()}: it is of other data."
            )
        shard, place = np.divmod(indices, self.header.rows_per_shard)
        keys = self._numbers[views] * self.header.shards + shard
        if (keys == keys[0]).all():
            return self._taken(self._shard(int(keys[0])), place)
        order = keys.argsort(kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        rows = np.empty(len(indices), self._row)
        for start, chosen in zip(starts, np.split(order, starts[1:])):
            rows[chosen] = self._taken(self._shard(int(keys[start])), place[chosen])
        return rows

    def _taken(self, shard: NDArray[Any], place: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of a shard, of which only what is wanted is read from disk."""
        if self._row == shard.dtype:
            return shard[place]
        rows = np.empty(len(place), self._row)
        for field in self._row.names or ():
            rows[field] = shard[field][place]
        return rows

    def _shard(self, key: int) -> NDArray[Any]:
        """Return an opened shard; its checksum is compared the first time."""
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        view, shard = divmod(key, self.header.shards)
        rows = shards.opened(self.folder, self.header, view, shard, verify=key not in self._verified)
        self._verified.add(key)
        self._open[key] = rows
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return rows

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files would travel as their content.
        return {**self.__dict__, "_open": OrderedDict()}


def _chosen(folder: Path, finished: list[int], wanted: int | None, note: str) -> list[int]:
    unfinished = f" ({note})" if note else ""
    if not finished:
        raise UserError(f"The recording in {folder} has no finished view{unfinished}: go on with `tutelage record`.")
    if wanted is None:
        return finished
    if wanted < 1:
        raise UserError(f"views={wanted} leaves nothing to replay: use one view or more.")
    if wanted > len(finished):
        raise UserError(
            f"The recording in {folder} has {in_views(len(finished))} that can be replayed{unfinished}, not {wanted}: "
            f"use fewer, or add some with `tutelage record --views {wanted}`."
        )
    return finished[:wanted]
