"""Whether a teacher knows these data and, if not, why: input statistics, order of classes, or classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tutelage.data.dataset import Data
from tutelage.data.plan import RecordedViews
from tutelage.data.samplers import ShuffledBatches
from tutelage.evaluation.scores import batch_for, measure_network
from tutelage.models.answers import answer
from tutelage.models.modes import evaluating
from tutelage.models.normalization import Normalization, Normalized
from tutelage.recording.replay import name_of, sampled_answers

# Samples to ask about, and how many at once.
SAMPLES = 512
BATCH = 128
# How rarely a guess may be taken for knowledge; and how many standard deviations count as a difference.
CHANCE_LEVEL = 1e-4
SIGNIFICANT = 3.0
# The share of all samples that another order must add before it is believed.
REORDERING_GAIN = 0.05


@dataclass(frozen=True, kw_only=True)
class TeacherReport:
    """The findings about a teacher.

    Attributes:
        split: The split that it was asked about.
        samples: The number of samples that it was asked about.
        accuracy: The share of them that it gets right.
        chance: Accuracy of a guess.
        at_chance: Whether its accuracy is that of a guess, on enough samples to recognise a good teacher.
        too_few: Whether its accuracy is that of a guess, but on too few samples to recognise a good teacher.
        answered: Number of different classes among its answers.
        num_classes: Number of classes of the data.
        normalization: Name of its input statistics; empty if it has none.
        alternatives: Accuracy under other input statistics, by name.
        better: Name of other statistics that are significantly better; None if none are.
        reordered: Accuracy after its classes are put into the best order; None if that is not far better.
        order: The teacher's class for each class of the data, if `reordered` is given.
        recording: Name of its recording; empty if it was asked directly.
    """

    split: str
    samples: int
    accuracy: float
    chance: float
    at_chance: bool
    too_few: bool
    answered: int
    num_classes: int
    normalization: str = ""
    alternatives: Mapping[str, float] = field(default_factory=dict)
    better: str | None = None
    reordered: float | None = None
    order: Sequence[int] = ()
    recording: str = ""


def examine_teacher(network: nn.Module, data: Data) -> TeacherReport | str:
    """Ask a network about a few batches of held-out data. Without one class for each sample, only scores are returned.

    Args:
        network: The teacher's network, from images in [0, 1] to logits.
        data: The data. The first split with targets is used, of validation, test and training.
    """
    known = [name for name in ("validation", "test", "train") if data.count(name) and name not in data.unlabelled]
    if not known:
        return "Teacher  no split has targets, so nothing was measured."
    split = known[0]
    if "sample-labels" not in data.task.offers:
        return _scored(network, data, split)
    inputs, targets = _sample(data, split)
    answers = _answers(network, inputs)
    right = answers == targets
    # On the same inputs, so that the comparison is paired.
    others = {name: _answers(other, inputs) == targets for name, other in _renormalized(network, data).items()}
    best = max(others, key=lambda name: int(others[name].sum()), default=None)
    return replace(
        _judged(answers, targets, split, data),
        normalization=_name(network.normalization, data) if isinstance(network, Normalized) else "",
        alternatives={name: float(hits.float().mean()) for name, hits in others.items()},
        better=best if best is not None and _is_better(others[best], right) else None,
    )


def _scored(network: nn.Module, data: Data, split: str) -> str:
    """Return a sentence with a network's scores on a few batches, by the metrics that are shown after every epoch."""
    few = replace(data, foreign=None)
    batches = math.ceil(SAMPLES / batch_for(data))
    scores = measure_network(network, few, split, device="cpu", detail="watched", batches=batches).compute()
    told = ", ".join(
        f"{data.task.metrics[name].title} {data.task.metrics[name].text(value)}" for name, value in scores.items()
    )
    return f"Teacher  {told or 'nothing could be measured'} on up to {batches * batch_for(data)} {split} samples."


def examine_recording(recording: RecordedViews, data: Data) -> TeacherReport | None:
    """Return a report on recorded answers to a few training samples; None if they cannot be judged or are too large.

    Args:
        recording: The recording.
        data: The data that were recorded.
    """
    sampled = sampled_answers(recording, data, most=_wanted(data))
    if sampled is None or "sample-labels" not in data.task.offers:
        return None
    answers, labels = sampled
    return replace(_judged(answers.argmax(1), labels, "train", data), recording=name_of(recording))


def _judged(answers: Tensor, targets: Tensor, split: str, data: Data) -> TeacherReport:
    """Return the findings that follow from answers and targets alone."""
    right = answers == targets
    chance = 1 / data.num_classes
    is_open = not _beats_chance(int(right.sum()), len(right), chance)
    # A good teacher counts as one that is at least halfway between guessing and always being right.
    # On few samples, even such a one does not stand out.
    can_tell = _beats_chance(int(len(right) * (1 + chance) / 2), len(right), chance)
    reordered, order = _reorder(answers, targets, data.num_classes)
    is_reordered = _is_better(reordered, right) and int((reordered & ~right).sum()) > REORDERING_GAIN * len(right)
    return TeacherReport(
        split=split,
        samples=len(targets),
        accuracy=float(right.float().mean()),
        chance=chance,
        at_chance=is_open and can_tell,
        too_few=is_open and not can_tell,
        answered=len(set(answers.tolist())),
        num_classes=data.num_classes,
        reordered=float(reordered.float().mean()) if is_reordered else None,
        order=order if is_reordered else (),
    )


