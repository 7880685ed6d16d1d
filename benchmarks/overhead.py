"""What the driver costs beside the bare training step, and what the switches bring: ratios within one run.

    make overhead        (or: python benchmarks/overhead.py --rounds 5 --steps 20)

Every round runs every variant once, interleaved, on the same network and batch size; the medians are compared. On a
busy machine, `--clock processor` with OMP_NUM_THREADS=1 counts processor time, which others do not lengthen by waiting.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import torch
import torch.nn.functional as F

from tutelage.data.augment import Augmentation
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.methods import Supervised
from tutelage.models.loading import load_network
from tutelage.system.console import Silent
from tutelage.training.driver import Driver
from tutelage.training.settings import Training

BATCH, CLASSES, LOG_EVERY = 128, 100, 5
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class Stopwatch(Silent):
    """Notes when the driver reports; the first report ends the warm-up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.times: list[float] = []

    def advance(self, steps: int) -> None:
        """Note the time."""
        self.times.append(self.clock())

    @property
    def seconds_per_step(self) -> float:
        """Mean over all but the first report."""
        return (self.times[-1] - self.times[0]) / (LOG_EVERY * (len(self.times) - 1))


def random_data(steps: int) -> Data:
    """Return as many random 32x32 images as give so many batches."""
    count = BATCH * steps
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    return Data(
        splits={"train": ResidentImages(images, torch.randint(CLASSES, (count,)))},
        name="random",
        num_classes=CLASSES,
        class_names=tuple(map(str, range(CLASSES))),
        in_channels=3,
        image_size=(32, 32),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        augmentation=Augmentation.parse("crop:4,flip"),
        fingerprint="random",
    )


def driven(network: str, data: Data, training: Training, clock: Callable[[], float]) -> float:
    """Return the seconds that a step takes under the driver, data included."""
    watch = Stopwatch(clock)
    student = load_network(network, num_classes=CLASSES)
    Driver(training, reporter=watch).fit(Supervised(student), data)
    return watch.seconds_per_step


def bare(network: str, data: Data, training: Training, clock: Callable[[], float], *, with_data: bool) -> float:
    """Return the seconds that a plain step takes: forward, backward, optimizer; with or without making its batch."""
    student = load_network(network, num_classes=CLASSES).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, fused=True)
    loader = data.loader("train", train=True, batch_size=BATCH, channels_last=True)
    batches = loader.epoch(0) if with_data else iter(list(islice(loader.epoch(0), 4)) * len(loader))
    started = 0.0
    for step, batch in enumerate(islice(batches, len(loader))):
        if step == LOG_EVERY:
            started = clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bf16-mixed"):
            logits = student(batch.inputs)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), batch.targets).backward()
        optimizer.step()
    return (clock() - started) / (len(loader) - LOG_EVERY)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args()
    clock = CLOCKS[given.clock]
    data = random_data(given.steps)
    fast = Training(epochs=1, batch_size=BATCH, precision="bf16-mixed", compile="off", log_every=LOG_EVERY)
    plain = replace(fast, precision="32-true")
    variants: dict[str, Callable[[], float]] = {
        "bare step, float32": lambda: bare(given.network, data, plain, clock, with_data=False),
        "driver, float32": lambda: driven(given.network, data, plain, clock),
        "driver, float32, contiguous": lambda: driven(given.network, data, replace(plain, channels_last="off"), clock),
        "bare step, bf16": lambda: bare(given.network, data, fast, clock, with_data=False),
        "bare step with its data, bf16": lambda: bare(given.network, data, fast, clock, with_data=True),
        "driver, bf16": lambda: driven(given.network, data, fast, clock),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(given.rounds):
        for name, measure in variants.items():
            times[name].append(measure())
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{given.network}, batch {BATCH}, {torch.get_num_threads()} threads, median of {given.rounds} rounds")
    for name, seconds in medians.items():
        print(f"{name:32} {1000 * seconds:8.1f} ms a step {BATCH / seconds:8.0f} images/s")
    for kind in ("float32", "bf16"):
        ratio = medians[f"driver, {kind}"] / medians[f"bare step, {kind}"]
        print(f"driver with data, over the bare step without, {kind}: {ratio:.3f}")


if __name__ == "__main__":
    main()
