"""Loading data by a name, a folder, or a name on the Hugging Face hub."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from tutelage.data.augment import Augmentation
from tutelage.data.blank import tell_blank
from tutelage.data.cache import STREAMED_FORMAT, Decoded, content_digest, key_of, recall, store
from tutelage.data.corpora import read_corpora
from tutelage.data.dataset import Data, assemble
from tutelage.data.glue import glue_task
from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.data.judging import judged
from tutelage.data.map_tables import as_paired, refuse_map_options
from tutelage.data.names import DIGITS, Spec, parse_spec
from tutelage.data.paired import PairedImages
from tutelage.data.place import HubPlace, LocalPlace
from tutelage.data.repeats import tell_repeats
from tutelage.data.samples import Samples
from tutelage.data.tables import Tables, as_streamed, targets_of
from tutelage.data.task import Task, task_named
from tutelage.data.text_tables import read_texts
from tutelage.data.texts import RawTexts, texts_digest
from tutelage.errors import UserError, kept_notices, notice

__all__ = ["Data", "load_data"]

_AUGMENTATIONS = {
    "cifar10": "crop:4,flip",
    "cifar100": "crop:4,flip",
    "fashion-mnist": "crop:2,flip",
    DIGITS: "crop:1",
}
_SMALL = 64
_TEST_FRACTION, _DIGITS_TEST_FRACTION = 0.2, 1 / 3


def load_data(
    spec: str,
    *,
    task: str = "classification",
    metric: str | None = None,
    validation: float = 0.1,
    split_seed: int = 0,
    subset: int | None = None,
    image_size: int | None = None,
    augment: str | None = None,
    resident_limit_mib: int = 2048,
    hold_out_test: bool = True,
) -> Data:
    """Load a dataset of images or of texts.

    A missing test split is held out of the training images, the same for every seed. Decoded images are kept in
    `~/.cache/tutelage`, or in the folder of the environment variable `TUTELAGE_CACHE`.

    Args:
        spec: `digits`, `cifar10`, `cifar100`, `fashion-mnist`; `glue/cola` and so on; `owner/name` on the Hugging Face
            hub; a folder of Parquet; or a folder of images by class, `photos/train/cat/1.jpg` or `photos/cat/1.jpg`.
            Columns are named after commas, as in `data/cifar100,label=coarse_label,image=img`, or
            `data/pairs,text=premise+hypothesis`. A table of Parquet, CSV or JSON without images is read as texts;
            `tokens=128` shortens them, and for the task `language` `blocks=128` joins them and cuts them in blocks.
        task: The kind of labels: `classification`, `multi-label` (a column of lists of classes, or of rows of 0 and
            1), `regression` (a column of numbers, or of rows of numbers), `segmentation` (masks), `depth` (maps of
            depths), `language` (texts without labels, of which each token is predicted), or `unlabelled` to ignore
            them. Options follow after commas, as in `depth,loss=berhu`.
        metric: The metric that chooses the epoch and compares rows, such as `mcc`; further ones to measure follow after
            `+`. None for the usual one of the task, or that of the GLUE benchmark for its data.
        validation: The fraction of the training images to hold out if the source has no validation split; 0 for none.
            Each class keeps its share.
        split_seed: Seed of the choice of validation images and of the subset.
        subset: How many training images to use, those held out for validation included; None for all.
        image_size: The side in pixels to which images are resized and cut; None keeps small images as they are. Images
            with masks are never cut: it is their longer side.
        augment: The augmentation of training images, such as `"crop:4,flip"`, or `"none"`; None for the usual one.
        resident_limit_mib: Largest size of decoded images that are kept in memory, in MiB. Larger data are decoded
            when needed.
        hold_out_test: Whether a missing test split is held out of the training images.

    Raises:
        UserError: If the data do not exist, cannot be read, or are not consistent; the message says what to do.
    """
    where = parse_spec(spec)
    augmentation = None if augment is None else Augmentation.parse(augment)
    if image_size is not None and image_size < 1:
        raise UserError(f"The image size is {image_size} pixels: give 1 or more.")
    kind = task_named(task)
    refuse_map_options(where, kind)
    # A folder and a dataset on the hub may be called digits as well.
    if where.name == DIGITS and where.path is None and where.hub is None:
        splits, class_names, digest = _digits(image_size)
        test = _DIGITS_TEST_FRACTION
    else:
        splits, class_names, digest = _load(where, kind, image_size, resident_limit_mib)
        test = _TEST_FRACTION
    _check_texts(splits, where, kind, augment, image_size)
    data = assemble(
        splits,
        name=where.name,
        task=kind,
        class_names=class_names,
        augmentation=_usual(where.name, splits["train"], kind) if augmentation is None else augmentation,
        digest=digest,
        validation=validation,
        test=test if hold_out_test else None,
        split_seed=split_seed,
        subset=subset,
    )
    data = replace(data, augmentation_chosen=augment is not None)
    return _judged(data, where, metric)


def _judged(data: Data, where: Spec, metric: str | None) -> Data:
    """Return data that are judged by a metric; by default, those of GLUE by GLUE's."""
    if metric is not None:
        return judged(data, metric)
    known = glue_task(where.folder, data.class_names)
    # Read for another task, such as numbers as classes, they are other data.
    if known is None or known.metric is None or not set(known.metric.split("+")) <= set(data.task.judges):
        return data
    notice(f"{data.name} of GLUE is judged by {known.metric}; --metric (metric=) names another.")
    return judged(data, known.metric)