def _beats_chance(right: int, samples: int, chance: float) -> bool:
    """Return whether guessing would hardly ever give so many right answers."""
    from scipy.stats import binom

    return bool(binom.sf(right - 1, samples, chance) <= CHANCE_LEVEL)


def _wanted(data: Data) -> int:
    """Return how many samples to ask about."""
    # More for many classes: their order can only be found if each class occurs several times.
    return max(SAMPLES, min(8 * data.num_classes, 2 * SAMPLES))


def _sample(data: Data, split: str) -> tuple[Sequence[Any], Tensor]:
    """Return the inputs of a few batches, and all their labels."""
    # Shuffled, because files are often sorted by class. A user's own loader keeps its own order.
    own = isinstance(data.split(split), DataLoader)
    sampler = None if own else ShuffledBatches(data.count(split), batch_size=BATCH)
    loader = data.loader(split, train=False, batch_size=BATCH, workers=0, batch_sampler=sampler)
    batches = list(islice(loader.epoch(0), math.ceil(_wanted(data) / BATCH)))
    return [batch.inputs for batch in batches], torch.cat([batch.labels for batch in batches])


@torch.no_grad()
def _answers(network: nn.Module, inputs: Sequence[Any]) -> Tensor:
    with evaluating(network):
        return torch.cat([answer(network, batch).argmax(1) for batch in inputs])


def _candidates(data: Data) -> dict[str, Normalization]:
    # Those that pretrained networks usually come with. A teacher trained with one and asked with another knows less.
    known = {"data": Normalization(mean=tuple(data.mean), std=tuple(data.std))} if data.mean else {}
    half = Normalization(mean=(0.5,), std=(0.5,))
    return known | {"imagenet": Normalization.named("imagenet"), "none": Normalization.named("none"), "0.5:0.5": half}


def _renormalized(network: nn.Module, data: Data) -> dict[str, nn.Module]:
    """Return the network with each of the common input statistics, except its own."""
    if not isinstance(network, Normalized):
        return {}
    return {
        name: Normalized(network.model, found.mean, found.std, multiple=network.multiple)
        for name, found in _candidates(data).items()
        if len(found.mean) in (1, data.in_channels) and not _alike(found, network.normalization)
    }


def _name(normalization: Normalization, data: Data) -> str:
    """Return the common name of statistics, or their numbers."""
    near = (name for name, found in _candidates(data).items() if _alike(found, normalization))
    return next(near, str(normalization))


def _alike(one: Normalization, other: Normalization) -> bool:
    pairs = [(one.mean, other.mean), (one.std, other.std)]
    return all(
        math.isclose(a, b, abs_tol=0.005)
        for left, right in pairs
        for a, b in zip(_spread(left, 3), _spread(right, 3), strict=False)
    )


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values * channels if len(values) == 1 else values


def _is_better(one: Tensor, other: Tensor) -> bool:
    """Return whether the first answers are right significantly more often than the second, by McNemar's test."""
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    return gained - lost > SIGNIFICANT * math.sqrt(max(1, gained + lost))


def _reorder(answers: Tensor, targets: Tensor, num_classes: int) -> tuple[Tensor, Sequence[int]]:
    """Return which answers are right under the best one-to-one order of classes, and that order.

    For each half of the samples, the order is found on the other half: the best order on the same samples would seem
    better than chance even for a teacher that guesses.
    """
    first = torch.arange(len(targets)) % 2 == 0
    right = torch.zeros(len(targets), dtype=torch.bool)
    for measured_on in (first, ~first):
        order = torch.as_tensor(_assign(answers[~measured_on], targets[~measured_on], num_classes))
        right[measured_on] = answers[measured_on] == order[targets[measured_on]]
    return right, _assign(answers, targets, num_classes)


def _assign(answers: Tensor, targets: Tensor, num_classes: int) -> Sequence[int]:
    """Return the teacher's class for each class of the data, by the most matches in all."""
    # A teacher with more classes may answer with one that the data do not have.
    kept = answers < num_classes
    confusion = torch.zeros(num_classes, num_classes)
    confusion.index_put_((targets[kept], answers[kept]), torch.ones(int(kept.sum())), accumulate=True)
    # If counts are equal, the small diagonal lets a class stand for itself.
    from scipy.optimize import linear_sum_assignment

    _, order = linear_sum_assignment((confusion + 1e-3 * torch.eye(num_classes)).numpy(), maximize=True)
    return [int(answer) for answer in order]
