"""What an exported file is worth: its answers, its own scores, its size and its latency, beside the network's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.criterion import Density
from tutelage.data.dataset import Data
from tutelage.data.task import Task
from tutelage.errors import UserError
from tutelage.evaluation.scores import evaluate_network
from tutelage.exporting.target import named_inputs
from tutelage.models.answers import answer

BATCHES = (1, 32)
"""The batch sizes whose latency is measured."""
# Of the largest logit: other kernels add in another order, which float32 shows in the sixth digit, layer by layer.
_TOLERANCE = 1e-3
# Samples whose answers are compared one by one, at most, and timed calls of each kind.
_COMPARED, _CALLS, _LEAD = 512, 15, 3


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found out about an exported file.

    Attributes:
        target: The format.
        file: The name of the file or folder.
        size: Its size in bytes.
        samples: How many samples both were asked about.
        largest_difference: The largest difference between two logits.
        agreement: The share of equal decisions: of samples, or of places where each place is answered. Numbers count as
            equal within a thousandth.
        split: The split that both were scored on.
        scores: The file's own scores on the whole split.
        network_scores: Those of the network.
        latency: Median milliseconds of the file by batch size.
        network_latency: Those of the network in eager PyTorch, from calls in turn with the file's.
        threads: Processor threads of both.
    """

    target: str
    file: str
    size: int
    samples: int
    largest_difference: float
    agreement: float
    split: str
    scores: Mapping[str, float]
    network_scores: Mapping[str, float]
    latency: Mapping[int, float]
    network_latency: Mapping[int, float]
    threads: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True)
class Judged:
    """What files are judged by.

    Attributes:
        data: The data.
        split: The split of the samples.
        scores: The network's scores on the split.
        density: What its logits are, as in `evaluate`.
    """

    data: Data
    split: str
    scores: Mapping[str, float]
    density: Density = "categorical"


@torch.no_grad()
def verify(
    exported: nn.Module, network: nn.Module, judged: Judged, *, target: str, place: Path, is_exact: bool
) -> Verified:
    """Ask an exported file and its network about real samples, and return how they differ.

    Args:
        exported: The loaded file.
        network: The network, in eval mode, on the processor.
        judged: The samples, and the network's own scores.
        target: The format's name.
        place: Where the file is.
        is_exact: Whether the answers must agree.

    Raises:
        UserError: If the file answers otherwise than the network, though its format computes as exactly.
    """
    data, split = judged.data, judged.split
    compared = batches_of(data, split, BATCHES[-1], _COMPARED)
    answers = [(answer(network, inputs), answer(exported, inputs)) for inputs in compared]
    differences = [float((ours - theirs).abs().max()) for ours, theirs in answers]
    scale = max(float(ours.abs().max()) for ours, _ in answers)
    # NaN is no small difference.
    if is_exact and not max(differences) <= _TOLERANCE * max(scale, 1.0):
        raise UserError(
            f"The exported {target} answers otherwise than the network: logits differ by up to {max(differences):.3g}, "
            f"where the largest is {scale:.3g}. Nothing was kept. Please report this with the network's name."
        )
    latency, network_latency = _in_turn(exported, network, data, split)
    return Verified(
        target=target,
        file=place.name,
        size=size_of(place),
        samples=sum(len(ours) for ours, _ in answers),
        largest_difference=max(differences),
        agreement=_agreement(answers, data.task),
        split=split,
        scores=evaluate_network(exported, data, split, device="cpu", density=judged.density).scores,
        network_scores=dict(judged.scores),
        latency=latency,
        network_latency=network_latency,
        threads=torch.get_num_threads(),
    )


def batches_of(data: Data, split: str, size: int, samples: int) -> list[Any]:
    """Return the inputs of the first samples of a split, batch by batch.

    Args:
        data: The data.
        split: The split.
        size: Samples in a batch.
        samples: How many samples at most, in whole batches.
    """
    found: list[Any] = []
    for batch in data.loader(split, train=False, batch_size=size, workers=0).epoch(0):
        if len(found) * size >= samples:
            break
        found.append(batch.inputs)
    return found


def some_of(data: Data, split: str, count: int) -> Any:
    """Return the inputs of as many samples as asked for; where a split has fewer, they come again."""
    [inputs] = batches_of(data, split, count, count)
    held = len(next(iter(named_inputs(inputs).values())))
    places = torch.arange(count) % held
    if isinstance(inputs, Mapping):
        return {name: value[places] for name, value in inputs.items()}
    return inputs[places]


def size_of(place: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())


def _agreement(answers: Sequence[tuple[Tensor, Tensor]], task: Task) -> float:
    """Return the share of equal decisions."""
    decided = [(task.decided(ours), task.decided(theirs)) for ours, theirs in answers]
    equal = [
        torch.isclose(ours, theirs, rtol=_TOLERANCE, atol=_TOLERANCE) if ours.is_floating_point() else ours == theirs
        for ours, theirs in decided
    ]
    return float(torch.cat([one.flatten() for one in equal]).double().mean())


def _in_turn(
    exported: nn.Module, network: nn.Module, data: Data, split: str
) -> tuple[dict[int, float], dict[int, float]]:
    """Return the median milliseconds of a call of both, by batch size, from calls in turn."""
    found: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for size in BATCHES:
        inputs = some_of(data, split, size)
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(_LEAD + _CALLS):
            for module, taken in zip((exported, network), times):
                start = time.perf_counter()
                answer(module, inputs)
                if number >= _LEAD:
                    taken.append(time.perf_counter() - start)
        for medians, taken in zip(found, times):
            medians[size] = 1000 * statistics.median(taken)
    return found
