"""Reading a recording: the views of a batch, and the teacher's answers to them."""

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
"""Prefix of a recording's folder in the name of a teacher."""


def _most_open() -> int:
    """Return how many shards may be open at once: each holds a file open."""
    try:
        import resource
    except ImportError:  # Not a Unix.
        return 256
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Half of the limit, because other code opens files too. Each shard is also a memory mapping, and Linux allows a
    # process 65,530 of those.
    return 4096 if allowed == resource.RLIM_INFINITY else max(64, min(4096, allowed // 2))


_MOST_OPEN = _most_open()


class Recording(RecordedViews):
    """The finished views of a recording, as `RecordedViews`.

    The set of views is fixed here: views that are added to the folder later are not used.

    Args:
        folder: The recording's folder.
        views: How many views to use, counted from the first; None for all finished ones.

    Attributes:
        folder: The recording's folder.
        header: Its header.
        note: Which views are left out because they are unfinished; empty if none are.
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
        # The used views by their numbers in the folder, where unfinished ones leave gaps.
        self._numbers = np.array(_chosen(self.folder, finished, views, self.note), dtype=np.int64)
        self._open: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._verified: set[int] = set()

    @property
    def views(self) -> int:
        """How many views of each sample are used."""
        return len(self._numbers)

    @cached_property
    def augmentation(self) -> Augmentation:
        """The augmentation that the views' parameters belong to."""
        return Augmentation.parse(self.header.augmentation)

    def origin(self) -> dict[str, Any]:
        """Return the header."""
        return self.header.to_json()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the used content: the header and the checksums of the used views."""
        digest = hashlib.sha256(json.dumps(self.header.to_json(), sort_keys=True).encode())
        for view in self._numbers.tolist():
            for shard in range(self.header.shards):
                # The checksum stands for the content, which need not be read for this.
                digest.update(shards.checksum(self.folder, view, shard).encode())
        return digest.hexdigest()[:16]

    def only(self, layers: Collection[str]) -> Recording:
        """Return the same recording, restricted to some layers; the others are not read from disk.

        Args:
            layers: Names of the layers to read; names that were not recorded are ignored.
        """
        if set(self.layers) <= set(layers):
            return self
        # A shallow copy, which shares the opened shards.
        twin = copy.copy(self)
        twin.layers = tuple(layer for layer in self.layers if layer in layers)
        others = {FEATURE + layer for layer in self.header.layers if layer not in twin.layers}
        whole = self.header.row_dtype
        twin._row = np.dtype([(field, whole[field]) for field in whole.names or () if field not in others])
        return twin

    def check(self, data: Data) -> None:
        """Refuse to be replayed for other samples than the recorded ones. Labels may differ.

        Args:
            data: The data to train on.

        Raises:
            UserError: If the number of samples or the pixels differ, as far as `DataIdentity` knows the pixels.
        """
        same_number = data.count("train") == self.header.samples
        if not same_number or not self.header.data.shows_images_of(DataIdentity.of(data)):
            raise UserError(
                f"The training samples are not those of the recording in {self.folder}, so its answers do not belong "
                "to them. Pass the teacher itself."
            )

    def check_goes_on(self, begun: Mapping[str, Any], folder: Path) -> None:
        """Refuse to resume a training with another number of views of the same recording, and say how to resume it.

        Args:
            begun: The `identity` that the training was begun with.
            folder: The training's folder, for the message.

        Raises:
            UserError: If the number of views differs.
        """
        if begun["views"] == self.views:
            return
        try:
            # The training can continue only if the first views are still the same.
            same = Recording(self.folder, views=begun["views"]).fingerprint == begun["fingerprint"]
        except UserError:
            same = False
        if same:
            grew = ", because it has grown since or more are asked for" if self.views > begun["views"] else ""
            raise UserError(
                f"{folder} was begun with {in_views(begun['views'])} of the recording in {self.folder}, and would "
                f"continue with {self.views}{grew}: write --teacher {PREFIX}:{self.folder},views={begun['views']}, or "
                "choose another folder with --out."
            )

    def read(self, indices: Tensor, views: Tensor) -> tuple[Tensor, Output]:
        """Return the view parameters, float32 `[batch, width]`, and the teacher's output, in float32.

        Args:
            indices: Position of each sample in the training split, `[batch]`, on the CPU.
            views: The view of each sample, counted from 0 among the used views, `[batch]`.

        Raises:
            UserError: If a shard is damaged, or there is no such sample or view.
        """
        rows = self._rows(indices.numpy(), views.numpy())
        features = {layer: torch.from_numpy(rows[FEATURE + layer].astype(np.float32)) for layer in self.layers}
        parameters = torch.from_numpy(rows[PARAMETERS].astype(np.float32))
        return parameters, Output(logits=self._keep.logits(rows, self._classes), features=features)

    def verify(self) -> list[str]:
        """Return the names of the damaged shards, such as `view-0003/shard-0001.npy`. All content is read for this."""
        damaged = [
            shard_path(Path(), view, shard)
            for view in shards.views_present(self.folder)
            for shard in range(self.header.shards)
            if shards.state(self.folder, self.header, view, shard) == "damaged"
        ]
        return [path.as_posix() for path in damaged]

    def _rows(self, indices: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows of samples and views. Rows of the same shard are read together."""
        if not len(indices):
            return np.empty(0, self._row)
        if indices.min() < 0 or indices.max() >= self.header.samples or views.min() < 0 or views.max() >= self.views:
            raise UserError(
                f"The recording in {self.folder} has {self.views} views of {self.header.samples} samples, and view "
                f"{views.max()} or sample {indices.max()} was asked for: it was made from other data."
            )
        shard, place = np.divmod(indices, self.header.rows_per_shard)
        # One number for each shard of each view.
        keys = self._numbers[views] * self.header.shards + shard
        if (keys == keys[0]).all():
            return self._taken(self._shard(int(keys[0])), place)
        # Rows of one shard side by side, so that each shard is opened once.
        order = keys.argsort(kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        rows = np.empty(len(indices), self._row)
        for start, chosen in zip(starts, np.split(order, starts[1:])):
            rows[chosen] = self._taken(self._shard(int(keys[start])), place[chosen])
        return rows

    def _taken(self, shard: NDArray[Any], place: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of a shard; fields that are not wanted are not read from disk."""
        if self._row == shard.dtype:
            return shard[place]
        rows = np.empty(len(place), self._row)
        for field in self._row.names or ():
            rows[field] = shard[field][place]
        return rows

    def _shard(self, key: int) -> NDArray[Any]:
        """Return an opened shard. Its checksum is verified the first time only, because that reads the whole file."""
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        view, shard = divmod(key, self.header.shards)
        rows = shards.opened(self.folder, self.header, view, shard, verify=key not in self._verified)
        self._verified.add(key)
        self._open[key] = rows
        if len(self._open) > _MOST_OPEN:
            # The one that was used longest ago.
            self._open.popitem(last=False)
        return rows

    def __getstate__(self) -> dict[str, Any]:
        # Pickling a memory-mapped array would copy its content; workers open the files themselves.
        return {**self.__dict__, "_open": OrderedDict()}


def _chosen(folder: Path, finished: list[int], wanted: int | None, note: str) -> list[int]:
    unfinished = f" ({note})" if note else ""
    if not finished:
        raise UserError(f"The recording in {folder} has no finished view{unfinished}: run `tutelage record` again.")
    if wanted is None:
        return finished
    if wanted < 1:
        raise UserError(f"views={wanted} must be 1 or more.")
    if wanted > len(finished):
        raise UserError(
            f"The recording in {folder} has {in_views(len(finished))} that can be replayed{unfinished}, not {wanted}: "
            f"use fewer, or add some with `tutelage record --views {wanted}`."
        )
    return finished[:wanted]
