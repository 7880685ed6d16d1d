"""From tables of images and maps to samples: all maps are looked at, and their numbers become a task's targets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tutelage.data.decode import probe, read_image
from tutelage.data.names import Spec
from tutelage.data.paired import Frame, PairedImages
from tutelage.data.survey import survey
from tutelage.data.tables import Tables
from tutelage.data.task import Task
from tutelage.errors import UserError, notice

# Above this longer side, in pixels, training sees larger images than most would want it to.
_LARGE = 1024
# What options behind the data are for, and a task that has it.
_FOR: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ignore": ("masks", "segmentation"),
        "classes": ("masks", "segmentation"),
        "scale": ("depth maps", "depth"),
    }
)


def as_paired(
    tables: Tables, task: Task, where: Spec, *, image_size: int | None
) -> tuple[dict[str, PairedImages], tuple[str, ...]]:
    """Return the splits as images with maps, and one name for each number that a network answers a place with.

    Args:
        tables: The source.
        task: The task of the maps.
        where: The user's request, with the numbers to ignore and the file of classes.
        image_size: The longer side in pixels to which images are resized; None keeps their sizes.

    Raises:
        UserError: If a map does not fit its image or the task, or something cannot be read.
    """
    maps = task.map_format
    assert maps is not None
    surveys = {
        split: survey(rows, where, maps, image=tables.image, label=tables.label, split=split)
        for split, rows in tables.splits.items()
    }
    reader = task.map_reader(surveys, where)
    train = tables.splits["train"]
    channels, _ = probe(
        lambda row: read_image(train[row][tables.image], f"row {row} of split 'train'"), len(train), image_size
    )
    frame = Frame.of(surveys["train"].sizes, image_size)
    _tell(frame, len({tuple(size) for size in surveys["train"].sizes.tolist()}))
    paired = {
        split: PairedImages(
            rows,
            reader,
            maps.read,
            surveys[split].sizes,
            frame,
            image=tables.image,
            label=tables.label,
            split=split,
            channels=channels,
            missing=task.missing,
        )
        for split, rows in tables.splits.items()
    }
    return paired, reader.names


def refuse_map_options(where: Spec, task: Task) -> None:
    """Refuse options of maps for a task that has none, or maps of another kind.

    Args:
        where: The user's request.
        task: The task.

    Raises:
        UserError: If there are any.
    """
    said = {"ignore": where.ignore, "classes": where.classes, "scale": where.scale}
    known = () if task.map_format is None else task.map_format.options
    given = [name for name, value in said.items() if value is not None and name not in known]
    if not given:
        return
    words, other = _FOR[given[0]]
    raise UserError(
        f"{' and '.join(f'{name}=' for name in given)} behind the data {'is' if len(given) == 1 else 'are'} for "
        f"{words}, and the task is {task.name}: add --task {other} (task='{other}'), or leave it out."
    )


def _tell(frame: Frame, sizes: int) -> None:
    height, width = frame.canvas
    if sizes > 1:
        notice(
            f"The training images have {sizes} sizes: in training each lies on a canvas of {width}x{height} pixels, "
            "whose rest is black and not learned from. Networks are measured on whole images."
        )
    if frame.longest is None and max(frame.canvas) > _LARGE:
        notice(f"Images are trained on in their full size, up to {width}x{height}: --image-size makes them smaller.")
