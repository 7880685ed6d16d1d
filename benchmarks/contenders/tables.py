"""What was measured, as ratios and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT, TEACHER = "bare", "teacher"
REFERENCES = {"torchdistill": "x torchdistill", "torchdistill-best": "x torchdistill at its best"}


@dataclass(frozen=True)
class Aim:
    """A ratio that the documentation speaks of.

    Attributes:
        title: What it is called. The speed of one to another is the time of that other to its own.
        time: Whose time is divided.
        by: By the sum of whose.
        aim: What it should be; empty where nothing is aimed at.
    """

    title: str
    time: str
    by: tuple[str, ...]
    aim: str = ""


AIMS = (
    Aim("Speed of live to torchdistill as its samples", "torchdistill", ("live",), "at least 5"),
    Aim("Speed of live to torchdistill at its best", "torchdistill-best", ("live",)),
    Aim("Speed of recorded to torchdistill as its samples", "torchdistill", ("recorded",), "at least 8"),
    Aim("Speed of recorded to torchdistill at its best", "torchdistill-best", ("recorded",)),
    Aim("Speed of live to timm's task with all switches", "timm-best", ("live",), "at least 1"),
    Aim("Speed of live to timm's task with lent batches", "timm-lent", ("live",)),
    Aim("Time of recorded to the bare step", "recorded", (LIMIT,), "at most 1.05"),
    Aim("Time of live to the bare step plus the teacher alone", "live", (LIMIT, TEACHER), "at most 1.05"),
)


def timed(what: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seconds of a step in each turn, and their median in milliseconds."""
    seconds = [turn["seconds"] for turn in what["turns"]]
    return {"seconds": seconds, "ms_per_step": 1000 * statistics.median(seconds)}


def relative(one: Mapping[str, Any], *others: Mapping[str, Any], name: str = "median") -> dict[str, float]:
    """Return median, by its name, least and most of the time of one to the sum of others in the same round."""
    rows = zip(*(what["seconds"] for what in (one, *others)), strict=True)
    each = [own / sum(theirs) for own, *theirs in rows]
    return {name: statistics.median(each), "least": min(each), "most": max(each)}


def ratio(contenders: Mapping[str, Any], time: str, *by: str) -> dict[str, float] | None:
    """Return the time of one, relative to the sum of others; None where one of them was not measured."""
    found = [contenders.get(name, {}) for name in (time, *by)]
    return relative(*found) if all("seconds" in what for what in found) else None


def ratios(contenders: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all ratios that matter, with what they aim at."""
    return [{"name": one.title, "aim": one.aim, **(ratio(contenders, one.time, *one.by) or {})} for one in AIMS]


def reason(what: Mapping[str, Any]) -> str:
    """Return why something was not measured, in one cell of a table."""
    return str(what["error"]).splitlines()[0].replace("|", "/")


def table(content: Mapping[str, Any]) -> str:
    """Return what was measured in Markdown."""
    return accuracy_table(content) if "accuracy" in content else throughput_table(content)


def throughput_table(content: Mapping[str, Any]) -> str:
    """Return speed, memory and ratios as tables."""
    contenders = content["contenders"]
    heads = ["Images/s", "ms a step", "fastest to slowest", "Peak MB", "Ready after", *REFERENCES.values(), "x limit"]
    lines = [content["machine"]["summary"], "", _row("Contender", heads), "|:--|" + "--:|" * len(heads)]
    lines += [_row(what["title"], _cells(name, what, contenders, len(heads))) for name, what in contenders.items()]
    lines += ["", _row("Ratio", ["Median", "Least to most", "Aim"]), "|:--|--:|--:|:--|"]
    for found in content["ratios"]:
        spread = f"{found['least']:.2f} to {found['most']:.2f}" if "median" in found else "–"
        median = f"{found['median']:.2f}" if "median" in found else "–"
        lines.append(_row(found["name"], [median, spread, found["aim"] or "–"]))
    lines += ["", *(f"- {what['title']}: {what['switches']}" for what in contenders.values())]
    return "\n".join(lines)


def _cells(name: str, what: Mapping[str, Any], contenders: Mapping[str, Any], columns: int) -> list[str]:
    if "error" in what:
        return [reason(what), *["–"] * (columns - 1)]
    times = [1000 * seconds for seconds in what["seconds"]]
    workers = f" + {what['workers_memory'] / 1e6:.0f}" if what["workers_memory"] else ""
    faster = [ratio(contenders, other, name) for other in (*REFERENCES, LIMIT)]
    return [
        f"{what['images_per_second']:.0f}",
        f"{what['ms_per_step']:.1f}",
        f"{min(times):.1f} to {max(times):.1f}",
        f"{what['peak_memory'] / 1e6:.0f}{workers}",
        f"{what['seconds_of_preparation']:.0f} s",
        *("–" if value is None else f"{value['median']:.2f}" for value in faster),
    ]


def accuracy_table(content: Mapping[str, Any]) -> str:
    """Return test accuracy and time as a table."""
    epochs = content["setting"]["epochs"]
    about = f"Mean ± standard deviation over the seeds, after {epochs} epochs; seconds are those of a whole training."
    heads = ["Test accuracy %", "NLL", "Seconds", "Seeds"]
    lines = [content["machine"]["summary"], about, "", _row("Contender", heads), "|:--|" + "--:|" * len(heads)]
    for what in content["accuracy"].values():
        runs = [run for run in what["runs"] if "error" not in run]
        cells = [_mean(runs, "accuracy", 100, 2), _mean(runs, "nll", 1, 3), _mean(runs, "seconds", 1, 0)]
        cells = cells if runs else [reason(what["runs"][0]), "–", "–"]
        lines.append(_row(what["title"], [*cells, f"{len(runs)} of {len(what['runs'])}"]))
    return "\n".join(lines)


def _mean(runs: Sequence[Mapping[str, float]], key: str, scale: float, digits: int) -> str:
    values = [scale * run[key] for run in runs]
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}" if values else "–"


def _row(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"
