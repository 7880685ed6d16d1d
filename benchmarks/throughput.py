"""How fast distillation is, side by side: a textbook loop, torchdistill, timm's task, Tutelage, and the bare step.

    python benchmarks/throughput.py --out throughput.json
    python benchmarks/throughput.py --accuracy 10 --teacher runs/teacher --out accuracy.json

All train the same student with the same teacher, batch, augmentation, loss and optimizer, each in its own process of
one tree. They are made ready one after the other, compilation included; then come rounds, in which each in its turn
trains so many steps while all others wait. What counts is everything that an ordinary step takes, data included: of a
turn, the median of its parts, without what comes more rarely, such as the end of an epoch. The median of the rounds is
shown with the fastest and the slowest; ratios are taken within each round.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from contenders import CONTENDERS
from contenders.child import train_whole
from contenders.command import add_turns, parser_of, publish, setting_of, turns_of
from contenders.occasion import with_recording, with_teacher
from contenders.rounds import Child, note, take_rounds
from contenders.setting import Setting
from contenders.tables import ratios, table, timed
from jsonargparse import Namespace


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
    switches = ": ".join([CONTENDERS[name].switches, *what.get("notes", [])])
    about = {"title": CONTENDERS[name].title, "switches": switches}
    if "error" in what:
        return {**about, "error": what["error"]}
    times = timed(what)
    return {
        **about,
        **times,
        "images_per_second": 1000 * batch / times["ms_per_step"],
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
            run = {"seed": seed, **child.hear(patience=None)}
            child.end()
            told = run.get("error") or f"{run['accuracy']:.2%} after {run['seconds']:.0f} s"
            note(f"{name}, seed {seed}: {told}")
            runs.append(run)
        found[name] = {"title": CONTENDERS[name].title, "switches": CONTENDERS[name].switches, "runs": runs}
    return found


def parse(words: Sequence[str]) -> Namespace:
    """Return what was asked for."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=CONTENDERS, default=[*CONTENDERS], metavar="CONTENDER", help="who takes part"
    )
    parser.add_argument("--views", type=int, default=2, help="views to record where no recording is given")
    parser.add_argument("--keep", default="top5", help="what to keep of an answer in that recording")
    add_turns(parser, steps=50, lead=10)
    parser.add_argument("--accuracy", type=int, metavar="EPOCHS", help="train each to the end instead, and test it")
    parser.add_argument("--seeds", type=int, default=1, help="with --accuracy")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    """Measure and publish."""
    given = parse(words)
    asked = setting_of(given)
    if given.accuracy:
        asked = replace(asked, epochs=given.accuracy)
    missing = {name: why for name in given.only if (why := CONTENDERS[name].missing) is not None}
    for name, why in missing.items():
        note(f"{name}: {why}")
    present = [name for name in given.only if name not in missing]
    with tempfile.TemporaryDirectory() as folder:
        setting = with_teacher(asked, Path(folder) / "teacher") if given.accuracy else asked
        if "recorded" in present:
            setting = with_recording(setting, Path(folder) / "recording", views=given.views, keep=given.keep)
        content: dict[str, Any] = {"missing": missing}
        if given.accuracy:
            content["accuracy"] = judge(setting, [n for n in present if CONTENDERS[n].distils], given.seeds)
        else:
            turns = turns_of(given)
            content["contenders"] = measure(setting, present, **turns)
            content |= {"ratios": ratios(content["contenders"]), **turns}
    content["load_average"] = os.getloadavg()
    publish(__file__, words, asked, content, table=table, out=given.out)


if __name__ == "__main__":
    main(sys.argv[1:])
