"""What synthesised images are worth against real ones, and which data are near: gathered from finished runs.

    python benchmarks/no_data.py --near runs/near runs/near-sets --students runs/students --out no-data.json

`--near` are folders of `tutelage similarity --out`; `--students` are folders that hold one folder of
`tutelage distill data-free` for each set of images, by its name. Printed are the tables of docs/results/no-data.md.

`pruned` is a factory of students: `benchmarks/no_data.py:pruned,teacher="nets.py:Net@weights.safetensors",share=0.7`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tutelage.models.loading import load_network
from tutelage.system.files import read_json, write_json


class Masked(nn.Conv2d):
    """A convolution some of whose weights are zero and stay so."""

    mask: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the maps of the weights that are left."""
        return self._conv_forward(inputs, self.weight * self.mask, self.bias)


def pruned(teacher: str, share: float, num_classes: int, in_channels: int) -> nn.Module:
    """Return a copy of a trained network without the smallest weights of each convolution.

    Args:
        teacher: The network, as `--teacher` names it.
        share: The share of weights that are left out.
        num_classes: Its classes.
        in_channels: Channels of its images.
    """
    network = load_network(teacher, num_classes=num_classes, in_channels=in_channels).model
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            sizes = layer.weight.detach().abs()
            layer.register_buffer("mask", (sizes > sizes.flatten().quantile(share)).float())
            layer.__class__ = Masked
    return network


def gathered(near: Sequence[Path], students: Sequence[Path]) -> dict[str, Any]:
    """Return the numbers of the runs."""
    distances = [read_json(folder / "similarity.json") for folder in near]
    kept = ("split", "batch_size", "direction", "seed")
    return {
        "near": [{**{name: one[name] for name in kept}, "rows": one["rows"]} for one in distances],
        "students": {folder.name: _rows(folder) for folder in students},
    }


def _rows(students: Path) -> list[dict[str, Any]]:
    rows = []
    for folder in sorted(path for path in students.iterdir() if (path / "comparison.json").exists()):
        content = read_json(folder / "comparison.json")
        [row] = content["rows"]
        [run] = row["runs"]
        best = run["best"]
        rows.append(
            {
                "images": folder.name,
                "seed": run["seed"],
                "test_accuracy": best["test_accuracy"],
                "statistics": row["options"]["statistics"],
                "train": content["data"]["train"],
                "epochs": run["epochs"],
            }
        )
    return sorted(rows, key=lambda row: -row["test_accuracy"])


def near_table(content: Mapping[str, Any]) -> str:
    """Return one table of distances."""
    lines = ["| data | divergence, nats | deviation over batches | images |", "|---|--:|--:|--:|"]
    for row in content["rows"]:
        deviation = "-" if row["deviation"] is None else f"{row['deviation']:.4f}"
        lines.append(f"| {row['name']} | {row['divergence']:.4f} | {deviation} | {row['images']:,} |")
    return "\n".join(lines)


def student_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of what students reached."""
    lines = ["| images | batch norms | test accuracy % |", "|---|---|--:|"]
    lines += [f"| {row['images']} | {row['statistics']} | {100 * row['test_accuracy']:.2f} |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Gather the runs, write the file and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--near", type=Path, nargs="+", required=True)
    parser.add_argument("--students", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    content = gathered(options.near, options.students)
    write_json(options.out, content)
    tables = [*map(near_table, content["near"]), *map(student_table, content["students"].values())]
    print(*tables, sep="\n\n")


if __name__ == "__main__":
    main()
