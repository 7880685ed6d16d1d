"""What each method costs beside `kd`, and how the cost of `kd` and of its recordings grows.

    python benchmarks/cost.py --out cost.json
    python benchmarks/cost.py --methods kd at crd --growth none --out cost.json

Every method trains the same student by the real driver, in a process of its own; of a recipe, the last stage is timed,
and the stages before it are left untrained. Processes take turns, a few methods and `kd` at a time, so each ratio is
taken within the rounds of one group. Memory is what a step needs: parameters, gradients, the optimizer's state and the
activations that are kept. Growth is measured on random images, one size changed at a time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from contenders.command import add_turns, parser_of, publish, setting_of, turns_of
from contenders.rounds import note, take_rounds
from contenders.setting import Setting, random_data
from contenders.tables import reason, relative, timed
from jsonargparse import Namespace
from torch import nn

import tutelage
from tutelage.experiments import catalogue

KD = "kd"
GROWTH: Mapping[str, tuple[int, ...]] = {
    "classes": (10, 100, 1000, 10_000),
    "batch": (16, 32, 64, 128, 256, 512),
    "size": (32, 64, 128),
}
KEEPS = ("hard", "top5", "full")
IMAGENET = 1_281_167
_READS, _ROWS = 50, 2048


def methods(setting: Setting, names: Sequence[str], at_once: int, turns: Mapping[str, int]) -> dict[str, Any]:
    """Return time and memory of each method, relative to `kd` in the same rounds.

    Args:
        setting: What is shared.
        names: The methods, as they are chosen on the command line.
        at_once: How many processes there are at a time, that of `kd` included.
        turns: Rounds, steps and lead.
    """
    others = [name for name in names if name != KD]
    found: dict[str, Any] = {}
    for group in _groups(others, at_once - 1) or [[]]:
        raw = take_rounds({name: (name, setting) for name in [KD, *group]}, **turns)
        reference = raw[KD]
        if "error" in reference:
            raise SystemExit(f"kd itself does not train: {reference['error']}")
        found |= {name: _relative(what, reference) for name, what in raw.items() if name not in found}
    return found


def _groups(names: Sequence[str], size: int) -> list[list[str]]:
    return [list(names[start : start + size]) for start in range(0, len(names), max(1, size))]


def _relative(what: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return medians over the rounds, and ratios to a reference within each round."""
    if "error" in what:
        return {"error": what["error"]}
    times = timed(what)
    return {
        **times,
        **relative(times, timed(reference), name="time_to_kd"),
        "memory": what["needs"],
        "memory_to_kd": what["needs"]["total"] / reference["needs"]["total"],
        "stages": what["stages"],
        "teachers": what["teachers"],
        "decision": what["notes"],
    }


