"""A comparison of nine rows and three seeds that looks like a real one, made of smooth curves and fixed noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROWS: tuple[tuple[str, str, str, float, float, float], ...] = (
    ("supervised", "supervised", "Plain student", 0.0, 1.0, 0.062),
    ("label-smoothing:smoothing=0.1", "label-smoothing", "Label smoothing", 0.006, 1.01, 0.031),
    ("kd:temperature=4.0", "kd", "Knowledge distillation", 0.021, 1.34, 0.044),
    ("kd:temperature=1.0", "kd", "Knowledge distillation", 0.009, 1.34, 0.058),
    ("tf-kd-self", "tf-kd-self", "Teacher-free KD (self-training)", 0.008, 2.05, 0.037),
    ("tf-kd-reg", "tf-kd-reg", "Teacher-free KD (virtual teacher)", 0.004, 1.02, 0.029),
    ("de-kd:teacher_epochs=1", "de-kd", "Defective-teacher distillation", -0.017, 1.11, 0.049),
    ("de-kd:teacher_epochs=5", "de-kd", "Defective-teacher distillation", 0.002, 1.19, 0.047),
    ("dml", "dml", "Deep mutual learning", 0.012, 2.71, 0.040),
)
METRICS = ("validation_accuracy", "test_accuracy", "test_nll", "test_ece")


def similarity(classes: int, seed: int = 0) -> list[list[float]]:
    """Class similarities with blocks of related classes, the diagonal dominant, rows summing to one."""
    rng = np.random.default_rng(seed)
    group = np.arange(classes) % max(2, classes // 5)
    logits = rng.normal(0, 0.6, (classes, classes)) + 2.2 * (group[:, None] == group[None]) + 6 * np.eye(classes)
    weights = np.exp(logits)
    return [[float(value) for value in row] for row in weights / weights.sum(1, keepdims=True)]


def _history(final: float, epochs: int, rng: np.random.Generator) -> dict[str, list[float]]:
    epoch = np.arange(1, epochs + 1)
    accuracy = final - (final - 0.1) * np.exp(-epoch / 5) + rng.normal(0, 0.006, epochs) - 0.0004 * epoch
    loss = 2.3 * np.exp(-epoch / 6) + 0.2
    return {
        "epoch": epoch.tolist(),
        "validation_accuracy": accuracy.tolist(),
        "validation_nll": (loss + 0.6 + 0.005 * epoch).tolist(),
        "train/ce": loss.tolist(),
        "lr": (0.05 * (1 + np.cos(np.pi * epoch / epochs))).tolist(),
    }


def _reliability(accuracy: float, ece: float, size: int, rng: np.random.Generator) -> dict[str, list[float]]:
    centre = (np.arange(15) + 0.5) / 15
    count = np.maximum(0, (size * np.exp(4 * centre) / np.exp(4 * centre).sum())).astype(int)
    hit = np.clip(centre - 1.4 * ece * centre + rng.normal(0, 0.012, 15), 0, 1)
    return {"confidence": centre.tolist(), "accuracy": hit.tolist(), "count": count.tolist()}


def run(seed: int, gain: float, cost: float, ece: float, *, epochs: int = 30, level: float = 0.601) -> dict[str, Any]:
    """One run of a row; the seed's own level is shared by all rows, so that pairing matters."""
    rng = np.random.default_rng(1000 * seed + int(abs(gain) * 1e4) + int(cost * 100))
    test = level + np.random.default_rng(seed).normal(0, 0.006) + gain + rng.normal(0, 0.0024)
    best = {
        "validation_accuracy": test + 0.008,
        "test_accuracy": test,
        "test_nll": 1.21 - 2 * gain + 2 * ece + rng.normal(0, 0.01),
        "test_ece": ece + rng.normal(0, 0.003),
    }
    last = {**best, "test_accuracy": test - 0.006 + rng.normal(0, 0.002), "test_nll": best["test_nll"] + 0.09}
    return {
        "seed": seed,
        "folder": f"runs/seed-{seed}",
        "best_epoch": 22 + seed,
        "epochs": epochs,
        "best": {key: float(value) for key, value in best.items()},
        "last": {key: float(value) for key, value in last.items()},
        "seconds": 62.0 * cost + seed,
        "images_per_second": 9500 / cost,
        "stages": [{"name": "student", "seconds": 62.0 * cost}],
        "history": _history(test + 0.012, epochs, rng),
        "reliability": _reliability(test, ece, 4000, rng),
        "teacher_accuracy": None,
    }


