"""How well scores without training rank the 64 trained students that DisWOT's authors publish.

    python benchmarks/search_ranks.py --data cifar100 --out docs/results/search-ranks.json

All networks of the space `s0` are scored as `tutelage search` scores them, beside a ResNet-110 as the teacher: terms of
both variants of `diswot` from one forward pass each, and the numbers of parameters, multiply-adds and layers. Each seed
draws its own batch and its own weights. The batch is of training images, or of normal noise of the same shape. Weights
are those that the networks come with (Kaiming for convolutions), or, as in the authors' script, normal with standard
deviation 1 for every convolution and linear layer. Kendall's tau-b and Spearman's rho are with the published accuracy
of the students after distillation (`kd`) and after plain training (`supervised`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.data.batch import Batch
from tutelage.data.resolve import resolve_data
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalization
from tutelage.searching.agreement import kendall, spearman
from tutelage.searching.batch import one_batch
from tutelage.searching.candidate import Candidate
from tutelage.searching.published import s0
from tutelage.searching.scores.depth import Depth
from tutelage.searching.scores.diswot import DisWOT
from tutelage.searching.scores.multiply_adds import MultiplyAdds
from tutelage.searching.scores.parameters import Parameters
from tutelage.system.chance import starting_at
from tutelage.system.digests import seed_of
from tutelage.system.files import read_json, write_json

TEACHER = "resnet110"


class Setting:
    """A way to draw the batch and the weights.

    Args:
        images: Training images.
        statistics: Their statistics.
        inputs: `images` or `noise`.
        weights: `kaiming` or `normal`.
        seed: Seed of the weights, and of the noise.
    """

    def __init__(self, images: Batch, statistics: Normalization, *, inputs: str, weights: str, seed: int) -> None:
        self.weights, self.seed = weights, seed
        self.batch, self.statistics = images, statistics
        if inputs == "noise":
            noise = torch.randn(images.inputs.shape, generator=torch.Generator().manual_seed(seed))
            # Noise is what the network sees, so nothing is subtracted from it.
            self.batch, self.statistics = replace(images, inputs=noise), Normalization.named("none")

    def candidate(self, spec: Any, part: str = "candidate/0") -> Candidate:
        """Return a network with this batch and weights."""
        with starting_at(seed_of(self.seed, part)):
            network = load_network(spec, num_classes=100, normalization=self.statistics)
            if self.weights == "normal":
                network.apply(_normal)
        return Candidate.of(network, self.batch)

    def terms(self) -> dict[str, list[float]]:
        """Return each term of both variants for all networks, in the order of the table."""
        scores = {variant: DisWOT(variant=variant) for variant in ("paper", "code")}
        teacher = self.candidate(TEACHER, part="teacher/0")
        for score in scores.values():
            score.learn(teacher)
        found: dict[str, list[float]] = {}
        for published in s0():
            candidate = self.candidate(published.network)
            for variant, score in scores.items():
                terms = score.terms(candidate)
                for name, value in (terms | {"sum": score.total(terms)}).items():
                    found.setdefault(f"{variant} {name}", []).append(value)
        return found


def _normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def ranks(values: list[float]) -> dict[str, float | None]:
    """Return how far a score agrees with the published accuracies."""
    return {
        f"{agreement.__name__} {column}": agreement(values, [getattr(each, column) for each in s0()])
        for agreement in (kendall, spearman)
        for column in ("kd", "supervised")
    }


def baselines() -> dict[str, dict[str, float | None]]:
    """Return how far sizes agree with the published accuracies."""
    batch = Batch(inputs=torch.zeros(2, 3, 32, 32))
    networks = [Candidate.of(load_network(each.network, num_classes=100), batch) for each in s0()]
    scores = {"parameters": Parameters(), "multiply-adds": MultiplyAdds(), "depth": Depth()}
    return {name: ranks([score.total(score.terms(network)) for network in networks]) for name, score in scores.items()}


_OPTIONS = {"semantic": ",relation=0", "relation": ",semantic=0", "sum": ""}


def table(found: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return the agreements as a table: means over the seeds, and the range of tau."""
    lines = ["| score | inputs | weights | tau, kd | rho, kd | tau, plain |", "|---|---|---|---|---|---|"]
    for name, by_seed in found.items():
        setting, _, score = name.rpartition(": ")
        inputs, _, weights = setting.partition(", ")
        variant, _, term = score.partition(" ")
        label = f"diswot:variant={variant}{_OPTIONS[term]}" if term else score
        columns = [_over_seeds(by_seed, key) for key in ("kendall kd", "spearman kd", "kendall supervised")]
        lines.append(f"| `{label}` | {inputs or '-'} | {weights or '-'} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _over_seeds(by_seed: list[dict[str, Any]], key: str) -> str:
    values = [each[key] for each in by_seed]
    text = f"{statistics.mean(values):+.2f}"
    # The range over the seeds is shown once, in the first column.
    return f"{text} ({min(values):+.2f} to {max(values):+.2f})" if key == "kendall kd" and len(values) > 1 else text


def main() -> None:
    """Score all networks in all settings, and write the agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--inputs", nargs="+", default=["images", "noise"])
    parser.add_argument("--weights", nargs="+", default=["kaiming", "normal"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = resolve_data(options.data)
    statistics_of = Normalization(mean=tuple(data.mean), std=tuple(data.std))
    found: dict[str, list[dict[str, Any]]] = {name: [agreed] for name, agreed in baselines().items()}
    began = time.perf_counter()
    if options.out is not None and options.out.exists():
        # The settings may be measured one by one.
        found = read_json(options.out)["ranks"] | found
    for inputs in options.inputs:
        for weights in options.weights:
            found = {name: values for name, values in found.items() if not name.startswith(f"{inputs}, {weights}:")}
            for seed in range(options.seeds):
                images = one_batch(data, options.batch_size, seed=seed)
                setting = Setting(images, statistics_of, inputs=inputs, weights=weights, seed=seed)
                for name, values in setting.terms().items():
                    found.setdefault(f"{inputs}, {weights}: {name}", []).append(ranks(values))
            print(f"{inputs}, {weights}: {time.perf_counter() - began:.0f} s", flush=True)
            if options.out is not None:
                write_json(options.out, {"seeds": options.seeds, "batch_size": options.batch_size, "ranks": found})
    print(table(found))


if __name__ == "__main__":
    main()
