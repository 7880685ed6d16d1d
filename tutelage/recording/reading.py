"""Reading a recording: the views of a batch, and what the teacher said about them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tutelage.batch import Output
from tutelage.data.augment import Augmentation
from tutelage.recording.header import Header


class Recording:
    """The finished views of a recording, as `RecordedViews`.

    Args:
        folder: Where it is.
        views: How many views to use, the first ones; None for all that are finished.

    Attributes:
        folder: Where it is.
        header: What it is of.
        note: What is left out because it is unfinished; empty if nothing is.

    Raises:
        UserError: If there is no recording, no finished view, or fewer views than asked for.
    """

    folder: Path
    header: Header
    note: str

    def __init__(self, folder: Path | str, *, views: int | None = None) -> None:
        raise NotImplementedError

    @property
    def views(self) -> int:
        """How many views of each sample are used."""
        raise NotImplementedError

    @property
    def augmentation(self) -> Augmentation:
        """What the views' parameters belong to."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Stands for the content that is used: header and checksums."""
        raise NotImplementedError

    def read(self, indices: Tensor, views: Tensor) -> tuple[Tensor, Output]:
        """Return the view parameters, float32 `[batch, width]`, and what the teacher said, in float32.

        Args:
            indices: Position of each sample in the training split, `[batch]`, on the CPU.
            views: Which of the used views of it, `[batch]`, from 0.

        Raises:
            UserError: If a shard is damaged, or there is no such sample or view.
        """
        raise NotImplementedError

    def verify(self) -> list[str]:
        """Return the names of the damaged shards, such as `view-0003/shard-0001.npy`: all content is read."""
        raise NotImplementedError