def summarise(runs: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]] | None, cost: float) -> dict[str, Any]:
    """The summary that the comparison writes for a row."""
    n = len(runs)
    summary: dict[str, Any] = {}
    for moment in ("best", "last"):
        values = {key: np.array([run[moment][key] for run in runs]) for key in METRICS}
        summary[moment] = {
            key: {"mean": float(v.mean()), "std": float(v.std(ddof=1)) if n > 1 else None, "n": n}
            for key, v in values.items()
        }
    summary["paired"] = None if base is None else {m: _paired(runs, base, m) for m in ("best", "last")}
    summary["seconds"] = {"mean": float(np.mean([run["seconds"] for run in runs]))}
    summary["images_per_second"] = {"mean": float(np.mean([run["images_per_second"] for run in runs]))}
    summary["relative_cost"] = cost
    return summary


def _paired(runs: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], moment: str) -> dict[str, Any]:
    gaps = np.array([a[moment]["test_accuracy"] - b[moment]["test_accuracy"] for a, b in zip(runs, base)])
    if len(gaps) < 2:
        return {"mean": float(gaps.mean()), "low": None, "high": None, "n": len(gaps)}
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return {
        "mean": float(gaps.mean()),
        "low": float(gaps.mean()) - half,
        "high": float(gaps.mean()) + half,
        "n": len(gaps),
    }


def row(spec: tuple[str, str, str, float, float, float], seeds: Sequence[int], base: Any) -> dict[str, Any]:
    """One finished row."""
    label, method, title, gain, cost, ece = spec
    runs = [run(seed, gain, cost, ece) for seed in seeds]
    if method == "de-kd":
        for entry in runs:
            entry["teacher_accuracy"] = 0.21 if "=1" in label else 0.41
    if method == "dml":
        for entry in runs:
            entry["members"] = [{"name": "ensemble", "best": dict(entry["best"]), "last": dict(entry["last"])}]
    return {
        "label": label,
        "method": method,
        "options": {},
        "title": title,
        "seeds": list(seeds),
        "command": f"tutelage distill --method {label} --data cifar10-small --student small_cnn --seeds {len(seeds)}",
        "parameters": 268_650,
        "multiply_adds": 12_480_000,
        "runs": runs,
        "summary": summarise(runs, base, cost),
    }


