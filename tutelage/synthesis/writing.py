"""Synthesising a dataset: batch after batch, stopped and continued, alone or in parts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.models.answers import answer
from tutelage.models.blueprint import Source
from tutelage.models.modes import evaluating
from tutelage.synthesis.header import Header
from tutelage.synthesis.objective import Objective
from tutelage.synthesis.optimizing import State, in_bytes, optimize, started
from tutelage.synthesis.settings import Settings
from tutelage.synthesis.shelf import Shelf
from tutelage.synthesis.subject import Subject, TeacherSource, subject_of
from tutelage.system.chance import kept
from tutelage.system.console import Reporter, Silent
from tutelage.system.devices import device_type, threads
from tutelage.system.interrupt import Interrupted, Interruption
from tutelage.system.memory import kept_memory
from tutelage.system.parts import Part

# A batch in work is kept at least this often.
_SAVE_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Images that were synthesised, or are to be.

    Attributes:
        shelf: The folder of the images after all iterations.
        snapshots: The folders of the images after fewer iterations, by iteration.
    """

    shelf: Shelf
    snapshots: Mapping[int, Shelf]

    @property
    def shelves(self) -> Sequence[Shelf]:
        """All folders."""
        return [self.shelf, *self.snapshots.values()]

    @property
    def is_finished(self) -> bool:
        """Whether all batches are done, by whomever."""
        return all(shelf.is_finished for shelf in self.shelves)

    def missing(self, part: Part) -> list[int]:
        """Return the numbers of the batches of a part that are not done."""
        mine = range(self.shelf.header.batches)[part.number - 1 :: part.of]
        undone = {batch for shelf in self.shelves for batch in shelf.missing()}
        return [batch for batch in mine if batch in undone]


@kept()
def synthesize(
    teacher: TeacherSource,
    *,
    out: str | Path,
    scheme: str = "bn-statistics+inception",
    per_class: int = 20,
    classes: int | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    normalize: str | None = None,
    weights: Mapping[str, float] | None = None,
    rival: Source | None = None,
    part: str | None = None,
    device: str = "auto",
    thread_count: int | None = None,
    reporter: Reporter | None = None,
    trust_code: bool = False,
    **given: Any,
) -> Synthesis:
    """Make images from a network alone, and leave them in a folder that is read as any dataset.

    Args:
        teacher: The network.
        out: The folder.
        scheme: The name of the scheme.
        per_class: How many images there are for each class.
        classes: The network's number of classes, where it does not tell.
        channels: The channels of its images, where it does not tell.
        image_size: The side of its images, where it does not tell.
        normalize: The statistics of a module's images.
        weights: Weights of the losses, where they are not the scheme's own.
        rival: A student that should disagree with the network, for the competition of deepinversion.
        part: Which share of the batches to make, such as `2/4`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        thread_count: Processor threads to compute with; None for the usual number.
        reporter: Shows the progress.
        trust_code: Whether a saved network may run the code that it names.
        **given: Fields of `Settings`.

    Raises:
        UserError: If anything does not fit.
        Interrupted: If Ctrl-C or SIGTERM came; the same call continues from there.
    """
    settings, share = Settings.of(scheme, weights=weights, **given), Part.parse(part)
    if per_class < 1:
        raise UserError(f"per_class={per_class} must be 1 or more.")
    facts: Any = {"classes": classes, "channels": channels, "image_size": image_size, "trust_code": trust_code}
    subject = subject_of(teacher, normalize=normalize, **facts)
    opponent = None if rival is None else subject_of(rival, **_shape(subject), trust_code=trust_code)
    found = _planned(Path(out), subject, settings, opponent, images=per_class * len(subject.class_names))
    left = found.missing(share)
    with Interruption() as interruption, threads(thread_count), kept_memory():
        if left:
            place = device_type(device)
            against = None if opponent is None else opponent.to(place).network
            maker = _Maker(found, subject.to(place), settings, against, interruption)
            maker.make(left, reporter or Silent())
    if all(not shelf.missing() for shelf in found.shelves):
        for shelf in found.shelves:
            shelf.publish()
    return found


def _shape(subject: Subject) -> dict[str, Any]:
    return {"classes": len(subject.class_names), "channels": subject.channels, "image_size": subject.size[0]}


