"""What synthesised images are worth against real ones, and which data are near: gathered from finished runs.

    python benchmarks/no_data.py --near runs/near runs/near-sets --students runs/students --out no-data.json

`--near` are folders of `tutelage similarity --out`; `--students` holds one folder of `tutelage distill data-free` for
each set of images, by its name. Printed are the tables of docs/results/no-data.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.system.files import read_json, write_json


def gathered(near: Sequence[Path], students: Path) -> dict[str, Any]:
    """Return the numbers of the runs."""
    distances = [read_json(folder / "similarity.json") for folder in near]
    rows = []
    for folder in sorted(students.iterdir()):
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
    rows.sort(key=lambda row: -row["test_accuracy"])
    kept = ("split", "batch_size", "direction", "seed")
    return {
        "near": [{**{name: one[name] for name in kept}, "rows": one["rows"]} for one in distances],
        "students": rows,
    }


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
    parser.add_argument("--students", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    content = gathered(options.near, options.students)
    write_json(options.out, content)
    print(*map(near_table, content["near"]), student_table(content["students"]), sep="\n\n")


if __name__ == "__main__":
    main()
