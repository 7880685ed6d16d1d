"""How unlike the classes are to a trained network, by what it makes of their samples or by its classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from tutelage.core.pairing import Paired
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.evaluation.scores import EVALUATION_BATCH
from tutelage.features.anatomy import Tap, classifier_copy
from tutelage.features.padding import mean_over_places
from tutelage.features.products import unit_rows
from tutelage.losses import UNLABELLED, wide
from tutelage.system import digests
from tutelage.system.devices import device_type
from tutelage.training.run import Run

Similarity = Literal["features", "logits", "classifier"]
Rows = Callable[[Teacher, Batch], Tensor]
"""From a teacher and a batch to rows of each sample, `[batch, row, channel]`."""


def class_distances(
    run: Run,
    teacher: Teacher,
    data: Data,
    example: Any,
    *,
    kind: Similarity,
    samples: int,
    paired: Paired | None = None,
) -> Tensor:
    """Return how unlike each two classes are, `[class, class]`; from training samples once in a run, as a stage.

    Args:
        run: The run. Its reporter is told the memory that this takes.
        teacher: The teacher.
        data: The data.
        example: Inputs for one forward pass.
        kind: Of what classes are compared: `features` of a layer, `logits`, or the weights of the `classifier`.
        samples: Samples of each class, at most.
        paired: For `features`: a teacher that reads the layer of the pair.

    Raises:
        UserError: If the teacher has no network to read or its answers are recorded, or a class has no sample.
    """
    if kind == "classifier":
        return cosine_distances(classifier_copy(teacher.inner_network(), example).weight)
    if kind == "features":
        # First, because a teacher without layers has more remedies than one that is recorded.
        teacher.inner_network()
    teacher.must_be_live(
        "Classes are compared by what the teacher makes of plain training samples, and a recording has only its views"
    )
    rows: Callable[[Teacher, Batch], Tensor]
    reader, rows, layer = teacher, rows_of_logits, "logits"
    if kind == "features":
        assert paired is not None
        reader, tap = paired.teacher, paired.pairs[0].teacher
        rows, layer = rows_of_layer(tap), str(tap)

    def make() -> Tensor:
        device = device_type(run.training.device)
        found = class_rows(reader, rows, data, samples, device=device)
        run.reporter.note(
            f"{len(found):,} classes are compared by {found.shape[1]:,} rows of {found.shape[2]:,} numbers each, of "
            f"the teacher's {layer}: {found.nbytes / 1e6:,.1f} MB; fewer samples take less."
        )
        return cka_distances(found, device=device)

    return run.stage(
        "classes",
        make,
        # In a rehearsal nobody is asked: all classes are as unlike.
        rehearse=lambda: 1 - torch.eye(data.num_classes),
        teacher=teacher.identity(),
        weights=digests.of_tensors(teacher.state_dict() | dict(teacher.named_buffers())),
        data=data.fingerprint,
        layer=layer,
        samples=samples,
    )


def rows_of_layer(tap: Tap) -> Rows:
    """Return a function that gives a layer's features at each place; of padded samples their mean over the places.

    Args:
        tap: The teacher's layer.
    """

    def rows(teacher: Teacher, batch: Batch) -> Tensor:
        output = teacher(batch)
        maps, mask = wide(tap.map(output)), tap.mask(output)
        # Samples of different lengths have no places in common.
        return maps.flatten(2).transpose(1, 2) if mask is None else mean_over_places(maps, mask)[:, None]

    return rows


def rows_of_logits(teacher: Teacher, batch: Batch) -> Tensor:
    """Return the logits as one row of each sample."""
    return wide(teacher(batch).logits)[:, None]


def class_rows(teacher: Teacher, rows: Rows, data: Data, samples: int, *, device: str = "cpu") -> Tensor:
    """Return the rows of each class, `[class, row, channel]`, on the CPU.

    They are of the first training samples of each class, in the order of the data and without augmentation: of so many
    as are asked for, or as many as the smallest class has.

    Args:
        teacher: The teacher. It is moved to the CPU in the end.
        rows: What is read of it.
        data: The data.
        samples: Samples of each class, at most.
        device: Where the teacher answers.

    Raises:
        UserError: If a class has no sample, or all classes together have only one row each.
    """
    # Filled as samples come, until every class has enough: the data need not be sorted by class.
    found: list[list[Tensor]] = [[] for _ in range(data.num_classes)]
    teacher.to(device)
    try:
        for batch in data.loader("train", train=False, batch_size=EVALUATION_BATCH, device=device).epoch(0):
            labels = batch.labels.argmax(1) if batch.labels.is_floating_point() else batch.labels
            numbers = labels.tolist()
            wanted = [at for at, label in enumerate(numbers) if label != UNLABELLED and len(found[label]) < samples]
            for at, row in zip(wanted, rows(teacher, batch)[wanted].cpu() if wanted else (), strict=True):
                if len(found[numbers[at]]) < samples:
                    found[numbers[at]].append(row)
            if min(map(len, found)) >= samples:
                break
    finally:
        teacher.to("cpu")
    # All classes need equally many rows, because row k of one is compared with row k of the other.
    least = min(map(len, found))
    if least * (len(found[0][0]) if found[0] else 0) < 2:
        empty = [name for name, own in zip(data.class_names, found, strict=True) if len(own) == least]
        raise UserError(
            f"Classes are compared by their training samples, and {', '.join(empty[:5])} has {least} with a label: two "
            "are needed. Compare them by the teacher's classifier instead: similarity=classifier."
        )
    return torch.stack([torch.cat(own[:least]) for own in found])


def cka_distances(rows: Tensor, *, device: str = "cpu") -> Tensor:
    r"""Return one minus the linear CKA of each two classes, `[class, class]`.

    $\mathrm{CKA}(X, Y) = \|Y^\top X\|^2 / (\|X^\top X\| \, \|Y^\top Y\|)$ with centred columns. Row $k$ of a class is
    paired with row $k$ of the other, so the order of the rows counts. A class of equal rows is like no other.

    Args:
        rows: `[class, row, channel]`; the columns are centred in place.
        device: Where to compute.
    """
    # In place: the rows of all classes may be large.
    rows -= rows.mean(1, keepdim=True)
    found = torch.zeros(len(rows), len(rows), dtype=rows.dtype)
    others = [each.to(device) for each in rows]
    for number, own in enumerate(others):
        for other in range(number, len(rows)):
            found[number, other] = found[other, number] = (others[other].T @ own).square().sum().cpu()
    lengths = found.diagonal().sqrt()
    products = lengths[:, None] * lengths
    distances = 1 - torch.where(products > 0, found / products.where(products > 0, 1.0), 0.0)
    return distances.clamp(min=0).fill_diagonal_(0)


def cosine_distances(weights: Tensor) -> Tensor:
    """Return one minus the cosine of each two classes' weights in a classifier, `[class, class]`.

    Args:
        weights: `[class, channel]`.
    """
    rows = unit_rows(wide(weights))
    return (1 - rows @ rows.T).clamp(min=0).fill_diagonal_(0)


def sharpened(distances: Tensor, sharpness: float) -> Tensor:
    r"""Return $1 - e^{-\kappa d}$, the cost of moving probability from one class to another, `[class, class]`.

    Args:
        distances: $d$, `[class, class]`.
        sharpness: $\kappa$.
    """
    # `expm1` keeps the digits of small distances.
    return -torch.expm1(-sharpness * distances)
