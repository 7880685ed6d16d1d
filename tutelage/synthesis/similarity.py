"""How near data are to those that a network was trained on, from its batch-norm statistics alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tutelage.data.dataset import TEST, TRAIN, Data
from tutelage.data.ood import fit_images
from tutelage.data.resolve import DataSource
from tutelage.data.samples import Samples
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.synthesis.losses import Direction, divergence
from tutelage.synthesis.objective import Statistics
from tutelage.synthesis.subject import Subject, TeacherSource, subject_of
from tutelage.system.chance import generator, kept
from tutelage.system.console import Reporter, Silent
from tutelage.system.devices import device_type

NOISE = "noise"
"""The name that stands for Gaussian noise of the mean and the deviation of the network's images."""

_NOISE_BATCHES = 10


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """How near some data are.

    Attributes:
        name: The data's name.
        divergence: From the remembered statistics, in nats: the mean over channels, layers and batches.
        deviation: Standard deviation of that over the batches; None with one batch.
        layers: The divergence of each layer, in the order of the network.
        images: How many images were looked at.
    """

    name: str
    divergence: float
    deviation: float | None
    layers: dict[str, float]
    images: int


@kept()
def similarity(
    teacher: TeacherSource,
    data: Sequence[DataSource],
    *,
    split: str = TEST,
    batch_size: int = 128,
    images: int | None = None,
    direction: Direction = "code",
    classes: int | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    normalize: str | None = None,
    seed: int = 0,
    device: str = "auto",
    reporter: Reporter | None = None,
    trust_code: bool = False,
) -> list[Similarity]:
    """Return how near data are to those that a network was trained on, the nearest first.

    Args:
        teacher: The network.
        data: Data by name or path, datasets, or `noise`.
        split: The split to look at; data with one split only are looked at as a whole.
        batch_size: Images in a batch; statistics are those of a batch, so they compare for one size only.
        images: How many images of each to look at, drawn at random; None for all.
        direction: Of the divergence: `code` from the data to what is remembered, `paper` the other way.
        classes: The network's number of classes, where it does not tell.
        channels: The channels of its images, where it does not tell.
        image_size: The side of its images, where it does not tell.
        normalize: The statistics of a module's images.
        seed: Seed of the order of the images.
        device: `auto`, `cpu`, `cuda` or `mps`.
        reporter: Shows the progress.
        trust_code: Whether a saved network may run the code that it names.

    Raises:
        UserError: If the network has no batch-norm statistics, or data cannot be read or have too few images.
    """
    if batch_size < 2:
        raise UserError(f"batch_size={batch_size} must be 2 or more: one image has no variance.")
    facts: Any = {"classes": classes, "channels": channels, "image_size": image_size, "normalize": normalize}
    subject = subject_of(teacher, **facts, trust_code=trust_code).to(device_type(device))
    try:
        statistics = Statistics(subject)
    except UserError as error:
        raise UserError(f"{subject.name} cannot tell which data are near. {error}") from error
    told, found = reporter or Silent(), []
    for source in data:
        name, batches = _batches(source, subject, split=split, batch_size=batch_size, images=images, seed=seed)
        told.begin(name, total=1, done=0)
        found.append(_measured(name, batches, statistics, device_type(device), direction))
        told.advance(1)
        told.status(f"{found[-1].divergence:.4f} nats")
        told.end(finished=True)
    return sorted(found, key=lambda one: one.divergence)


@torch.no_grad()
def _measured(
    name: str, batches: Iterator[Tensor], statistics: Statistics, device: str, direction: Direction
) -> Similarity:
    rows: list[dict[str, float]] = []
    images = 0
    for batch in batches:
        images += len(batch)
        _, pairs = statistics(batch.to(device))
        # A layer that runs several times counts as often, as in the loss.
        layers: dict[str, list[float]] = {}
        for layer, here, there in pairs:
            layers.setdefault(layer, []).append(float(divergence(here, there, direction).mean()))
        rows.append({layer: fmean(values) for layer, values in layers.items()})
    values = [fmean(row.values()) for row in rows]
    if not all(map(math.isfinite, values)):
        raise UserError(f"The statistics of {name} are not finite: its images hold values that are not numbers.")
    return Similarity(
        name=name,
        divergence=fmean(values),
        deviation=stdev(values) if len(values) > 1 else None,
        layers={layer: fmean(row[layer] for row in rows) for layer in rows[0]},
        images=images,
    )


def _batches(
    source: DataSource, subject: Subject, *, split: str, batch_size: int, images: int | None, seed: int
) -> tuple[str, Iterator[Tensor]]:
    """Return the name of data, and batches of their images in the network's channels and size, in [0, 1]."""
    if isinstance(source, str) and source == NOISE:
        return NOISE, _noise(subject, batch_size, seed)
    loaded = _loaded(source)
    # What has one split only, such as a folder of images without further folders, is looked at as a whole.
    split = TRAIN if set(loaded.splits) == {TRAIN} else split
    samples = loaded.split(split)
    if not isinstance(samples, Samples):
        raise _is_loader()
    count = len(samples) if images is None else min(images, len(samples))
    if count < batch_size:
        raise UserError(
            f"{loaded.name} has {count} images to look at, fewer than a batch of {batch_size}: take a smaller batch "
            "(--batch-size; batch_size= in Python) for all data."
        )
    # In random order, because tables are often sorted by class.
    chosen = torch.randperm(len(samples), generator=generator(seed))[: count // batch_size * batch_size]
    loader = loaded.with_splits(**{split: samples.select(chosen.numpy())}).loader(
        split, train=False, batch_size=batch_size
    )
    return loaded.name, (fit_images(batch.inputs, subject.channels, subject.size) for batch in loader.epoch(0))


def _loaded(source: DataSource) -> Data:
    if isinstance(source, Data):
        return source
    if isinstance(source, str):
        return load_data(source, task="unlabelled", validation=0, augment="none", hold_out_test=False)
    if isinstance(source, DataLoader):
        raise _is_loader()
    return as_data(source, hold_out=0, task="unlabelled", for_training=False)


def _is_loader() -> UserError:
    return UserError("Similarity draws images in an order of its own, and a DataLoader has one: pass its dataset.")


def _noise(subject: Subject, batch_size: int, seed: int) -> Iterator[Tensor]:
    for number in range(_NOISE_BATCHES):
        drawn = torch.randn((batch_size, subject.channels, *subject.size), generator=generator(seed, number))
        yield subject.pixels(drawn).clamp(0, 1)