def _usual(name: str, train: Samples, task: Task) -> Augmentation:
    if not train.size:
        return Augmentation()
    if task.augmentation:
        return Augmentation.parse(task.augmentation)
    small, large = "crop:4,flip", "resized-crop,flip"
    return Augmentation.parse(_AUGMENTATIONS.get(name, small if max(train.size) < _SMALL else large))


def _check_texts(
    splits: Mapping[str, Samples], where: Spec, task: Task, augment: str | None, image_size: int | None
) -> None:
    """Refuse options of images for texts, and options of texts for images."""
    is_text = isinstance(splits["train"], RawTexts)
    if task.continues_texts and not is_text:
        raise UserError(f"{where.text} are images, and the task {task.name!r} reads texts: give texts.")
    if where.blocks is not None and not task.continues_texts:
        raise UserError(f"{where.text}: blocks= joins texts, which the task {task.name!r} keeps apart: leave it out.")
    if task.continues_texts and (where.label is not None or (where.tokens and where.blocks)):
        wrong = "label" if where.label is not None else "tokens"
        why = "these texts are their own labels" if where.label is not None else "blocks= is the length of a sample"
        raise UserError(f"{where.text}: leave out {wrong}=, because {why}.")
    if is_text and (augment not in (None, "none") or image_size is not None):
        raise UserError("These data are texts, which have no size and no augmentation: leave out both options.")
    if not is_text and (where.text_column is not None or where.tokens is not None):
        raise UserError(f"{where.text} names text or tokens, but the data are images: leave out both options.")


def _digits(image_size: int | None) -> tuple[Mapping[str, Samples], tuple[str, ...], str]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The grey levels go from 0 to 16; they are stretched to 0 to 255.
    images = (torch.from_numpy(bunch.images)[:, None] * (255 / 16)).round().byte()
    if image_size is not None:
        images = F.interpolate(images, (image_size, image_size), mode="bilinear", antialias=True)
    splits = {"train": ResidentImages(images, torch.from_numpy(bunch.target))}
    return splits, tuple(map(str, bunch.target_names)), content_digest(splits)


