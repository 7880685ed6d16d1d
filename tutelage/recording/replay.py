"""A recording in place of a teacher: opened by its name, held against data and teacher, described."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tutelage.core.teachers import Teacher
from tutelage.data.dataset import TRAIN, Data
from tutelage.data.label_noise import training_labels
from tutelage.data.plan import RecordedViews
from tutelage.errors import UserError, unknown
from tutelage.models.spec import RECORDING, NetworkSpec
from tutelage.models.trust import Origin
from tutelage.recording.header import NAME, check_data
from tutelage.recording.identity import trained_networks
from tutelage.recording.planning import in_views
from tutelage.recording.reading import Recording
from tutelage.recording.teacher import RecordedTeacher, recording_of
from tutelage.system.grammar import read
from tutelage.system.values import Count, check

# What may be read to find out how good a teacher is, and how many answers are looked at.
_CHEAP_BYTES, _ASKED, _AT_ONCE = 2**30, 20_000, 1024


@dataclass(frozen=True)
class Replay:
    """A teacher whose answers are replayed, and what follows from it.

    Attributes:
        teacher: The teacher.
        data: The data, augmented as they were recorded.
        notes: What the user should know.
    """

    teacher: Teacher
    data: Data
    notes: tuple[str, ...]


def is_recording(source: object) -> bool:
    """Return whether a teacher is a recording: the name of one, the recording itself, or what replays it."""
    if isinstance(source, str):
        return source.startswith(RECORDING)
    return isinstance(source, Recording) or (isinstance(source, Teacher) and recording_of(source) is not None)


def replay_of(source: object, data: Data, *, trust_code: bool = False) -> Replay | None:
    """Return the replay of a recording, and None for any other teacher.

    Args:
        source: `recording:PATH` or `recording:PATH,views=4`, a `Recording`, or a teacher that has one.
        data: What is trained on.
        trust_code: Whether code that the recording names may run, to see whether its teacher is still what it was.

    Raises:
        UserError: If there is no recording, or it does not belong to the data, the augmentation that was asked for, or
            the teacher as it is now.
    """
    if isinstance(source, str) and is_recording(source):
        source = opened(source)
    elif isinstance(source, str) and (Path(source) / NAME).is_file():
        raise UserError(f"{source} holds a recording and no network: write {RECORDING}{source}.")
    teacher = RecordedTeacher(source) if isinstance(source, Recording) else source
    recording = recording_of(teacher) if isinstance(teacher, Teacher) else None
    if not isinstance(teacher, Teacher) or recording is None:
        return None
    usual, notes = data.augmentation, []
    if isinstance(recording, Recording):
        chosen = str(usual) if data.augmentation_chosen else None
        check_data(recording.folder, recording.header, data, augmentation=chosen)
        notes += _check_teacher(recording, data, trust_code=trust_code)
        notes += [f"Of the recording, {recording.note}; these are left out."] if recording.note else []
    if str(usual) != str(recording.augmentation):
        notes.append(f"Training images are augmented by {recording.augmentation}, as recorded, instead of {usual}.")
    return Replay(teacher, replace(data, augmentation=recording.augmentation), tuple(notes))


def opened(text: str) -> Recording:
    """Return the recording that `recording:PATH` or `recording:PATH,views=4` names.

    Raises:
        UserError: If the text cannot be read, there is no recording, or it has fewer views.
    """
    place = text.removeprefix(RECORDING).strip()
    if not place:
        raise UserError(f"{text!r} names no folder: write recording:PATH.")
    if Path(place).is_dir():
        return Recording(place)
    written = read(place, kind="recording", is_place=True)
    views = None
    for key, given in written.options.items():
        if key != "views":
            raise unknown("option of a recording", key, ["views"])
        check(key, int(given) if given.isdecimal() else given, Count, of="A recording")
        views = int(given)
    return Recording(written.name, views=views)


def _check_teacher(recording: Recording, data: Data, *, trust_code: bool) -> list[str]:
    """Refuse answers of a teacher that is still where it was, but is another one now; note what cannot be loaded."""
    recorded = recording.header.teacher
    sources = recorded.source.split(" + ")
    if not all(map(_is_local, sources)):
        return []
    try:
        origin = Origin(str(recording.folder / NAME), trusted=trust_code)
        specs = [replace(NetworkSpec.parse(source), origin=origin) for source in sources]
        _, now = trained_networks(specs, data, trust_code=trust_code)
    except (UserError, ImportError, OSError) as error:
        # Parts of it are gone, or of what it is made with: its answers are there none the less.
        return [f"Whether {recorded.source} is still what was recorded was not checked: it cannot be loaded. {error}"]
    # What it is called depends on the folder that it is called from.
    found = recorded.differences(replace(now, name=recorded.name))
    if found:
        raise UserError(
            f"The recording in {recording.folder} is not of the teacher {recorded.source} as it is now:\n  "
            + "\n  ".join(found)
            + "\nRecord again into another folder, put the old teacher back, or move the new one elsewhere if its old "
            "answers are what you want."
        )
    return []


def _is_local(source: str) -> bool:
    """Return whether a network's trained weights are still in a file or folder here, whatever folder this is."""
    try:
        spec = NetworkSpec.parse(source)
        place = spec.target if spec.weights is None and spec.kind == "run" else spec.weights
    except UserError:
        return False
    return place is not None and Path(place).is_absolute() and Path(place).exists()


def name_of(recording: RecordedViews) -> str:
    """Return what tables and reports call a recording: `recording: resnet56 (top5, 8 views)`."""
    views = in_views(recording.views)
    if not isinstance(recording, Recording):
        return f"recording ({views})"
    return f"recording: {recording.header.teacher.name} ({recording.header.keep}, {views})"


def sampled_answers(recording: RecordedViews, data: Data, *, most: int = _ASKED) -> tuple[Tensor, Tensor] | None:
    """Return what a teacher said of the first view of samples all over the data.

    Args:
        recording: The recording.
        data: The data that it is of.
        most: How many samples, at most.

    Returns:
        Its answers `[sample, class]` and the samples' targets `[sample]`; None where the samples have none, or where a
        view is too large to be read for that.
    """
    header = recording.header if isinstance(recording, Recording) else None
    if header is not None and header.samples * header.row_dtype.itemsize > _CHEAP_BYTES:
        return None
    if TRAIN in data.unlabelled:
        return None
    labels = training_labels(data)
    chosen = torch.linspace(0, len(labels) - 1, min(most, len(labels)), dtype=torch.float64).round().long()
    first = torch.zeros(_AT_ONCE, dtype=torch.int64)
    answers = [recording.read(part, first[: len(part)])[1].logits for part in torch.split(chosen, _AT_ONCE)]
    return torch.cat(answers), labels[chosen]