def growth(setting: Setting, which: Sequence[str], turns: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return what a step of `kd` takes when one size is changed at a time, on random images."""
    found = []
    for what in which:
        jobs = {f"{what}={value}": (KD, _changed(setting, what, value)) for value in GROWTH[what]}
        raw = take_rounds(jobs, **turns)
        for (name, (_, changed)), value in zip(jobs.items(), GROWTH[what], strict=True):
            row: dict[str, Any] = {"what": what, "value": value}
            if "error" in raw[name]:
                found.append(row | {"error": raw[name]["error"]})
                continue
            row |= timed(raw[name])
            row["us_per_image"] = 1000 * row["ms_per_step"] / changed.batch
            found.append(row | {"memory": raw[name]["needs"]["total"]})
    return found


def _changed(setting: Setting, what: str, value: int) -> Setting:
    if what == "batch":
        return replace(setting, data="random", batch=value)
    return replace(setting, data=f"random,{what}={value}")


def recordings(batch: int) -> Iterator[dict[str, Any]]:
    """Yield size and reading time of recordings, by classes and by what is kept.

    Args:
        batch: Rows read at once.
    """
    for classes in GROWTH["classes"]:
        data = random_data(_ROWS, classes=classes, size=8)
        teacher = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(data.in_channels, classes)).eval()
        for keep in KEEPS:
            with tempfile.TemporaryDirectory() as folder:
                how = {"views": 1, "keep": keep, "batch_size": 256, "progress": False, "compile": "off"}
                recording = tutelage.record(teacher, data=data, out=Path(folder) / "recording", **how)
                assert recording is not None
                times = [_read(recording, batch) for _ in range(_READS)]
                row = recording.header.row_dtype.itemsize
            yield {
                "classes": classes,
                "keep": keep,
                "row_bytes": row,
                "bytes_of_50000": 50_000 * row,
                "bytes_of_imagenet": IMAGENET * row,
                "ms_per_batch": 1000 * statistics.median(times),
            }


def _read(recording: tutelage.Recording, batch: int) -> float:
    indices = torch.randint(_ROWS, (batch,))
    started = time.perf_counter()
    recording.read(indices, torch.zeros_like(indices))
    return time.perf_counter() - started


def table(content: Mapping[str, Any]) -> str:
    """Return what was measured in Markdown."""
    lines = [content["machine"]["summary"]]
    if content.get("methods"):
        lines += ["", "| Method | Time to kd | Least to most | Memory to kd | Timed stage |", "|:--|--:|--:|--:|:--|"]
        lines += [_method_row(name, what) for name, what in content["methods"].items()]
    if content.get("growth"):
        lines += ["", "| kd with | ms a step | us an image | Memory of a step, MB |", "|:--|--:|--:|--:|"]
        lines += [_growth_row(row) for row in content["growth"]]
    if content.get("recordings"):
        heads = "| Classes | Kept | Bytes a view | 50,000 images, MB | ImageNet, GB | Reading a batch, ms |"
        lines += ["", heads, "|--:|:--|--:|--:|--:|--:|"]
        lines += [
            f"| {row['classes']} | {row['keep']} | {row['row_bytes']} | {row['bytes_of_50000'] / 1e6:.1f} | "
            f"{row['bytes_of_imagenet'] / 1e9:.2f} | {row['ms_per_batch']:.2f} |"
            for row in content["recordings"]
        ]
    return "\n".join(lines)


def _method_row(name: str, what: Mapping[str, Any]) -> str:
    if "error" in what:
        return f"| `{name}` | n/a | – | – | {reason(what)} |"
    *before, stage = what["stages"]
    stage += f", after {', '.join(before)}" if before else ""
    stage += "; two teachers" if what["teachers"] > 1 else ""
    spread = f"{what['least']:.2f} to {what['most']:.2f}"
    return f"| `{name}` | {what['time_to_kd']:.2f} | {spread} | {what['memory_to_kd']:.2f} | {stage} |"


def _growth_row(row: Mapping[str, Any]) -> str:
    named = f"{row['what']} {row['value']}"
    if "error" in row:
        return f"| {named} | {reason(row)} | – | – |"
    return f"| {named} | {row['ms_per_step']:.1f} | {row['us_per_image']:.0f} | {row['memory'] / 1e6:.1f} |"


def parse(words: Sequence[str]) -> Namespace:
    """Return what was asked for."""
    parser = parser_of(__doc__)
    parser.add_argument("--methods", nargs="*", default=[entry.name for entry in catalogue.entries()])
    parser.add_argument("--growth", nargs="+", choices=[*GROWTH, "recordings", "none"], default=[*GROWTH, "recordings"])
    parser.add_argument("--at_once", type=int, default=6, help="processes at a time, that of kd included")
    add_turns(parser, steps=20, lead=5)
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    """Measure and publish."""
    given = parse(words)
    if given.at_once < 2:
        raise SystemExit(f"--at_once {given.at_once}: kd and one other method are two.")
    setting, turns = setting_of(given), turns_of(given)
    content: dict[str, Any] = dict(turns)
    content["methods"] = methods(setting, given.methods, given.at_once, turns) if given.methods else {}
    content["growth"] = growth(setting, [what for what in given.growth if what in GROWTH], turns)
    if "recordings" in given.growth:
        note("recordings")
        content["recordings"] = list(recordings(setting.batch))
    publish(__file__, words, setting, content, table=table, out=given.out)


if __name__ == "__main__":
    main(sys.argv[1:])
