"""What a folder of synthesised images was made from, and whether more work may be added to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tutelage.errors import UserError
from tutelage.synthesis.settings import Settings
from tutelage.synthesis.subject import Subject
from tutelage.system.files import read_json, write_json

FILE = "synthesis.json"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Header:
    """Everything that decides the images of a folder.

    Attributes:
        teacher: The network's name.
        weights: Digest of its parameters and buffers.
        normalization: The statistics of its images, as text.
        class_names: The names of its classes.
        channels: Channels of the images.
        size: Their height and width.
        images: How many there are.
        settings: The settings, as plain values.
        rival: Digest of the student of the competition; None without it.
        version: Version of this file's format.
    """

    teacher: str
    weights: str
    normalization: str
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    images: int
    settings: dict[str, Any]
    rival: str | None = None
    version: int = _VERSION

    @classmethod
    def of(cls, subject: Subject, settings: Settings, *, images: int, rival: str | None) -> Self:
        """Return the header of images that a network gives by some settings."""
        return cls(
            teacher=subject.name,
            weights=subject.weights,
            normalization=str(subject.space),
            class_names=subject.class_names,
            channels=subject.channels,
            size=subject.size,
            images=images,
            settings=settings.as_json(),
            rival=rival,
        )

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides the images; the network's name does not."""
        content = {name: value for name, value in asdict(self).items() if name != "teacher"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def batches(self) -> int:
        """How many batches the images are made in."""
        return -(-self.images // self.batch_size)

    @property
    def batch_size(self) -> int:
        """How many images are made together at most."""
        return int(self.settings["batch_size"])

    def rows(self, batch: int) -> range:
        """Return the numbers of the images of a batch; batches count from 0."""
        # Batches of about equal size: statistics of a last one with a few images would be worth little.
        return range(self.images * batch // self.batches, self.images * (batch + 1) // self.batches)

    def write(self, folder: Path) -> None:
        """Write it into a folder; if there is one already, that stays."""
        write_json(folder / FILE, {**asdict(self), "fingerprint": self.fingerprint}, replace=False)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the header of a folder; None if there is none.

        Raises:
            UserError: If it is damaged, or a later version wrote it.
        """
        file = folder / FILE
        if not file.exists():
            return None
        content = read_json(file)
        content.pop("fingerprint", None)
        if content.get("version") != _VERSION:
            raise UserError(f"{file} has version {content.get('version')}, and this Tutelage reads {_VERSION}.")
        for name in ("class_names", "size"):
            content[name] = tuple(content[name])
        return cls(**content)

    def check(self, folder: Path, wanted: Self) -> None:
        """Refuse to add to a folder what was made otherwise.

        Args:
            folder: The folder that this header is of.
            wanted: The header of what would be added.

        Raises:
            UserError: If they differ; the message says in what.
        """
        if self.fingerprint == wanted.fingerprint:
            return
        ours, theirs = (it._told() for it in (self, wanted))
        differences = [
            f"{name}: {ours.get(name)} there, {theirs.get(name)} now"
            for name in {**ours, **theirs}
            if ours.get(name) != theirs.get(name)
        ]
        raise UserError(
            f"{folder} holds images that were made otherwise ({'; '.join(differences)}): choose another folder with "
            "--out, or repeat the command that began it."
        )

    def _told(self) -> dict[str, Any]:
        """Return everything that decides the images by a name for messages."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("settings", "teacher", "weights")}
        losses = self.settings["weights"]
        return facts | self.settings | {"weights of the losses": losses, "weights": self.weights}
