"""What a comparison was made on: data, networks, the machine."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import nn

from tutelage.data.plan import RecordedViews
from tutelage.data.sources import Data
from tutelage.evaluation.metrics import class_similarity
from tutelage.evaluation.scores import judge, members_on, predictions_on, score
from tutelage.evaluation.uncertainty import histograms, uncertainty_of
from tutelage.models.ensemble import Ensemble
from tutelage.recording.replay import name_of, sampled_answers

SIMILARITY_TEMPERATURE = 4.0


def environment() -> dict[str, Any]:
    """Return what a measurement depends on beside its settings."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def describe_data(data: Data) -> dict[str, Any]:
    """Return what the report says of the data."""
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        **{name: 0 if split is None else len(split) for name, split in splits.items()},
        "foreign": None if data.foreign is None else {"name": data.foreign.name, "samples": data.count("foreign")},
        "image_size": list(data.image_size),
        "augmentation": str(data.augmentation),
    }


def teacher_facts(network: nn.Module, data: Data, *, device: str) -> dict[str, Any]:
    """Return a teacher's scores on validation and test data, and how alike it finds the classes."""
    facts: dict[str, Any] = {}
    for split in ("validation", "test"):
        if getattr(data, split) is not None:
            logits, targets = predictions_on(network, data, split, device=device)
            facts |= score(logits, targets).named(split)
            facts["class_similarity"] = class_similarity(logits, targets, temperature=SIMILARITY_TEMPERATURE).tolist()
    return facts


def teacher_uncertainty(network: nn.Module, data: Data, *, device: str) -> dict[str, Any]:
    """Return what a teacher's or an ensemble's uncertainty is worth: scores, and histograms by kind in `uncertainty`.

    It is empty without test data, and where neither several members nor foreign data give it a meaning.
    """
    if data.test is None or not (isinstance(network, Ensemble) or data.foreign is not None):
        return {}
    logits, targets = members_on(network, data, "test", device=device)
    foreign = None if data.foreign is None else members_on(network, data, "foreign", device=device)[0]
    pictures = histograms(uncertainty_of(logits), None if foreign is None else uncertainty_of(foreign))
    return {**judge(logits, targets, foreign).uncertainties(), "uncertainty": pictures}


def recording_facts(recording: RecordedViews, data: Data) -> dict[str, Any]:
    """Return what the report says of a teacher whose answers were recorded.

    Args:
        recording: The recording.
        data: The data that it is of.
    """
    facts: dict[str, Any] = {"spec": name_of(recording), "recording": recording.fingerprint, "trained_here": False}
    sampled = sampled_answers(recording, data)
    if sampled is None:
        return facts
    answers, labels = sampled
    right = float((answers == labels).double().mean())
    return facts | {"recorded_views": len(labels), "recorded_accuracy": right}