def comparison(
    *, seeds: int = 3, classes: int = 10, take: int | None = None, failed: bool = True, shift: float = 0.0
) -> dict[str, Any]:
    """A whole comparison; `take` keeps the first rows, `shift` moves every method's gain."""
    specs = [(*spec[:3], spec[3] + (shift if index else 0.0), *spec[4:]) for index, spec in enumerate(ROWS[:take])]
    base = row(specs[0], range(seeds), None)
    entries = [base, *(row(spec, range(seeds), base["runs"]) for spec in specs[1:])]
    if failed:
        entries.append(_failed())
    return {
        "version": 1,
        "tutelage": "0.1.0",
        "title": "Eight ways to teach a small network",
        "created": "2025-11-20T22:35:00+00:00",
        "command": "tutelage compare comparison.yaml",
        "environment": {"python": "3.11.7", "torch": "2.9.0", "device": "cpu", "threads": 2, "precision": "32-true"},
        "data": _data(classes),
        "student": {"spec": "small_cnn(width=32)", "parameters": 268_650, "multiply_adds": 12_480_000},
        "teacher": _teacher(classes),
        "settings": {"epochs": 30, "batch_size": 128, "optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, "ema": None},
        "baseline": "supervised",
        "rows": entries,
        "curves": {"de-kd": _poor_teachers(seeds)},
        "citations": {"kd": "@article{hinton2015,\n  title = {Distilling the Knowledge in a Neural Network}\n}"},
    }


def _failed() -> dict[str, Any]:
    return {
        "label": "fitnet:layer=3",
        "method": "fitnet",
        "options": {"layer": 3},
        "title": "FitNets hints",
        "seeds": [0, 1, 2],
        "command": "tutelage distill --method fitnet:layer=3",
        "error": "loss became NaN in epoch 2 (seed 0)",
        "runs": [],
    }


def _data(classes: int) -> dict[str, Any]:
    names = list(CLASSES) if classes == 10 else [f"class {index}" for index in range(classes)]
    return {
        "name": f"cifar{classes}-small",
        "fingerprint": "5f2b9c41",
        "num_classes": classes,
        "class_names": names,
        "train": 8000,
        "validation": 2000,
        "test": 4000,
        "image_size": [32, 32],
        "augmentation": "crop+flip",
    }


def _teacher(classes: int) -> dict[str, Any]:
    return {
        "spec": "resnet18",
        "parameters": 11_173_962,
        "multiply_adds": 556_000_000,
        "validation_accuracy": 0.718,
        "test_accuracy": 0.7123,
        "test_nll": 0.93,
        "test_ece": 0.071,
        "class_similarity": similarity(classes),
        "trained_here": True,
        "seconds": 340.0,
    }


def _poor_teachers(seeds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    return [
        {
            "teacher_accuracy": accuracy,
            "student_accuracy": [float(0.601 + gain + value) for value in rng.normal(0, 0.004, seeds)],
            "label": f"de-kd:teacher_epochs={epochs}",
        }
        for accuracy, gain, epochs in (
            (0.15, -0.02, 0),
            (0.24, -0.009, 1),
            (0.37, 0.0, 3),
            (0.47, 0.004, 6),
            (0.58, 0.01, 15),
        )
    ]


def with_teacher_rows() -> dict[str, Any]:
    """A comparison with rows that train the teacher's network and are compared with a baseline of their own."""
    found = comparison(take=3, failed=False)
    plain = row(("supervised-teacher", "supervised-teacher", "Plain teacher", 0.1, 3.0, 0.05), range(3), None)
    reverse = ("re-kd", "re-kd", "Reversed distillation", 0.13, 3.4, 0.04)
    taught = row(reverse, range(3), plain["runs"])
    plain["trains"] = taught["trains"] = "teacher"
    plain["baseline"] = taught["baseline"] = "supervised-teacher"
    found["rows"] += [plain, taught]
    return found


Network = tuple[str, str | None, float | None, float | None, float]
EXITS: tuple[Network, ...] = (
    ("exit-1", "small_cnn(width=32)[exit-1]", 61_300, 2_310_000, -0.083),
    ("exit-2", "small_cnn(width=32)[exit-2]", 140_800, 6_020_000, -0.027),
    ("ensemble", None, None, None, 0.009),
)
PEERS: tuple[Network, ...] = (
    ("student-2", "small_cnn(width=32)", 268_650, 12_480_000, -0.002),
    ("ensemble", None, None, None, 0.014),
)
THREE: tuple[Network, ...] = (
    ("student-2", "mobilenet_v2(width=0.5)", 815_780, 25_900_000, 0.021),
    ("student-3", "wrn-16-2", 703_284, 101_200_000, 0.055),
    ("student-4", "small_cnn(width=32)", 268_650, 12_480_000, -0.004),
)


def with_members(entry: dict[str, Any], networks: Sequence[Network]) -> dict[str, Any]:
    """A row whose method trained several networks; each is as far from the deployed one as is said."""
    for run in entry["runs"]:
        run["members"] = []
        for index, (name, spec, parameters, multiply_adds, gap) in enumerate(networks):
            shift = gap + float(np.random.default_rng(31 * run["seed"] + index).normal(0, 0.003))
            scores = {
                moment: {
                    key: value + shift if "accuracy" in key else value - shift / 4 for key, value in run[moment].items()
                }
                for moment in ("best", "last")
            }
            facts = {"name": name, "spec": spec, "parameters": parameters, "multiply_adds": multiply_adds}
            run["members"].append({**facts, **scores})
            curve = [value + shift for value in run["history"]["validation_accuracy"]]
            run["history"][f"validation_accuracy/{name}"] = curve
    entry |= {"deployed": "student", "network": "small_cnn(width=32)"}
    entry["summary"]["members"] = [
        {key: member[key] for key in ("name", "spec", "parameters", "multiply_adds")}
        | {key: value for key, value in summarise(of_seeds, None, 1.0).items() if key in {"best", "last"}}
        for index, member in enumerate(entry["runs"][0]["members"])
        for of_seeds in [[{**run, **run["members"][index]} for run in entry["runs"]]]
    ]
    return entry


def families(*, seeds: int = 3) -> dict[str, Any]:
    """A comparison of five rows, three of which trained several networks."""
    found = comparison(seeds=seeds, take=2, failed=False)
    base, smoothed = found["rows"]
    for entry in (base, smoothed):
        entry |= {"deployed": "student", "network": "small_cnn(width=32)"}
        entry["summary"]["members"] = []
    specs: tuple[tuple[tuple[str, str, str, float, float, float], tuple[Network, ...]], ...] = (
        (("byot", "byot", "Be your own teacher", 0.015, 1.62, 0.041), EXITS),
        (("dml", "dml", "Deep mutual learning", 0.012, 2.71, 0.040), PEERS),
        (("afd:students=4", "afd", "Adversarial feature distillation", 0.019, 4.9, 0.043), THREE),
    )
    for spec, networks in specs:
        found["rows"].append(with_members(row(spec, range(seeds), base["runs"]), networks))
    found["title"] = "Networks that teach themselves and one another"
    return found