def _planned(folder: Path, subject: Subject, settings: Settings, rival: Subject | None, *, images: int) -> Synthesis:
    """Return the folders, refused where one of them holds other work."""
    header = Header.of(subject, settings, images=images, rival=None if rival is None else rival.weights)
    shelf = Shelf(folder, header)
    snapshots = {
        number: Shelf(
            folder.with_name(f"{folder.name}-at-{number}"),
            replace(header, settings={**header.settings, "snapshot": number}),
        )
        for number in settings.snapshots
    }
    found = Synthesis(shelf, snapshots)
    for one in found.shelves:
        begun = Header.read(one.folder)
        if begun is not None:
            begun.check(one.folder, one.header)
        elif one.folder.exists() and any(one.folder.iterdir()):
            raise UserError(f"{one.folder} holds other files: choose an empty or a new folder with --out.")
    return found


class _Maker:
    """Makes batches.

    Args:
        synthesis: The folders.
        subject: The network, on its device.
        settings: The settings.
        rival: The student of the competition, on the same device.
        interruption: Notes a request to stop.
    """

    def __init__(
        self,
        synthesis: Synthesis,
        subject: Subject,
        settings: Settings,
        rival: nn.Module | None,
        interruption: Interruption,
    ) -> None:
        self._synthesis, self._subject, self._settings = synthesis, subject, settings
        self._interruption = interruption
        # Refused before the first file is written, so that no folder is left behind.
        self._objective = Objective(subject, settings, rival)

    def make(self, batches: Sequence[int], reporter: Reporter) -> None:
        """Make batches, and store each as soon as it is done."""
        shelf, header = self._synthesis.shelf, self._synthesis.shelf.header
        for one in self._synthesis.shelves:
            one.header.write(one.folder)
        begun = {batch: state for batch in batches if (state := shelf.load_state(batch)) is not None}
        steps = max(1, self._settings.iterations)
        reporter.begin("synthesising", total=steps * len(batches), done=sum(it.iteration for it in begun.values()))
        finished = False
        try:
            for batch in batches:
                start = begun.get(batch) or started(self._subject, self._settings, batch, len(header.rows(batch)))
                self._make(batch, start, reporter)
            finished = True
        finally:
            reporter.end(finished=finished)

    def _make(self, batch: int, state: State, reporter: Reporter) -> None:
        shelf = self._synthesis.shelf
        targets = torch.arange(*_ends(shelf.header.rows(batch))) % len(self._subject.class_names)
        saved = time.monotonic()

        def heed(now: State) -> None:
            nonlocal saved
            reporter.advance(1)
            reporter.status(f"batch {batch + 1}/{shelf.header.batches}  loss {now.curve[-1]['loss']:.4f}")
            stop = self._interruption.requested
            if stop is not None or time.monotonic() - saved > _SAVE_SECONDS:
                shelf.save_state(batch, now)
                saved = time.monotonic()
            if stop is not None:
                raise self._stopped(stop, batch, now)

        if self._settings.iterations:
            state = optimize(
                state,
                self._objective,
                self._subject,
                self._settings,
                batch=batch,
                targets=targets,
                heed=heed,
            )
        else:
            reporter.advance(1)
        self._store(batch, state, targets)
        if not self._settings.iterations and self._interruption.requested is not None:
            raise self._stopped(self._interruption.requested, batch, state)

    def _store(self, batch: int, state: State, targets: Tensor) -> None:
        for number, shelf in self._synthesis.snapshots.items():
            curve = [point for point in state.curve if point["iteration"] <= number]
            shelf.put(batch, state.snapshots[number], self._labels(state.snapshots[number], targets), curve)
        images = in_bytes(self._subject, state.images)
        # The final images last: only then is the batch no longer missing.
        self._synthesis.shelf.put(batch, images, self._labels(images, targets), state.curve)
        self._synthesis.shelf.drop_state(batch)

    def _labels(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the class that each image was made for, or else the one that the network answers."""
        if self._settings.has_classes:
            return targets
        network: nn.Module = self._subject.network
        device = next((one.device for one in network.parameters()), torch.device("cpu"))
        with evaluating(network), torch.no_grad():
            return answer(network, images.to(device).float() / 255).argmax(1).cpu()

    def _stopped(self, number: int, batch: int, state: State) -> Interrupted:
        header = self._synthesis.shelf.header
        return Interrupted(
            number,
            f"Stopped in batch {batch + 1} of {header.batches}, after {state.iteration} of "
            f"{self._settings.iterations} iterations. Run the same command again to continue.",
        )


def _ends(rows: range) -> tuple[int, int]:
    return rows.start, rows.stop
