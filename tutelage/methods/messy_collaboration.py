"""Messy collaboration: wrong labels for student, teacher or both, with any other method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Progress
from tutelage.core.registry import register
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.data.label_noise import Flips, label_offsets, training_labels, with_wrong_labels
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.losses import UNLABELLED
from tutelage.methods.parts.altered import Altered
from tutelage.methods.parts.papers import ARANI
from tutelage.methods.supervised import Supervised
from tutelage.system.chance import generator
from tutelage.training.run import Run

Redraw = Literal["once", "epoch", "batch"]


@register("messy-collaboration", papers=[ARANI], reads={"sample-labels"})
def messy_collaboration(
    run: Run,
    distill: Callable[..., nn.Module],
    data: Data,
    make_teacher: Callable[[str], nn.Module],
    *,
    method: str = "kd",
    student_rate: float = 0.1,
    teacher_rate: float = 0.0,
    redraw: Redraw = "once",
    flips: Flips = "any",
) -> nn.Module:
    r"""Messy collaboration: any method with a share of wrong training labels, for student, teacher or both.

    $$ \tilde y = \begin{cases} y & \text{with probability } 1 - \eta \\ u & \text{with probability } \eta \end{cases},
    \quad u \sim U\{1, \ldots, K\} $$

    A label is thus wrong with probability $\eta (1 - 1/K)$, or $\eta$ with `flips="other"`. What is drawn depends on
    the seed, the sample's position in the training data and, if redrawn, the epoch: it is the same for every method,
    after an interruption and on several processes, and a lower rate makes a subset of the labels wrong. The labels of
    validation and test stay as they are, also where validation samples are held out of the training data.

    Args:
        run: The run whose stages these are.
        distill: Runs the method.
        data: The data.
        make_teacher: Makes the teacher afresh; called where it is trained on wrong labels.
        method: The method, with options of its own: `at`, or `(kd:temperature=8,alpha=0.5)`.
        student_rate: $\eta$ of the labels that the method trains on, from 0 to 1, for every network that it trains.
        teacher_rate: $\eta$ of the labels that the teacher trains on. Above zero, the teacher's architecture is trained
            in this run; at zero, the given teacher is used.
        redraw: `once` for the run; every `epoch`; or for every `batch`, from the run's own random numbers. A DataLoader
            allows only this. Some methods read labels before they train, such as `crd` and `cs-kd` for the classes of
            all samples. With `once` they read the wrong labels, else the true ones.
        flips: Whether a label is drawn among `any` class, the true one included, or among the `other` ones.

    Raises:
        UserError: If a rate is not between 0 and 1, the data are a DataLoader and labels are not redrawn for every
            batch, or `teacher_rate` is above zero and the method does not learn from a trained teacher.

    Paper: Arani, Sarfraz, Zonooz, Noise as a Resource for Learning in Knowledge Distillation, WACV 2021.

    Differences: No code of the authors was found. The rates, whether labels are redrawn, and whether student and
        teacher have the same wrong labels are not known to us: the defaults are our choice, and wrong labels are drawn
        for each of the two on its own.
    """
    if not (0 <= student_rate <= 1 and 0 <= teacher_rate <= 1):
        raise UserError(f"student_rate={student_rate} and teacher_rate={teacher_rate} must be between 0 and 1.")
    replaced: dict[str, Any] = {}
    if teacher_rate:
        # Trained on its own wrong labels, but scored on the true ones.
        messy, wrong = _messy(run, data, teacher_rate, "teacher", redraw, flips)
        network = messy.fit("messy-teacher", Supervised(make_teacher("teacher")), wrong)
        if data.test is not None:
            run.note(teacher_scores=run.evaluate("messy-teacher-scores", network, data))
        replaced["teacher"] = FrozenTeacher(network)
    messy, wrong = _messy(run, data, student_rate, "student", redraw, flips)
    return distill(method, run=messy, data=wrong, **replaced)


def _messy(run: Run, data: Data, rate: float, part: str, redraw: Redraw, flips: Flips) -> tuple[Run, Data]:
    """Return a run and data in which a share of the training labels is wrong."""
    # Each part has its own seed, so that teacher and student get independent wrong labels.
    seed = run.seed_of(f"labels/{part}")
    if not rate:
        return run, data
    # Labels that stay wrong for the whole run are a property of the data: everything that reads labels sees them.
    if redraw == "once":
        return run, with_wrong_labels(data, rate, seed=seed, flips=flips)
    # Drawn for all samples at once, so that a label does not depend on the batch its sample comes in.
    samples = len(training_labels(data)) if redraw == "epoch" else None

    def noise() -> LabelNoise:
        return LabelNoise(rate, data.num_classes, flips=flips, seed=seed, samples=samples)

    return run.wrapping(lambda inner: Altered(inner, noise())), data


class LabelNoise(nn.Module):
    """Makes some labels of a batch wrong, drawn anew in every epoch or for every batch.

    Args:
        rate: Share of the labels that are drawn anew.
        num_classes: Number of classes.
        flips: Whether a label is drawn among `any` class, the true one included, or among the `other` ones.
        seed: Seed of the draws; together with the epoch it decides all of them.
        samples: Number of training samples; None redraws for every batch.
    """

    def __init__(self, rate: float, num_classes: int, *, flips: Flips, seed: int, samples: int | None = None) -> None:
        super().__init__()
        self.rate, self.num_classes, self.flips, self.seed, self.samples = rate, num_classes, flips, seed, samples
        # The draw of one epoch. It follows from the seed and the epoch, so no checkpoint needs it.
        self._drawn: tuple[int, Tensor] | None = None

    def forward(self, batch: Batch, progress: Progress) -> Batch:
        """Return the batch with some labels wrong."""
        labels = batch.labels
        if self.samples is None:
            offsets = label_offsets(len(labels), self.rate, self.num_classes, flips=self.flips, device=labels.device)
        else:
            assert batch.indices is not None, "only a DataLoader's batches lack positions"
            offsets = self._of_epoch(self.samples, progress.epoch, labels.device)[batch.indices]
        # What is drawn is a shift of the label, so drawing needs no labels.
        wrong = (labels + offsets) % self.num_classes
        return replace(batch, targets=labels.where(labels == UNLABELLED, wrong))

    def _of_epoch(self, samples: int, epoch: int, device: torch.device) -> Tensor:
        if self._drawn is None or self._drawn[0] != epoch or self._drawn[1].device != device:
            chance = generator(self.seed, epoch)
            offsets = label_offsets(samples, self.rate, self.num_classes, flips=self.flips, chance=chance)
            self._drawn = epoch, offsets.to(device)
        return self._drawn[1]
