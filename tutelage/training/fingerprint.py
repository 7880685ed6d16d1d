"""Fingerprints of work: equal fingerprints mean the same work, so a run folder is never reused for other work."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import nn

from tutelage.core.teachers.teacher import Teacher
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.models.catalogue import former_spec
from tutelage.models.normalization import Normalized
from tutelage.system.digests import of_tensors
from tutelage.system.files import read_json

Plain = bool | int | float | str | None


def of_method(method: nn.Module) -> dict[str, Any]:
    """Return a method's fingerprint: its hyper-parameters, structure and initial weights, the teacher included."""
    parts: dict[str, Any] = {}
    for name, module in method.named_modules():
        settings = {key: _plain(value) for key, value in vars(module).items() if _is_setting(key, value)}
        # Stored runs hold the networks' former names, and must be recognised under the new ones.
        if isinstance(module, Normalized) and module.spec is not None:
            settings["spec"] = former_spec(module.spec)
        parts[name] = [type(module).__name__, settings]
    own = {key: value for key, value in parts.items() if not _is_network(method, key)}
    teachers = ((name, module) for name, module in method.named_modules() if isinstance(module, Teacher))
    known = {name: one for name, teacher in teachers if (one := teacher.known_by()) is not None}
    return {
        "method": own,
        "networks": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16],
        # Non-persistent buffers, such as input statistics, are in no state dict, but change the answers.
        "weights": of_tensors(method.state_dict() | dict(method.named_buffers())),
        # Facts that settings and weights do not show. Absent if there are none, as in runs of earlier versions.
        **({"teachers": known} if known else {}),
    }


def difference(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return one line for each value that differs between two fingerprints."""
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += difference(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} then, {new} now")
    return lines


def check(file: Path, now: Mapping[str, Any]) -> None:
    """Refuse to go on with work whose stored fingerprint differs.

    Args:
        file: Where the fingerprint was stored; nothing happens if it does not exist.
        now: The fingerprint of the work that is asked for.

    Raises:
        UserError: If they differ; the message names the differences.
    """
    if not file.exists():
        return
    # Through JSON and back, because the stored side has lists for tuples and text for keys.
    lines = difference(read_json(file), json.loads(json.dumps(now)))
    if lines:
        raise UserError(
            f"{file.parent} holds the results of other work:\n  "
            + "\n  ".join(lines[:8])
            + "\nChoose another folder with --out, or delete this one to start again."
        )


def _is_network(method: nn.Module, name: str) -> bool:
    """Return whether a submodule lies inside a network, whose parts are too many to list."""
    parts = name.split(".")
    parents = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    return any(isinstance(method.get_submodule(parent), FeatureExtractor) for parent in parents)


def _is_setting(key: str, value: object) -> bool:
    # `training` is a module's mode, not a setting.
    return not key.startswith("_") and key != "training" and isinstance(value, Plain | tuple | list | dict)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, FunctionType):
        # A schedule is a closure: its name alone does not tell a cosine to 0 from a cosine to 0.1.
        made_from = {key: item for key, item in inspect.getclosurevars(value).nonlocals.items() if item is not value}
        return [value.__qualname__, _plain(made_from)]
    return value if isinstance(value, Plain) else getattr(value, "__qualname__", type(value).__name__)
