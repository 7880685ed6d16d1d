"""Steps of distillation on texts: ours, a textbook loop on the same batches, other batches, and the bare student.

    python benchmarks/texts.py path/to/texts --network transformers:path/to/bert --out docs/results/text-speed.json

The teacher is the network, and the student has `--layers` of its layers. Every round runs every variant once, in turn,
and ratios are taken within rounds. Times are those of the processor, which other work does not lengthen by waiting.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.teachers import FrozenTeacher
from tutelage.data.dataset import Data
from tutelage.data.samplers import ShuffledBatches
from tutelage.data.sources import load_data
from tutelage.data.texts import ATTENTION_MASK
from tutelage.methods import KD
from tutelage.models.loading import load_network
from tutelage.models.tokenizers import encoded_for
from tutelage.system.console import Silent
from tutelage.training.driver import Driver
from tutelage.training.settings import Training

TEMPERATURE, ALPHA, LR = 4.0, 0.9, 1e-4
LIMIT = 128
clock = time.process_time


class Stopwatch(Silent):
    """Notes when the driver reports; the first report ends the warm-up."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def advance(self, steps: int) -> None:
        """Note the time."""
        self.times.append(clock())


def driven(make: Callable[[], tuple[nn.Module, nn.Module]], data: Data, batch_size: int) -> float:
    """Return the seconds of a step under our driver, its batches included."""
    student, teacher = make()
    training = Training(
        epochs=1, batch_size=batch_size, optimizer="adamw", lr=LR, precision="32-true", compile="off", log_every=1,
        threads=1, device="cpu", warmup_epochs=0,
    )  # fmt: skip
    watch = Stopwatch()
    method = KD(student, FrozenTeacher(teacher), temperature=TEMPERATURE, alpha=ALPHA)
    Driver(training, reporter=watch).fit(method, replace(data, splits={"train": data.train}))
    return (watch.times[-1] - watch.times[0]) / (len(watch.times) - 1)


def textbook(
    make: Callable[[], tuple[nn.Module, nn.Module]], batches: Sequence[tuple[dict[str, Tensor], Tensor]], *, bare: bool
) -> float:
    """Return the seconds of a step of a plain loop with cross-entropy and, unless it is bare, a KL loss."""
    student, teacher = make()
    student.train()
    teacher.eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR, weight_decay=5e-4, fused=True)
    started = 0.0
    for step, (inputs, targets) in enumerate(batches):
        if step == 1:
            started = clock()
        logits = student(**inputs).logits
        loss = F.cross_entropy(logits, targets)
        if not bare:
            with torch.no_grad():
                taught = teacher(**inputs).logits
            soft = F.kl_div(
                F.log_softmax(logits / TEMPERATURE, 1), F.softmax(taught / TEMPERATURE, 1), reduction="batchmean"
            )
            loss = (1 - ALPHA) * loss + ALPHA * TEMPERATURE**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (clock() - started) / (len(batches) - 1)


def padded(inputs: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    """Return inputs with zeros up to a length, as padding to a fixed length adds them."""
    return {name: F.pad(values, (0, length - values.shape[1])) for name, values in inputs.items()}


def batches_of(data: Data, batch_size: int, *, in_order: bool) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield the batches of an epoch: of like lengths, or of whatever comes."""
    sampler = ShuffledBatches(data.count("train"), batch_size=batch_size) if in_order else None
    loader = data.loader("train", train=True, batch_size=batch_size, batch_sampler=sampler)
    for batch in loader.epoch(0):
        yield dict(batch.inputs), batch.targets


def share_of_padding(batches: Sequence[tuple[dict[str, Tensor], Tensor]]) -> float:
    """Return the share of tokens that are padding."""
    masks = [inputs[ATTENTION_MASK] for inputs, _ in batches]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def pair_of(network: str, layers: int, classes: int) -> Callable[[], tuple[nn.Module, nn.Module]]:
    """Return a function that returns a student, always with the same first weights, and its teacher."""
    sizes: dict[str, Any] = {"num_classes": classes, "in_channels": 0}
    teacher, student = (
        load_network(f"{network},num_classes={classes}{options}", **sizes).model
        for options in ("", f",layers={layers}")
    )
    first = {name: value.clone() for name, value in student.state_dict().items()}

    def make() -> tuple[nn.Module, nn.Module]:
        student.load_state_dict(first)
        return student, teacher

    return make


def table(content: dict[str, Any]) -> str:
    """Return what was measured as a table; ratios are over the times of the first variant, within rounds."""
    times: dict[str, list[float]] = content["seconds"]
    ours = next(iter(times.values()))
    lines = ["| Variant | ms a step | time over ours | least to most |", "|:--|--:|--:|--:|"]
    for name, values in times.items():
        ratios = [value / own for value, own in zip(values, ours, strict=True)]
        milliseconds, ratio = 1000 * statistics.median(values), statistics.median(ratios)
        lines.append(f"| {name} | {milliseconds:.0f} | {ratio:.2f} | {min(ratios):.2f} to {max(ratios):.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the rounds, print the table, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--network", required=True)
    parser.add_argument("--out")
    for name, default in (("layers", 3), ("batch", 32), ("steps", 10), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    subset = given.batch * given.steps
    source = load_data(f"{given.data},tokens={LIMIT}", metric="accuracy", subset=subset, validation=0)
    data = encoded_for(source, [given.network])
    make = pair_of(given.network, given.layers, data.num_classes)
    like, mixed = (list(batches_of(data, given.batch, in_order=in_order)) for in_order in (False, True))
    fixed = [(padded(inputs, LIMIT), targets) for inputs, targets in mixed]
    variants: dict[str, Callable[[], float]] = {
        "Tutelage, batches of like lengths": lambda: driven(make, data, given.batch),
        "textbook loop, the same batches": lambda: textbook(make, like, bare=False),
        "textbook loop, padded to the longest of a batch": lambda: textbook(make, mixed, bare=False),
        f"textbook loop, every text padded to {LIMIT} tokens": lambda: textbook(make, fixed, bare=False),
        "bare student step, the same batches": lambda: textbook(make, like, bare=True),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(given.rounds):
        for name, measure in variants.items():
            times[name].append(measure())
    padding = {name: share_of_padding(some) for name, some in (("like", like), ("mixed", mixed), ("fixed", fixed))}
    facts = {name: getattr(given, name) for name in ("layers", "batch", "steps", "rounds")}
    command = shlex.join(["python", "benchmarks/texts.py", *sys.argv[1:]])
    found = {"command": command, **facts, "torch": torch.__version__, "seconds": times, "padding": padding}
    print(table(found))
    print({name: f"{share:.0%} padding" for name, share in padding.items()})
    if given.out:
        Path(given.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
