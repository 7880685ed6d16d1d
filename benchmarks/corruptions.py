"""Finished runs on corrupted and attacked test images: what noise in training is said to be good for.

    python benchmarks/corruptions.py runs/noise --data cifar10 --out docs/results/noise.json

The folder is one of `tutelage compare`. The network of each row and seed is measured on the clean test images; under
six corruptions at five severities each, in the manner of CIFAR-C but with parameters of our own (`SEVERITIES`), on
images that are clipped to [0, 1] and not rounded; and under FGSM, the step of size epsilon along the sign of its own
gradient, in pixels of [0, 1]. All networks see the same corrupted images. Printed are percentages right, mean and
standard deviation over the seeds; the mean over corruptions is taken in each seed first.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torchvision.transforms.v2 import functional as T

from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.data.sources import load_data
from tutelage.experiments.statistics import summary
from tutelage.models.answers import answer
from tutelage.models.loading import load_network
from tutelage.system.chance import generator
from tutelage.system.devices import device_type
from tutelage.system.files import write_json

BATCH = 500

SEVERITIES: Mapping[str, tuple[float, ...]] = {
    "gaussian noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot noise": (500, 250, 100, 75, 50),
    "gaussian blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "brightness": (1.1, 1.2, 1.3, 1.4, 1.5),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),
}
"""Standard deviation; photons of a white pixel; standard deviation in pixels; two factors; share of a side's pixels."""

EPSILONS = (1, 2, 4, 8)
"""Sizes of the attack's step, in 255ths."""


def gaussian_noise(images: Tensor, std: float, chance: Generator) -> Tensor:
    """Add Gaussian noise."""
    return images + std * torch.randn(images.shape, generator=chance).to(images)


def shot_noise(images: Tensor, photons: float, chance: Generator) -> Tensor:
    """Count photons."""
    return torch.poisson(images.cpu() * photons, generator=chance).to(images) / photons


def gaussian_blur(images: Tensor, std: float, chance: Generator) -> Tensor:
    """Blur, out to two standard deviations."""
    blurred: Tensor = T.gaussian_blur(images, [2 * math.ceil(2 * std) + 1] * 2, [std, std])
    return blurred


def brightness(images: Tensor, factor: float, chance: Generator) -> Tensor:
    """Multiply."""
    changed: Tensor = T.adjust_brightness(images, factor)
    return changed


def contrast(images: Tensor, factor: float, chance: Generator) -> Tensor:
    """Bring nearer to each image's mean of grey."""
    changed: Tensor = T.adjust_contrast(images, factor)
    return changed


def pixelate(images: Tensor, share: float, chance: Generator) -> Tensor:
    """Average over fewer, larger pixels; the share is of their number along a side."""
    height, width = images.shape[2:]
    small = F.interpolate(images, (max(1, round(height * share)), max(1, round(width * share))), mode="area")
    return F.interpolate(small, (height, width), mode="nearest-exact")


CORRUPTIONS: Mapping[str, Callable[[Tensor, float, Generator], Tensor]] = {
    "gaussian noise": gaussian_noise,
    "shot noise": shot_noise,
    "gaussian blur": gaussian_blur,
    "brightness": brightness,
    "contrast": contrast,
    "pixelate": pixelate,
}


def corrupted(images: Tensor, name: str, severity: int, *, number: int = 0) -> Tensor:
    """Return corrupted images in [0, 1], always the same ones.

    Args:
        images: `[batch, channel, height, width]` in [0, 1].
        name: The corruption.
        severity: From 0 to 4.
        number: Position of the batch in the test data.
    """
    chance = generator(list(CORRUPTIONS).index(name), severity, number)
    return CORRUPTIONS[name](images, SEVERITIES[name][severity], chance).clamp(0, 1)


def attacked(network: nn.Module, images: Tensor, targets: Tensor, epsilon: float) -> Tensor:
    """Return images in [0, 1] after a step of FGSM, the fast gradient sign method, against a network."""
    inputs = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(answer(network, inputs), targets), inputs)
    return (images + epsilon * gradient.sign()).clamp(0, 1)