def _load(
    where: Spec, task: Task, image_size: int | None, limit_mib: int
) -> tuple[Mapping[str, Samples], tuple[str, ...], str]:
    """Return the splits, the class names, and the digest of the content."""
    if where.path is not None:
        place: LocalPlace | HubPlace = LocalPlace(
            where,
            where.path,
            has_classes=not task.hides_targets,
            maps=task.map_format,
            has_labels=not task.continues_texts,
        )
    else:
        place = HubPlace(where, where.hub or "", maps=task.map_format, has_labels=not task.continues_texts)
    options: dict[str, Any] = {"label": where.label, "image": where.image, "image_size": image_size}
    # Classification has no salt, so its keys are those of versions before there were tasks.
    options |= {"task": task.name} if task.salt else {}
    options |= {} if task.map_format is None else task.map_format.identity(where)
    known = place.known_content()
    decoded = None if known is None else recall(key_of(state=known, **options))
    told: list[str] = []
    if decoded is None or _mib(decoded.splits) > limit_mib:
        with kept_notices() as told:
            tables = place.tables()
            if tables.texts:
                return _texts(tables, where, task)
            streamed: Mapping[str, StreamedImages] | Mapping[str, PairedImages]
            if task.has_maps:
                streamed, class_names = as_paired(tables, task, where, image_size=image_size)
            else:
                streamed, class_names = as_streamed(tables, task, image_size=image_size, spec=where.text)
            if _mib(streamed) > limit_mib or not all(images.fits for images in streamed.values()):
                tell_blank(streamed)
                streamed = _kept(streamed, limit_mib)
                # Data this large are not read for a digest: names, sizes and times of their files stand for the
                # content.
                return streamed, class_names, key_of(format=STREAMED_FORMAT, state=place.listing, **options)
            key = key_of(state=place.content(), **options)
            # The key is that of the content, which may have been decoded from another folder.
            decoded = recall(key) or _decode(streamed, class_names, key, told)
    # Notices of a cached decoding are repeated, except those that this call has already shown.
    for text in decoded.notices:
        if text not in told:
            notice(text)
    return decoded.splits, decoded.class_names, decoded.digest


def _texts(tables: Tables, where: Spec, task: Task) -> tuple[Mapping[str, Samples], tuple[str, ...], str]:
    """Return the splits of a table of texts, the class names, and the digest of the content."""
    if task.continues_texts:
        options: dict[str, Any] = {"limit": where.tokens, "block": where.blocks, "spec": where.text}
        corpora = read_corpora(tables.splits, tables.texts, **options)
        # Known when the tokenizer is: a name for each token would be a list of its vocabulary.
        return corpora, (), texts_digest(corpora)
    class_names, targets = targets_of(tables, task, where.text)
    splits = read_texts(tables.splits, tables.texts, targets, limit=where.tokens, spec=where.text)
    return splits, class_names, texts_digest(splits)


def _decode(
    streamed: Mapping[str, StreamedImages] | Mapping[str, PairedImages],
    class_names: tuple[str, ...],
    key: str,
    told: Sequence[str],
) -> Decoded:
    """Decode all images and store them, with the notices shown until then."""
    resident = {name: images.resident() for name, images in streamed.items()}
    tell_blank(streamed, resident)
    tell_repeats(streamed, resident)
    decoded = Decoded(resident, class_names, content_digest(resident), tuple(told))
    store(key, decoded)
    return decoded


def _kept(streamed: Mapping[str, Any], limit_mib: int) -> Mapping[str, Any]:
    """Return images with maps such that they stay in memory once they were read, if all of them have room there."""
    paired = {name: images for name, images in streamed.items() if isinstance(images, PairedImages)}
    fit = paired and sum(images.mib for images in paired.values()) <= limit_mib
    return {name: images.kept() for name, images in paired.items()} if fit else streamed


def _mib(
    splits: Mapping[str, ResidentImages] | Mapping[str, StreamedImages] | Mapping[str, PairedImages],
) -> float:
    sizes: list[int] = [len(images) * images.channels * math.prod(images.size) for images in splits.values()]
    return sum(sizes) / 2**20
