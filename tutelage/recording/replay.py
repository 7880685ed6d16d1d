"""A recording in place of a teacher: held against data and teacher, described."""

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

# What may be read to find out how good a teacher is, and how many answers are looked at.
_CHEAP_BYTES, _ASKED, _AT_ONCE = 2**30, 20_000, 1024


def held_against(recording: Recording, data: Data, *, trust_code: bool = False) -> list[str]:
    """Hold a recording against the data, and against its teacher as it is now; return what the user should know.

    Args:
        recording: The recording.
        data: What is trained on.
        trust_code: Whether code that the recording names may run, to see whether its teacher is still what it was.

    Raises:
        UserError: If it does not belong to the data, the augmentation that was asked for, or the teacher.
    """
    chosen = str(data.augmentation) if data.augmentation_chosen else None
    check_data(recording.folder, recording.header, data, augmentation=chosen)
    left_out = [f"Of the recording, {recording.note}; these are left out."] if recording.note else []
    return _check_teacher(recording, data, trust_code=trust_code) + left_out


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
        Its answers `[sample, class]` and the samples' targets `[sample]`; None where the samples have none, where
        no answers were kept, or where a view is too large to be read for that.
    """
    header = recording.header if isinstance(recording, Recording) else None
    if header is not None and header.samples * header.row_dtype.itemsize > _CHEAP_BYTES:
        return None
    if header is not None and not header.quantization.keeps_answers:
        return None
    if TRAIN in data.unlabelled:
        return None
    labels = training_labels(data)
    chosen = torch.linspace(0, len(labels) - 1, min(most, len(labels)), dtype=torch.float64).round().long()
    first = torch.zeros(_AT_ONCE, dtype=torch.int64)
    answers = [recording.read(part, first[: len(part)])[1].logits for part in torch.split(chosen, _AT_ONCE)]
    return torch.cat(answers), labels[chosen]
