"""What each switch of the fast path brings: live distillation without it, beside all of them.

    python benchmarks/switches.py --out switches.json

Processes take turns as in benchmarks/throughput.py; ratios are taken within each round.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from contenders.command import add_turns, parser_of, publish, setting_of, turns_of
from contenders.rounds import take_rounds
from contenders.setting import Setting
from contenders.tables import reason, relative, timed
from jsonargparse import Namespace

ALL = "all on"
WITHOUT: Mapping[str, Mapping[str, str]] = {
    ALL: {},
    "without compilation": {"compile": "off"},
    "without bf16": {"precision": "32-true"},
    "without channels-last": {"channels_last": "off"},
    "without the fused optimizer": {"fused": "off"},
    "without kept memory": {"keep_memory": "off"},
    "none": {"compile": "off", "precision": "32-true", "channels_last": "off", "fused": "off", "keep_memory": "off"},
}


def measure(setting: Setting, turns: Mapping[str, int]) -> dict[str, Any]:
    """Return the time of a live step without each switch, relative to all."""
    on = replace(setting, compile="on", precision="bf16-mixed", channels_last="on", fused="on", keep_memory="on")
    raw = take_rounds({name: ("live", replace(on, **off)) for name, off in WITHOUT.items()}, **turns)
    found: dict[str, Any] = {}
    for name, what in raw.items():
        if "error" in what or "error" in raw[ALL]:
            found[name] = {"error": what.get("error", "no reference")}
            continue
        times = timed(what)
        found[name] = {
            **times,
            **relative(times, timed(raw[ALL]), name="time_to_all"),
            "peak_memory": max(turn["memory"] for turn in what["turns"]),
            "decision": what["notes"],
        }
    return found


def table(content: Mapping[str, Any]) -> str:
    """Return what was measured in Markdown."""
    heads = "| Live step | ms | Time to all on | Least to most | Peak MB |"
    lines = [content["machine"]["summary"], "", heads, "|:--|--:|--:|--:|--:|"]
    for name, what in content["switches"].items():
        if "error" in what:
            lines.append(f"| {name} | {reason(what)} | – | – | – |")
            continue
        spread = f"{what['least']:.2f} to {what['most']:.2f}"
        cells = f"{what['ms_per_step']:.1f} | {what['time_to_all']:.2f} | {spread} | {what['peak_memory'] / 1e6:.0f}"
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def parse(words: Sequence[str]) -> Namespace:
    """Return what was asked for."""
    parser = parser_of(__doc__, without=(*WITHOUT["none"], "recording"))
    add_turns(parser, steps=50, lead=10)
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    """Measure and publish."""
    given = parse(words)
    setting, turns = setting_of(given), turns_of(given)
    content = {**turns, "switches": measure(setting, turns)}
    publish(__file__, words, setting, content, table=table, out=given.out)


if __name__ == "__main__":
    main(sys.argv[1:])
