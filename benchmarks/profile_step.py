"""Where the time of a step goes: teacher, student, backward pass, optimizer, loss, data, and the driver around them.

    python benchmarks/profile_step.py --out profile.json
    python benchmarks/profile_step.py --recording runs/recording

A training by the real driver with its automatic settings is watched by torch.profiler; its parts are marked, so that
each part's share of the wall-clock time is known, and the operators that take most. The profiler itself costs time:
shares are what is meant, and milliseconds of a step without it are in `throughput.py`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from contenders import ours
from contenders.command import parser_of, publish, setting_of
from contenders.occasion import with_recording
from contenders.pace import Over, Pace
from contenders.setting import Setting
from jsonargparse import Namespace
from torch.profiler import ProfilerActivity, profile, record_function

from tutelage.core.teachers import Teacher
from tutelage.data.loader import ResidentLoader
from tutelage.features.extractor import FeatureExtractor
from tutelage.methods import KD
from tutelage.system.devices import threads

PARTS = ("data", "teacher", "student", "loss", "backward", "optimizer")
_TOP = 12


class Watch(Pace):
    """Starts a profiler after the warm-up, and ends the training when it has seen enough.

    Args:
        warm_up: Steps before.
        steps: Steps to watch.
    """

    def __init__(self, warm_up: int, steps: int) -> None:
        super().__init__(0.0, 1)
        self.warm_up, self.steps = warm_up, steps
        self.profiler = profile(activities=[ProfilerActivity.CPU, *_gpu()])

    @property
    def every(self) -> int:
        """Each step is reported."""
        return 1

    def step(self, optimizer: Any = None, count: int = 1) -> None:
        """Count a step."""
        super().step(None, count)
        if self.done == self.warm_up:
            self.profiler.start()
        if self.done == self.warm_up + self.steps:
            self.profiler.stop()
            raise Over


def _gpu() -> list[ProfilerActivity]:
    return [ProfilerActivity.CUDA] if torch.cuda.is_available() else []


@contextmanager
def marked() -> Iterator[None]:
    """Mark the parts of a step for a profiler, from outside: nothing of the library knows of it."""
    from lightning_fabric import Fabric
    from torch.optim import SGD

    marks: list[tuple[type, str, str]] = [
        (Teacher, "__call__", "teacher"),
        (FeatureExtractor, "forward", "student"),
        (KD, "losses", "loss"),
        (Fabric, "backward", "backward"),
        (SGD, "step", "optimizer"),
    ]
    patches = [patch.object(owner, name, _marking(getattr(owner, name), part)) for owner, name, part in marks]
    patches.append(patch.object(ResidentLoader, "epoch", _marking_items(ResidentLoader.epoch)))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def _marking(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    def marking(*arguments: Any, **named: Any) -> Any:
        with record_function(f"part: {part}"):
            return function(*arguments, **named)

    return marking


def _marking_items(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def marking(*arguments: Any, **named: Any) -> Iterator[Any]:
        items = function(*arguments, **named)
        while True:
            with record_function("part: data"):
                item = next(items, None)
            if item is None:
                return
            yield item

    return marking


def watch(setting: Setting, kind: str, *, warm_up: int, steps: int) -> dict[str, Any]:
    """Return where the time of a step goes.

    Args:
        setting: Data, networks and the rest.
        kind: `live` or `recorded`.
        warm_up: Steps before, in which networks are compiled.
        steps: Steps to watch.
    """
    pace = Watch(warm_up, steps)
    with threads(setting.threads), marked(), suppress(Over):
        getattr(ours, kind)(setting, pace)
    return parts_of(pace.profiler.events(), steps) | {"decision": pace.facts.get("notes", [])}


def parts_of(events: Any, steps: int) -> dict[str, Any]:
    """Return milliseconds a step and share of each part, and the operators that take most.

    What lies within another part counts there alone: the loss is what `KD.losses` takes without the networks, the
    student is what its extractor takes, and the driver is what lies outside all parts.

    Args:
        events: Of the profiler.
        steps: How many steps they are of.
    """
    spans = [(e.name.removeprefix("part: "), e.time_range) for e in events if e.name.startswith("part: ")]
    begin = min(e.time_range.start for e in events)
    whole = max(e.time_range.end for e in events) - begin
    own = dict.fromkeys(PARTS, 0.0)
    for name, span in spans:
        own[name] += span.end - span.start
    # A teacher's network is an extractor too, and both networks are asked within the loss.
    own["student"] -= _within(spans, "teacher", "student")
    own["loss"] -= own["teacher"] + own["student"]
    own["driver"] = whole - sum(own.values())
    totals: dict[str, float] = {}
    for event in events:
        if not event.name.startswith(("part: ", "ProfilerStep")):
            totals[event.name] = totals.get(event.name, 0.0) + event.self_cpu_time_total
    most = sorted(totals.items(), key=lambda item: -item[1])[:_TOP]
    return {
        "ms_per_step": whole / 1000 / steps,
        "parts": {name: {"ms": time / 1000 / steps, "share": time / whole} for name, time in own.items()},
        "operators": [{"name": name, "ms": time / 1000 / steps, "share": time / whole} for name, time in most],
    }


def _within(spans: Sequence[tuple[str, Any]], outer: str, inner: str) -> float:
    """Return how much time of the inner parts lies within outer ones."""
    around = [span for name, span in spans if name == outer]
    return sum(
        span.end - span.start
        for name, span in spans
        if name == inner and any(a.start <= span.start and span.end <= a.end for a in around)
    )


def table(content: Mapping[str, Any]) -> str:
    """Return what was measured in Markdown."""
    lines = [content["machine"]["summary"]]
    for kind, found in content["profiles"].items():
        lines += ["", f"| {kind}: part | ms a step | Share |", "|:--|--:|--:|"]
        lines += [f"| {name} | {one['ms']:.2f} | {one['share']:.1%} |" for name, one in found["parts"].items()]
        lines += [f"| whole | {found['ms_per_step']:.2f} | 100.0% |", "", f"| {kind}: operator | ms a step | Share |"]
        lines += ["|:--|--:|--:|"]
        lines += [f"| `{one['name']}` | {one['ms']:.2f} | {one['share']:.1%} |" for one in found["operators"]]
    return "\n".join(lines)


def parse(words: Sequence[str]) -> Namespace:
    """Return what was asked for."""
    parser = parser_of(__doc__)
    parser.add_argument("--only", nargs="+", choices=["live", "recorded"], default=["live", "recorded"])
    parser.add_argument("--warm_up", type=int, default=10, help="steps before, in which networks are compiled")
    parser.add_argument("--watched", type=int, default=20, help="steps to watch")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    """Measure and publish."""
    given = parse(words)
    asked = setting_of(given)
    steps = {"warm_up": given.warm_up, "steps": given.watched}
    with tempfile.TemporaryDirectory() as folder:
        setting = with_recording(asked, Path(folder) / "recording") if "recorded" in given.only else asked
        content = {"profiles": {kind: watch(setting, kind, **steps) for kind in given.only}, **steps}
    publish(__file__, words, asked, content, table=table, out=given.out)


if __name__ == "__main__":
    main(sys.argv[1:])
