"""The numbers of a row: its runs, their means, and their paired differences from another row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tutelage.data.task import Task
from tutelage.experiments.statistics import paired_difference, summary
from tutelage.training.run import Fitted, Run

# Sizes of a prediction that is not a network, such as the mean of several networks.
UNSIZED = {"spec": None, "parameters": None, "multiply_adds": None}


def record(run: Run, seed: int, root: Path) -> dict[str, Any]:
    """Return a finished run's entry in its row.

    Args:
        run: The run.
        seed: Its seed.
        root: The comparison's folder. The run's folder is stored relative to it, so that it can be moved as a whole.
    """
    # The last stage trained the network that is deployed.
    final = run.fitted[-1]
    history = {"epoch": list(range(1, final.epochs + 1)), **final.history}
    members = _members(final) + [
        {"name": name, **UNSIZED, "best": _named(scores), "last": _named(scores)}
        for name, scores in run.notes.get("members", {}).items()
    ]
    # All stages: a method that trains a teacher first pays for it.
    seconds = sum(stage.seconds for stage in run.fitted)
    return {
        "seed": seed,
        "folder": str(run.folder.relative_to(root)),
        "best_epoch": final.best_epoch,
        "epochs": final.epochs,
        "best": final.scores["best"],
        "last": final.scores["last"],
        "seconds": seconds,
        "images_per_second": final.images_per_second,
        "stages": [{"name": stage.name, "seconds": stage.seconds} for stage in run.fitted],
        "history": history,
        "pictures": final.pictures,
        "teacher_scores": run.notes.get("teacher_scores"),
        "members": members,
        # Scores over something that a recipe counts, such as queries; absent in rows of other recipes.
        **({"curves": curves} if (curves := run.notes.get("curves")) else {}),
    }


def summarise(row: Mapping[str, Any], baseline: Mapping[str, Any] | None, task: Task) -> dict[str, Any]:
    """Return means over a row's runs, its cost, and its paired differences from the baseline row.

    Args:
        row: A row with at least one run.
        baseline: The other row; None if there is none.
        task: The task, with its metrics. Rows are compared by the primary one.
    """
    runs = row["runs"]
    found = _means(runs, task)
    found["members"] = [
        {key: member[key] for key in ("name", "spec", "parameters", "multiply_adds")}
        | _means([run["members"][position] for run in runs], task)
        for position, member in enumerate(runs[0]["members"])
    ]
    found["seconds"] = {"mean": fmean(run["seconds"] for run in runs)}
    found["images_per_second"] = {"mean": fmean(run["images_per_second"] for run in runs)}
    found["paired"] = None
    if baseline is not None and baseline["runs"]:
        found["relative_cost"] = _typical_seconds(runs) / _typical_seconds(baseline["runs"])
        # A row is not compared with itself.
        if baseline["label"] != row["label"]:
            found["paired"] = {
                which: _paired(runs, baseline["runs"], which, f"test_{task.primary}") for which in ("best", "last")
            }
    return found


def _members(final: Fitted) -> list[dict[str, Any]]:
    """Return the predictions beside the deployed one: other students, exits, an ensemble."""
    # Scores of other predictions carry their name behind a slash.
    names = dict.fromkeys(key.partition("/")[2] for key in final.scores["best"] if "/" in key)
    return [
        {
            "name": name,
            **final.members.get(name, UNSIZED),
            **{
                which: {key.partition("/")[0]: value for key, value in scores.items() if key.endswith(f"/{name}")}
                for which, scores in final.scores.items()
            },
        }
        for name in names
    ]


def _means(scored: Sequence[Mapping[str, Any]], task: Task) -> dict[str, Any]:
    """Return mean and spread of each score over the runs, by the best and the last epoch."""
    names = list(task.score_names())
    # Scores of further splits come last.
    names += [name for name in scored[0]["best"] if name not in names and "/" not in name]
    return {
        which: {
            name: summary([one[which][name] for one in scored])
            for name in names
            # A score may have no value in a run: an error-free one has no rejection ratio.
            if all(name in one[which] for one in scored)
        }
        for which in ("best", "last")
    }


def _named(scores: Mapping[str, float]) -> dict[str, float]:
    return {f"test_{name}": value for name, value in scores.items()}


def _typical_seconds(runs: Sequence[Mapping[str, Any]]) -> float:
    # The median, because the first training of a process includes the time of its start.
    return float(median(run["seconds"] for run in runs))


def _paired(
    runs: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]], which: str, score: str
) -> dict[str, Any] | None:
    # Paired by seed: only seeds that both rows have finished are compared.
    base = {run["seed"]: run[which].get(score) for run in baseline}
    pairs = [(run[which].get(score), base[run["seed"]]) for run in runs if run["seed"] in base]
    known = [(value, other) for value, other in pairs if value is not None and other is not None]
    if not known:
        return None
    values, others = zip(*known, strict=True)
    return paired_difference(values, others)