def measure(network: nn.Module, batches: Sequence[Batch]) -> dict[str, Any]:
    """Return the share of images that a network has right: clean, by corruption and severity, by attack."""
    network.eval().requires_grad_(False)

    def right(seen: Iterable[Tensor]) -> float:
        hits = 0
        for images, batch in zip(seen, batches, strict=True):
            with torch.no_grad():
                hits += int((answer(network, images).argmax(1) == batch.labels).sum())
        return hits / sum(map(len, batches))

    def under(name: str, severity: int) -> float:
        return right(corrupted(batch.inputs, name, severity, number=number) for number, batch in enumerate(batches))

    def attack(epsilon: float) -> float:
        return right(attacked(network, batch.inputs, batch.labels, epsilon) for batch in batches)

    return {
        "clean": right(batch.inputs for batch in batches),
        "corruptions": {name: [under(name, s) for s in range(len(values))] for name, values in SEVERITIES.items()},
        "fgsm": {f"{step}/255": attack(step / 255) for step in EPSILONS},
    }


def summed_up(label: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a row: mean and spread over its seeds of everything that was measured."""
    means = [{name: fmean(values) for name, values in run["corruptions"].items()} for run in runs]
    return {
        "label": label,
        "clean": summary([run["clean"] for run in runs]),
        "corrupted": summary([fmean(mean.values()) for mean in means]),
        "corruptions": {name: summary([mean[name] for mean in means]) for name in CORRUPTIONS},
        "severities": {
            name: [summary(list(values)) for values in zip(*(run["corruptions"][name] for run in runs), strict=True)]
            for name in CORRUPTIONS
        },
        "fgsm": {name: summary([run["fgsm"][name] for run in runs]) for name in runs[0]["fgsm"]},
        "seeds": [run["seed"] for run in runs],
    }


def table(content: Mapping[str, Any]) -> str:
    """Return the rows as a Markdown table, in percent."""
    rows = content["rows"]
    names = ["clean", "corrupted", *CORRUPTIONS, *(f"FGSM {step}/255" for step in EPSILONS)]
    lines = [f"| Row | {' | '.join(names)} |", f"|:--|{'--:|' * len(names)}"]
    for row in rows:
        found = [row["clean"], row["corrupted"], *row["corruptions"].values(), *row["fgsm"].values()]
        lines.append(f"| `{row['label']}` | {' | '.join(map(_percent, found))} |")
    return "\n".join(lines)


def _percent(found: Mapping[str, Any]) -> str:
    spread = "" if found["std"] is None else f" ± {100 * found['std']:.2f}"
    return f"{100 * found['mean']:.2f}{spread}"


def evaluate(folder: Path, data: Data, device: str, images: int | None = None) -> dict[str, Any]:
    """Return what all finished runs of a comparison score.

    Args:
        folder: The comparison's folder.
        data: The data whose test images are taken.
        device: Where to compute.
        images: How many of them to take, the first ones, by the batch; all by default.
    """
    comparison = json.loads((folder / "comparison.json").read_text())
    loader = data.loader("test", train=False, batch_size=BATCH, device=device)
    batches = list(islice(loader.epoch(0), None if images is None else math.ceil(images / BATCH)))
    rows = []
    for row in comparison["rows"]:
        found = []
        for run in row["runs"]:
            network = folder / run["folder"] / run["stages"][-1]["name"]
            loaded = load_network(str(network), num_classes=data.num_classes, in_channels=data.in_channels)
            found.append({"seed": run["seed"], **measure(loaded.to(device), batches)})
        if found:
            rows.append(summed_up(row["label"], found))
            print(table({"rows": rows[-1:]}).splitlines()[-1], flush=True)
    return {
        "data": data.name,
        "images": sum(map(len, batches)),
        "severities": SEVERITIES,
        "command": comparison["command"],
        "student": comparison["student"]["spec"],
        "teacher": (comparison["teacher"] or {}).get("spec"),
        "rows": rows,
    }


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    data = load_data(given.data, image_size=given.image_size)
    content = evaluate(given.folder, data, device_type(given.device), given.images)
    print(f"\n{table(content)}")
    if given.out is not None:
        write_json(given.out, content)


if __name__ == "__main__":
    main()
