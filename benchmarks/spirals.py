"""Three spirals: an ensemble, and one network that takes its place.

    python benchmarks/spirals.py --out docs/results/spirals.json

A point of arm k in 0, 1, 2 has t uniform in [0, 1], radius 1 + 4 t, angle 2 pi (0.75 t + k / 3), and normal noise of
standard deviation 0.3 + 0.8 t on both coordinates: the arms overlap more and more towards their ends. A network of
two hidden layers is trained on the labels, M times; their ensemble teaches `end` and `endd` by `tutelage.distill`, on
the same points, and `endd` once more on auxiliary points around them, whose labels nobody reads. The layers are
sines: networks of ReLU go on in straight lines, and all of an ensemble are sure of the same where they have seen
nothing. (They were chosen after a look at the very score that is reported: `--activation relu` shows the others.)
Foreign points lie in the square of side 24 around the arms, further than 8 from the middle. Auxiliary points lie in
the same square, further than 7: other points, but of the same region, so that what is told apart there has been seen.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.data.criterion import Density
from tutelage.evaluation.uncertainty import Uncertainty, uncertainty_of
from tutelage.losses import log_mean_probability
from tutelage.models.ensemble import Ensemble
from tutelage.system.files import write_json
from tutelage.tasks.classification import CLASSIFICATION

mpl.use("Agg")

TRAIN, TEST, AUXILIARY = 1500, 6000, 1500
SIDE, BEGIN, AUXILIARY_BEGIN = 24.0, 8.0, 7.0
SETTINGS: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 100,
    "optimizer": "adamw",
    "lr": 0.01,
    "weight_decay": 0.0,
    "warmup_epochs": 0.0,
    "keep": "last",
    "precision": "32-true",
    "device": "cpu",
    "compile": "off",
    "workers": 0,
}
GRID = 161


class Sine(nn.Module):
    """The sine of each number."""

    def forward(self, values: Tensor) -> Tensor:
        """Return sines."""
        return values.sin()


ACTIVATIONS: Mapping[str, type[nn.Module]] = {"sine": Sine, "relu": nn.ReLU}


class Points(nn.Module):
    """Two hidden layers on points that come as images of one row."""

    def __init__(self, activation: str = "sine", width: int = 64) -> None:
        super().__init__()
        bend = ACTIVATIONS[activation]
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(2, width), bend(), nn.Linear(width, width), bend(), nn.Linear(width, 3)
        )

    def forward(self, points: Tensor) -> Tensor:
        """Return logits `[batch, 3]`."""
        logits: Tensor = self.layers(points)
        return logits


def spirals(samples: int, seed: int) -> TensorDataset:
    """Return points `[sample, 1, 1, 2]` of three noisy arms, and their arms."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.arange(samples) % 3
    t = torch.rand(samples, generator=generator)
    radius, angle = 1 + 4 * t, 2 * math.pi * (0.75 * t + arm / 3)
    centre = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    noise = (0.3 + 0.8 * t)[:, None] * torch.randn(samples, 2, generator=generator)
    return TensorDataset((centre + noise).view(-1, 1, 1, 2), arm)


def around(samples: int, seed: int, begin: float) -> Tensor:
    """Return points `[sample, 1, 1, 2]` of the square around the arms, further than `begin` from the middle."""
    generator = torch.Generator().manual_seed(seed)
    points = SIDE * (torch.rand(8 * samples, 2, generator=generator) - 0.5)
    return points[points.norm(dim=1) > begin][:samples].view(-1, 1, 1, 2)


