"""The test accuracy over queries of comparisons whose rows noted it, as one file and one table.

    python benchmarks/black_box.py runs/active-500 runs/active-1000 --out docs/results/black-box.json

Each folder holds a finished `tutelage compare` of rows that noted a curve, such as those of `active-mixup`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.experiments.statistics import paired_difference
from tutelage.system.files import read_json, write_json

Points = dict[int, dict[int, float]]


def collected(folder: Path) -> dict[str, Any]:
    """Return what a comparison measured: its command, its machine, and the points of each row and seed."""
    found = read_json(folder / "comparison.json")
    rows = [
        {"label": row["label"], "seed": run["seed"], "points": run["curves"][0]["points"]}
        for row in found["rows"]
        for run in row["runs"]
    ]
    kept = ("command", "environment", "created")
    return {**{name: found[name] for name in kept}, "over": "queries", "rows": rows}


def points_of(rows: Sequence[Mapping[str, Any]], label: str) -> Points:
    """Return the scores of a row by number of queries and seed."""
    found: Points = {}
    for row in rows:
        for queries, score in row["points"] if row["label"] == label else ():
            found.setdefault(queries, {})[row["seed"]] = score
    return found


def table(content: Mapping[str, Any]) -> str:
    """Return a comparison as a Markdown table: a line for each number of queries, and the first two rows in pairs."""
    rows = content["rows"]
    labels = list(dict.fromkeys(row["label"] for row in rows))
    curves = {label: points_of(rows, label) for label in labels}
    heads = ["queries", *(f"`{label}`" for label in labels), "first − second, paired, 95 %"]
    lines = ["| " + " | ".join(heads) + " |", "|--:|" + "--:|" * (len(heads) - 1)]
    for queries in sorted({place for curve in curves.values() for place in curve}):
        cells = [_mean(curves[label].get(queries, {})) for label in labels]
        difference = _difference(*(curves[label].get(queries, {}) for label in labels[:2]))
        lines.append(f"| {queries:,} | " + " | ".join([*cells, difference]) + " |")
    return "\n".join(lines)


def _mean(scores: Mapping[int, float]) -> str:
    return f"{100 * sum(scores.values()) / len(scores):.2f}" if scores else "–"


def _difference(one: Mapping[int, float], other: Mapping[int, float]) -> str:
    seeds = sorted(one.keys() & other.keys())
    if len(seeds) < 2:
        return "–"
    found = paired_difference([one[seed] for seed in seeds], [other[seed] for seed in seeds])
    return f"{100 * found['mean']:+.2f} ({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    parts = [collected(folder) for folder in arguments.folders]
    write_json(arguments.out, {"comparisons": parts})
    print("\n\n".join(map(table, parts)))
