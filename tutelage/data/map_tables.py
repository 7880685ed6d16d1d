"""From tables of images and maps to samples: all maps are looked at, and their numbers become a task's targets."""

from __future__ import annotations

from pathlib import Path

from tutelage.data.class_maps import ClassList, parse_ignored
from tutelage.data.decode import probe, read_image
from tutelage.data.names import Spec
from tutelage.data.paired import Frame, PairedImages
from tutelage.data.survey import survey
from tutelage.data.tables import Tables
from tutelage.data.task import Task
from tutelage.errors import UserError, notice

# Above this longer side, in pixels, training sees larger images than most would want it to.
_LARGE = 1024


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
    surveys = {
        split: survey(rows, image=tables.image, label=tables.label, split=split)
        for split, rows in tables.splits.items()
    }
    reader = task.map_reader(surveys, known_classes(where))
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


def known_classes(where: Spec) -> ClassList:
    """Return the classes that the user named, or that stand beside the data.

    Args:
        where: The user's request.

    Raises:
        UserError: If a file of classes cannot be understood.
    """
    if where.classes is not None:
        found = ClassList.read(Path(where.classes).expanduser())
    else:
        found = ClassList() if where.path is None else ClassList.beside(where.path)
    return found if where.ignore is None else ClassList(found.names, parse_ignored(where.ignore))


def refuse_map_options(where: Spec, task: Task) -> None:
    """Refuse options of masks for a task whose targets are no maps.

    Args:
        where: The user's request.
        task: The task.

    Raises:
        UserError: If there are any.
    """
    given = [f"{name}=" for name, value in (("ignore", where.ignore), ("classes", where.classes)) if value is not None]
    if given and not task.has_maps:
        raise UserError(
            f"{' and '.join(given)} behind the data {'is' if len(given) == 1 else 'are'} for masks, and the task is "
            f"{task.name}: add --task segmentation (task='segmentation'), or leave it out."
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
