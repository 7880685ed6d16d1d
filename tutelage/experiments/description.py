"""Descriptions for the report: data, teacher, machine."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tutelage.data.dataset import TEST, TRAIN, VALIDATION, Data
from tutelage.data.plan import RecordedViews
from tutelage.evaluation.scores import measure_network
from tutelage.evaluation.shown import shown_samples
from tutelage.recording.replay import name_of, sampled_answers


def environment() -> dict[str, Any]:
    """Return the versions and the machine, on which measurements depend beside their settings."""
    # Not every system names its processor.
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def describe_data(data: Data) -> dict[str, Any]:
    """Return the report's facts about the data."""
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        **{name: data.count(name) for name in dict.fromkeys((TRAIN, VALIDATION, TEST, *data.splits))},
        "unlabelled": sorted(data.unlabelled),
        "foreign": None if data.foreign is None else {"name": data.foreign.name, "samples": data.count("foreign")},
        "image_size": list(data.image_size),
        "augmentation": str(data.augmentation),
        **({"shown": shown_samples(data)} if data.task.has_maps else {}),
    }


def teacher_facts(network: nn.Module, data: Data, *, device: str) -> dict[str, Any]:
    """Return a teacher's scores on every measured split, and in `pictures` the data of its pictures."""
    facts: dict[str, Any] = {}
    for split in data.measured:
        # Foreign samples are compared with the test split only.
        beside = data if split == TEST else replace(data, foreign=None)
        meter = measure_network(network, beside, split, device=device, detail="teacher")
        facts |= {f"{split}_{name}": value for name, value in meter.compute().items()}
        facts |= {f"foreign_{name}": value for name, value in meter.compute_foreign().items()}
        facts["pictures"] = meter.pictures()
    return facts


def recording_facts(recording: RecordedViews, data: Data) -> dict[str, Any]:
    """Return the report's facts about a teacher whose answers were recorded.

    Args:
        recording: The recording.
        data: The data that were recorded.
    """
    facts: dict[str, Any] = {"spec": name_of(recording), "recording": recording.fingerprint, "trained_here": False}
    sampled = sampled_answers(recording, data)
    if sampled is None:
        return facts
    answers, targets = sampled
    # The scores that are shown after every epoch; pictures need more than a sample of answers.
    meter = data.task.meter(detail="watched")
    meter.update(answers, targets)
    scores = {f"recorded_{name}": value for name, value in meter.compute().items()}
    return facts | {"recorded_views": len(targets), **scores}
