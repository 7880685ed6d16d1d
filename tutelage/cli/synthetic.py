"""The commands that work from a trained network without the data that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from tutelage.api import synthesize
from tutelage.cli.parser import Found, parse
from tutelage.errors import UserError
from tutelage.report.pictures import distances
from tutelage.synthesis.settings import read_weights
from tutelage.synthesis.similarity import Similarity, similarity
from tutelage.system.console import Terminal, screen
from tutelage.system.files import write_json


@dataclass(frozen=True, kw_only=True)
class SubjectOptions:
    """Network.

    Attributes:
        teacher: Trained network: a run's folder, NETWORK@weights, timm:NAME and so on.
        classes: Its number of classes, where it does not tell: a run and pretrained weights do.
        channels: Channels of its images, where it does not tell; 3 by default.
        image_size: Side of its images in pixels, where it does not tell.
        device: auto, cpu, cuda, mps.
        trust_code: Run the code that a saved network names (FILE.py:FACTORY, PACKAGE:FACTORY). It is refused unless you
            named it yourself before.
    """

    teacher: str
    classes: int | None = None
    channels: int | None = None
    image_size: int | None = None
    device: str = "auto"
    trust_code: bool = False


@dataclass(frozen=True, kw_only=True)
class SynthesizeOptions:
    """Images.

    Attributes:
        scheme: What the images are made to do: gaussian (nothing, they are noise), inception (the network is sure of a
            class), bn-statistics (the inputs of its batch norms have the statistics that it remembers),
            bn-statistics+inception (both), or deepinversion.
        per_class: Number of images for each class.
        out: Folder of the dataset.
        iterations: Steps of the optimizer for each batch; 1000 by default, 2000 for deepinversion.
        optimizer: Optimizer of the pixels, adam or sgd; adam by default.
        lr: Its learning rate, in standard deviations of the images; 0.1 by default, 0.05 for deepinversion.
        direction: Of the divergence of batch-norm statistics: code (from the images to what is remembered) or paper.
        weights: Weights of the losses where they are not the scheme's own, such as smoothness=20,class=0.5.
        copies: Views of each image in an iteration; 4 by default, 1 for deepinversion.
        augment: How the views differ, written as for training.
        jitter: By how many pixels the images are shifted at most in each iteration.
        rounding: Whether the network sees the images in 8 bits, as they are stored.
        batch_size: Images that are made together; 128 by default, 256 for deepinversion.
        snapshots: Iterations after which the images are kept as a dataset of their own, OUT-at-N, such as 100,500.
        rival: Student that should disagree with the teacher, for --weights competition=1 of deepinversion.
        part: Part of the work, such as 1/4 of four processes or machines that share the folder.
        seed: Seed of everything.
        threads: Processor threads to compute with.
    """

    scheme: str = "bn-statistics+inception"
    per_class: int = 20
    out: str
    iterations: int | None = None
    optimizer: Literal["adam", "sgd"] | None = None
    lr: float | None = None
    direction: Literal["code", "paper"] | None = None
    weights: str | None = None
    copies: int | None = None
    augment: str | None = None
    jitter: int | None = None
    rounding: bool = True
    batch_size: int | None = None
    snapshots: str | None = None
    rival: str | None = None
    part: str | None = None
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class SimilarityOptions:
    """Data.

    Attributes:
        data: Datasets to rank, named as for training; noise stands for Gaussian noise.
        split: train, validation or test.
        batch_size: Images in a batch; the statistics are those of a batch.
        images: Number of images of each dataset to look at; all by default.
        direction: Of the divergence: code (from the data to what is remembered) or paper.
        seed: Seed of the order of the images.
        out: Folder for similarity.json and similarity.png; nothing is kept by default.
    """

    data: list[str]
    split: str = "test"
    batch_size: int = 128
    images: int | None = None
    direction: Literal["code", "paper"] = "code"
    seed: int = 0
    out: str | None = None


def synthesize_command(words: Sequence[str]) -> None:
    """Make a dataset of images from a trained network alone, without data.

    Each image is made from noise by following the network's gradient. The same command continues after an interruption.

    Examples:
        tutelage synthesize --teacher runs/teacher --scheme bn-statistics+inception --per-class 100 --out runs/synthetic
        tutelage synthesize --teacher "nets.py:ResNet,normalize=cifar10@weights.safetensors" --classes 10 --image-size 32 --scheme deepinversion --out runs/inverted
        tutelage synthesize --teacher timm:resnet18.a1_in1k --image-size 224 --per-class 1 --iterations 500 --part 1/4 --out runs/synthetic
        tutelage distill data-free --teacher runs/teacher --student resnet8 --data runs/synthetic --test-data cifar10
    """  # noqa: E501
    found = parse(synthesize_command, words, SubjectOptions, SynthesizeOptions)
    given = _values(found, SubjectOptions, SynthesizeOptions)
    given["weights"] = read_weights(given["weights"] or "")
    given["snapshots"] = _numbers(given["snapshots"])
    made = synthesize(given.pop("teacher"), **given)
    if made is None:
        screen().print(f"{found.out} is not finished: other parts are still to be made.", soft_wrap=True)
        return
    screen().print(f"images  {made}  (--data {made})", soft_wrap=True)
    for name in ("contact-sheet.png", "losses.png"):
        if (made / name).exists():
            screen().print(f"        {made / name}", soft_wrap=True)


def similarity_command(words: Sequence[str]) -> None:
    """Rank datasets by how near they are to what a network was trained on, from its batch norms alone.

    Examples:
        tutelage similarity --teacher runs/teacher --data cifar10 cifar100 fashion-mnist noise
        tutelage similarity --teacher runs/teacher --data runs/synthetic path/to/photos --split train --out runs/similarity
    """  # noqa: E501
    found = parse(similarity_command, words, SubjectOptions, SimilarityOptions)
    given = _values(found, SubjectOptions, SimilarityOptions)
    teacher, out = given.pop("teacher"), given.pop("out")
    if not found.data:
        raise UserError("Name the data to rank: --data cifar10 cifar100 noise.")
    terminal = Terminal()
    try:
        rows = similarity(teacher, given.pop("data"), reporter=terminal, **given)
    finally:
        terminal.close()
    console = screen()
    console.print(_table(rows))
    if out is not None:
        folder, content = Path(out), [asdict(row) for row in rows]
        write_json(folder / "similarity.json", {"teacher": teacher, **given, "rows": content})
        distances(folder / "similarity.png", content, unit="divergence, nats")
        console.print(f"picture  {folder / 'similarity.png'}", soft_wrap=True)


def _values(found: Found, *groups: type) -> dict[str, Any]:
    return {field.name: getattr(found, field.name) for group in groups for field in fields(group)}


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(map(int, filter(None, (text or "").split(","))))
    except ValueError as error:
        raise UserError(f"--snapshots {text} must be whole numbers, joined by commas, such as 100,500.") from error


def _table(rows: Sequence[Similarity]) -> Table:
    """Return the table of the data, the nearest first."""
    table = Table("data", "divergence, nats", "deviation over batches", "images", box=None, pad_edge=False)
    for row in rows:
        deviation = "-" if row.deviation is None else f"{row.deviation:.4f}"
        table.add_row(row.name, f"{row.divergence:.4f}", deviation, f"{row.images:,}")
    return table