def networks_of(seed: int, members: int, activation: str) -> dict[str, tuple[nn.Module, Density]]:
    """Train the ensemble, and what it teaches, and return them by name with what their logits are."""
    train = spirals(TRAIN, 100 + seed)
    beyond = around(AUXILIARY, 300 + seed, AUXILIARY_BEGIN)
    labels = torch.cat([train.tensors[1], torch.arange(len(beyond)) % 3])
    auxiliary = TensorDataset(torch.cat([train.tensors[0], beyond]), labels)

    def learn(method: str, part: int, data: TensorDataset = train, **options: Any) -> nn.Module:
        settings = SETTINGS | ({"epochs": SETTINGS["epochs"] // 2} if data is auxiliary else {})
        return tutelage.distill(
            method,
            student=partial(Points, activation),
            data=data,
            validation=0.0,
            seed=1000 * seed + part,
            progress=False,
            **settings,
            **options,
        )

    ensemble = [learn("supervised", part) for part in range(members)]
    return {
        "single": (ensemble[0], "categorical"),
        "ensemble": (Ensemble(ensemble), "categorical"),
        "end": (learn("end", members, teacher=ensemble), "categorical"),
        "endd": (learn("endd", members, teacher=ensemble), "dirichlet"),
        "endd+aux": (learn("endd", members, data=auxiliary, teacher=ensemble), "dirichlet"),
    }


@torch.no_grad()
def answers(network: nn.Module, points: Tensor) -> Tensor:
    """Return logits `[point, 3]`, or `[member, point, 3]` of an ensemble."""
    found: Tensor = network.member_logits(points) if isinstance(network, Ensemble) else network(points)  # type: ignore[operator]
    return found


def measure(network: nn.Module, density: Density) -> dict[str, float]:
    """Return the scores of a network on test points, and of its uncertainty on the region around them."""
    test, foreign = spirals(TEST, 1), around(TEST, 2, BEGIN)
    own, other = answers(network, test.tensors[0]), answers(network, foreign)
    meter = CLASSIFICATION.meter(density=density)
    if own.ndim == 3:
        meter.update(log_mean_probability(own), test.tensors[1], own)
        meter.update_foreign(log_mean_probability(other), other)
    else:
        meter.update(own, test.tensors[1])
        meter.update_foreign(other)
    found, told = meter.compute(), meter.compute_foreign()
    far: Uncertainty = uncertainty_of(other, density=density)
    return {
        "error": 1 - found["accuracy"],
        "nll": found["nll"],
        "ece": found["ece"],
        **{f"test_{name}": value for name, value in found.items() if name not in ("accuracy", "nll", "ece")},
        **{f"foreign_{name}": value for name, value in told.items()},
        **{f"foreign_{kind}_uncertainty": float(values.mean()) for kind, values in far.known().items()},
    }


def summarised(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean and sample standard deviation of each score."""
    return {
        key: {
            "mean": statistics.fmean(run[key] for run in runs),
            "std": statistics.stdev(run[key] for run in runs) if len(runs) > 1 else 0.0,
        }
        for key in runs[0]
    }


def draw(networks: Mapping[str, tuple[nn.Module, Density]], file: Path, train: TensorDataset) -> None:
    """Draw knowledge uncertainty over the plane, and what `end` has: the total alone."""
    from matplotlib import pyplot as plt

    axis = torch.linspace(-SIDE / 2, SIDE / 2, GRID)
    plane = torch.cartesian_prod(axis, axis).flip(1).view(-1, 1, 1, 2)
    panels = [
        ("ensemble", "knowledge", "ensemble: knowledge uncertainty"),
        ("endd", "knowledge", "endd"),
        ("endd+aux", "knowledge", "endd with auxiliary points"),
        ("end", "total", "end: total uncertainty, all it has"),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(15.5, 3.7), layout="constrained")
    points, arms = train.tensors[0][:450].view(-1, 2), train.tensors[1][:450]
    for place, (name, kind, title) in zip(axes, panels, strict=True):
        network, density = networks[name]
        values = uncertainty_of(answers(network, plane), density=density).known()[kind].view(GRID, GRID)
        limit = SIDE / 2
        picture = place.imshow(
            values,
            origin="lower",
            extent=(-limit, limit, -limit, limit),
            cmap="viridis",
            vmin=0,
            interpolation="bilinear",
        )
        for arm, marker in enumerate("o^s"):
            chosen = points[arms == arm]
            place.scatter(chosen[:, 0], chosen[:, 1], s=5, marker=marker, c="white", alpha=0.45, linewidths=0)
        place.set_title(title, fontsize=11)
        place.set_xticks([-10, 0, 10])
        place.set_yticks([-10, 0, 10])
        bar = figure.colorbar(picture, ax=place, fraction=0.046, pad=0.03)
        bar.set_label("nats", fontsize=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/spirals.json"))
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--activation", choices=ACTIVATIONS, default="sine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        networks = networks_of(seed, options.members, options.activation)
        for name, (network, density) in networks.items():
            runs.setdefault(name, []).append(measure(network, density))
        if seed == 0 and options.activation == "sine":
            draw(networks, options.out.with_suffix(".png"), spirals(TRAIN, 100))
        print(f"seed {seed} after {time.perf_counter() - started:.0f} s", flush=True)
    summary = {name: summarised(scores) for name, scores in runs.items()}
    content = {
        "command": " ".join(["python benchmarks/spirals.py", *(f"--{k} {v}" for k, v in vars(options).items())]),
        "generator": " ".join((__doc__ or "").split("\n\n")[2].split()),
        "activation": options.activation,
        "members": options.members,
        "seeds": options.seeds,
        "settings": SETTINGS,
        "seconds": time.perf_counter() - started,
        "torch": torch.__version__,
        "summary": summary,
        "runs": runs,
    }
    write_json(options.out, content)
    print(table(content))


def table(*contents: Mapping[str, Any]) -> str:
    """Return what was measured as a Markdown table, one content after the other."""
    columns = {
        "Error %": ("error", 100, 2),
        "NLL": ("nll", 1, 3),
        "ECE %": ("ece", 100, 2),
        "PRR": ("test_prr", 1, 3),
        "Knowledge, test points": ("test_knowledge_uncertainty", 1, 3),
        "Knowledge, far away": ("foreign_knowledge_uncertainty", 1, 3),
        "AUROC total": ("foreign_auroc_total", 1, 3),
        "AUROC knowledge": ("foreign_auroc_knowledge", 1, 3),
    }
    lines = [f"| | {' | '.join(columns)} |", "|:--|" + "--:|" * len(columns)]
    for content in contents:
        for name, scores in content["summary"].items():
            cells = [_cell(scores.get(key), scale, digits) for key, scale, digits in columns.values()]
            lines.append(f"| {name}, {content['activation']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(score: Mapping[str, float] | None, scale: float, digits: int) -> str:
    if score is None:
        return "–"
    return f"{scale * score['mean']:.{digits}f} ± {scale * score['std']:.{digits}f}"


if __name__ == "__main__":
    main()
