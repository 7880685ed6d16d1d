"""What was measured, as ratios and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

LIMIT, TEACHER = "bare", "teacher"
REFERENCES = {"torchdistill": "x torchdistill", "torchdistill-best": "x torchdistill at its best"}
# What issue and documentation speak of: a name, who is divided by whom (by speed, or by time), and the aim.
AIMS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("Speed of live to torchdistill as its samples", "live", ("torchdistill",), "at least 5"),
    ("Speed of live to torchdistill at its best", "live", ("torchdistill-best",), ""),
    ("Speed of recorded to torchdistill as its samples", "recorded", ("torchdistill",), "at least 8"),
    ("Speed of recorded to torchdistill at its best", "recorded", ("torchdistill-best",), ""),
    ("Speed of live to timm's task with all switches", "live", ("timm-best",), "at least 1"),
    ("Speed of live to timm's task with lent batches", "live", ("timm-lent",), ""),
    ("Time of recorded to the bare step", "recorded", (LIMIT,), "at most 1.05"),
    ("Time of live to the bare step plus the teacher alone", "live", (LIMIT, TEACHER), "at most 1.05"),
)


def ratio(contenders: Mapping[str, Any], one: str, others: Sequence[str], *, of_time: bool) -> dict[str, float] | None:
    """Return median, least and most over the rounds of the time of one to the sum of others, or of the speeds."""
    rows = [contenders.get(name, {}).get("seconds") for name in (one, *others)]
    if not all(rows):
        return None
    each = [own / sum(theirs) for own, *theirs in zip(*rows, strict=True)]
    each = each if of_time else [1 / value for value in each]
    return {"median": statistics.median(each), "least": min(each), "most": max(each)}


def ratios(contenders: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all ratios that matter, with what they aim at."""
    found = []
    for title, one, others, aim in AIMS:
        value = ratio(contenders, one, others, of_time=title.startswith("Time"))
        found.append({"name": title, "aim": aim, **(value or {})})
    return found


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
        return [what["error"].replace("|", "/").splitlines()[0], *["–"] * (columns - 1)]
    times = [1000 * seconds for seconds in what["seconds"]]
    workers = f" + {what['workers_memory'] / 1e6:.0f}" if what["workers_memory"] else ""
    faster = [ratio(contenders, name, [other], of_time=False) for other in (*REFERENCES, LIMIT)]
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
    lines = [content["machine"]["summary"], "", _row("Contender", ["Test accuracy %", "NLL", "Seconds"])]
    lines.append("|:--|--:|--:|--:|")
    for what in content["accuracy"].values():
        runs = [run for run in what["runs"] if "error" not in run]
        cells = [_mean(runs, "accuracy", 100, 2), _mean(runs, "nll", 1, 3), _mean(runs, "seconds", 1, 0)]
        lines.append(_row(what["title"], cells if runs else [what["runs"][0]["error"].splitlines()[0], "–", "–"]))
    return "\n".join(lines)


def _mean(runs: Sequence[Mapping[str, float]], key: str, scale: float, digits: int) -> str:
    values = [scale * run[key] for run in runs]
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}" if values else "–"


def _row(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"
