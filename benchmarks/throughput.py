"""How fast distillation is, side by side: a textbook loop, torchdistill, timm's task, Tutelage, and the bare step.

    python benchmarks/throughput.py --out throughput.json
    python benchmarks/throughput.py --accuracy 10 --teacher runs/teacher --out accuracy.json

All train the same student with the same teacher, batch, augmentation, loss and optimizer, each in its own process of
one tree. They are made ready one after the other, compilation included; then come rounds, in which each in its turn
trains so many steps while all others wait. What counts is everything that a step takes, data included: of a turn, the
median of its parts. The median of the rounds is shown with the fastest and the slowest; ratios are taken within each
round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from contenders import CONTENDERS
from contenders.child import train_whole
from contenders.machine import machine
from contenders.rounds import Child, note, take_rounds
from contenders.setting import Setting
from contenders.tables import ratios, table
from contenders.typed import add_turns, parser_of, setting_of, turns_of

import tutelage
from tutelage.files import write_json
from tutelage.models.spec import NetworkSpec


def measure(setting: Setting, names: Sequence[str], **how: int) -> dict[str, Any]:
    """Return what each contender took in each round, by name.

    Args:
        setting: What is shared.
        names: Who takes part.
        **how: As of `take_rounds`.
    """
    found = take_rounds({name: (name, setting) for name in names}, **how)
    return {name: _summed_up(name, what, setting.batch) for name, what in found.items()}


def _summed_up(name: str, what: Mapping[str, Any], batch: int) -> dict[str, Any]:
    switches = " ".join([CONTENDERS[name].switches, *what.get("notes", [])])
    about = {"title": CONTENDERS[name].title, "switches": switches}
    if "error" in what:
        return {**about, "error": what["error"]}
    seconds = [turn["seconds"] for turn in what["turns"]]
    return {
        **about,
        "seconds": seconds,
        "ms_per_step": 1000 * statistics.median(seconds),
        "images_per_second": batch / statistics.median(seconds),
        "peak_memory": max(turn["memory"] for turn in what["turns"]),
        "workers_memory": max(turn["workers_memory"] for turn in what["turns"]),
        "peak_memory_with_preparation": what["most_memory"],
        "seconds_of_preparation": what["prepared"],
        "threads": what["threads"],
    }


def judge(setting: Setting, names: Sequence[str], seeds: int) -> dict[str, Any]:
    """Return the test accuracy of each contender's student, by name, for so many seeds."""
    found: dict[str, Any] = {}
    for name in names:
        runs = []
        for seed in range(seeds):
            child = Child(train_whole, name, name, replace(setting, seed=seed))
            runs.append({"seed": seed, **child.hear(patience=None)})
            child.end()
            note(f"{name}, seed {seed}: {runs[-1].get('error') or runs[-1]['accuracy']}")
        found[name] = {"title": CONTENDERS[name].title, "switches": CONTENDERS[name].switches, "runs": runs}
    return found


def trained_teacher(setting: Setting, folder: Path) -> Setting:
    """Return the setting with a teacher that knows something: as it comes, or trained on the labels first."""
    data = setting.load()
    if NetworkSpec.parse(setting.teacher).trained_for(data.num_classes):
        return setting
    note(f"{setting.teacher} comes untrained: training it first, for {setting.epochs} epochs.")
    tutelage.distill(
        "supervised",
        student=setting.teacher,
        data=data,
        out=folder,
        progress=False,
        epochs=setting.epochs,
        batch_size=setting.batch,
        lr=setting.lr,
        keep="last",
    )
    return replace(setting, teacher=str(folder))


def with_recording(setting: Setting, folder: Path, given: argparse.Namespace) -> Setting:
    """Return the setting with a recording of the teacher, as `tutelage record` makes it, if one is needed."""
    if setting.recording is not None or "recorded" not in given.only:
        return setting
    data = setting.load()
    started = time.perf_counter()
    tutelage.record(
        setting.networks(data)[0],
        data=data,
        out=folder,
        views=given.views,
        keep=given.keep,
        batch_size=256,
        progress=False,
    )
    note(f"recorded {given.views} views after {time.perf_counter() - started:.0f} s")
    return replace(setting, recording=str(folder))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = parser_of(__doc__)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--views", type=int, default=2, help="views to record where no recording is given")
    parser.add_argument("--keep", default="top5", help="what to keep of an answer in that recording")
    add_turns(parser, steps=50, lead=10)
    parser.add_argument("--accuracy", type=int, metavar="EPOCHS", help="train each to the end instead, and test it")
    parser.add_argument("--seeds", type=int, default=1, help="with --accuracy")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write, print."""
    given = parse(words)
    setting = setting_of(given)
    missing = {name: CONTENDERS[name].missing for name in given.only}
    present = [name for name, why in missing.items() if why is None]
    for name in missing.keys() - set(present):
        note(f"{name}: {missing[name]}")
    content: dict[str, Any] = {"command": " ".join(["python", "benchmarks/throughput.py", *(words or sys.argv[1:])])}
    with tempfile.TemporaryDirectory() as folder:
        if given.accuracy:
            setting = trained_teacher(replace(setting, epochs=given.accuracy), Path(folder) / "teacher")
            setting = with_recording(setting, Path(folder) / "recording", given)
            content["accuracy"] = judge(setting, [n for n in present if CONTENDERS[n].distils], given.seeds)
        else:
            setting = with_recording(setting, Path(folder) / "recording", given)
            turns = turns_of(given)
            content["contenders"] = measure(setting, present, **turns)
            content |= {"ratios": ratios(content["contenders"]), **turns}
    # As they were asked for: what was made for the occasion is gone.
    named = replace(setting, teacher=given.teacher, recording=given.recording)
    content |= {"setting": asdict(named), "missing": {n: why for n, why in missing.items() if why}}
    content["machine"] = machine(named.batch, f"{named.teacher} to {named.student} on {named.data}")
    content["load_average"] = os.getloadavg()
    if given.out:
        write_json(given.out, content)
    print(table(content))


if __name__ == "__main__":
    main()
