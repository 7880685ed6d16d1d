"""A recording in place of a teacher: checks against the data and the teacher, and its description."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tutelage.data.dataset import TRAIN, Data
from tutelage.data.label_noise import training_labels
from tutelage.data.plan import RecordedViews
from tutelage.errors import UserError
from tutelage.models.spec import NetworkSpec
from tutelage.models.trust import Origin
from tutelage.recording.header import NAME, check_data
from tutelage.recording.identity import trained_networks
from tutelage.recording.planning import in_views
from tutelage.recording.reading import Recording

# Limits on what is read to estimate a teacher's accuracy: bytes of one view, answers in all, answers at once.
_CHEAP_BYTES, _ASKED, _AT_ONCE = 2**30, 20_000, 1024


def held_against(recording: Recording, data: Data, *, trust_code: bool = False) -> list[str]:
    """Check a recording against the data and against its teacher as it is now; return notes for the user.

    Args:
        recording: The recording.
        data: The data to train on.
        trust_code: Whether code that the recording names may run, to load its teacher and check that it is unchanged.

    Raises:
        UserError: If the recording does not belong to the data, the requested augmentation, or the teacher.
    """
    # An augmentation that the user did not choose may differ: the recorded one takes its place.
    chosen = str(data.augmentation) if data.augmentation_chosen else None
    check_data(recording.folder, recording.header, data, augmentation=chosen)
    left_out = [f"The recording is not complete: {recording.note}. These views are left out."] if recording.note else []
    return _check_teacher(recording, data, trust_code=trust_code) + left_out


def _check_teacher(recording: Recording, data: Data, *, trust_code: bool) -> list[str]:
    """Refuse the recording if the teacher at its source has changed; return a note if it cannot be loaded."""
    recorded = recording.header.teacher
    # `trained_networks` joined the names of an ensemble's members with this separator.
    sources = recorded.source.split(" + ")
    if not all(map(_is_local, sources)):
        return []
    try:
        origin = Origin(str(recording.folder / NAME), trusted=trust_code)
        specs = [replace(NetworkSpec.parse(source), origin=origin) for source in sources]
        _, now = trained_networks(specs, data, trust_code=trust_code)
    except (UserError, ImportError, OSError) as error:
        # A file or package of the teacher is missing. Its recorded answers are still usable, so this is only noted.
        return [f"It was not checked whether {recorded.source} has changed since: it cannot be loaded. {error}"]
    # The name depends on the folder in which it was written, so names are not compared.
    found = recorded.differences(replace(now, name=recorded.name))
    if found:
        raise UserError(
            f"The teacher {recorded.source} has changed since it was recorded in {recording.folder}:\n  "
            + "\n  ".join(found)
            + "\nRecord again into another folder, or restore the old teacher. To use the old answers anyway, move the "
            "new teacher elsewhere."
        )
    return []


def _is_local(source: str) -> bool:
    """Return whether a network's trained weights still exist at an absolute path on this machine."""
    try:
        spec = NetworkSpec.parse(source)
        place = spec.target if spec.weights is None and spec.kind == "run" else spec.weights
    except UserError:
        return False
    return place is not None and Path(place).is_absolute() and Path(place).exists()


def name_of(recording: RecordedViews) -> str:
    """Return a recording's name in tables and reports: `recording: resnet56 (top5, 8 views)`."""
    views = in_views(recording.views)
    if not isinstance(recording, Recording):
        return f"recording ({views})"
    return f"recording: {recording.header.teacher.name} ({recording.header.keep}, {views})"


def sampled_answers(recording: RecordedViews, data: Data, *, most: int = _ASKED) -> tuple[Tensor, Tensor] | None:
    """Return a teacher's recorded answers to the first view of samples spread over the data.

    Args:
        recording: The recording.
        data: The data that were recorded.
        most: How many samples, at most.

    Returns:
        Its answers `[sample, class]` and the samples' targets `[sample]`; None if the samples have no targets, no
        answers were kept, or a view is too large to be read for this.
    """
    header = recording.header if isinstance(recording, Recording) else None
    if header is not None and header.samples * header.row_dtype.itemsize > _CHEAP_BYTES:
        return None
    if header is not None and not header.quantization.keeps_answers:
        return None
    if TRAIN in data.unlabelled:
        return None
    labels = training_labels(data)
    # Spread over the split, because files are often sorted by class; float64 keeps large positions exact.
    chosen = torch.linspace(0, len(labels) - 1, min(most, len(labels)), dtype=torch.float64).round().long()
    # View 0 of every sample.
    first = torch.zeros(_AT_ONCE, dtype=torch.int64)
    answers = [recording.read(part, first[: len(part)])[1].logits for part in torch.split(chosen, _AT_ONCE)]
    return torch.cat(answers), labels[chosen]
