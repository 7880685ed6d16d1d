"""The classes that a network comes with, independent of the data: their number and their names."""

from __future__ import annotations

from dataclasses import replace

from tutelage.errors import UserError
from tutelage.models import hub
from tutelage.models.saving import metadata_beside
from tutelage.models.spec import NetworkSpec


def with_own_classes(spec: NetworkSpec) -> NetworkSpec:
    """Return the spec of a network that keeps the classifier of its pretrained weights.

    Args:
        spec: Any network; one without such weights stays as it is.

    Raises:
        UserError: If there are no such weights.
    """
    # A number that the user gave stays.
    if not spec.uses_pretrained or spec.kind == "smp" or "num_classes" in spec.options:
        return spec
    count = hub.pretrained_classes(spec.kind, spec.name, spec.options)
    return spec if count is None else replace(spec, options={**spec.options, "num_classes": count})


def own_classes(spec: NetworkSpec) -> tuple[int, tuple[str, ...]]:
    """Return how many classes a network that comes with weights has, and their names; no names if none are known.

    Args:
        spec: The network.

    Raises:
        UserError: If nothing says how many there are.
    """
    names = class_names_of(spec)
    place = spec.weights or (spec.target if spec.kind == "run" else None)
    metadata = None if place is None else metadata_beside(place)
    count = metadata.num_classes if metadata else len(names) or with_own_classes(spec).options.get("num_classes")
    if not isinstance(count, int):
        raise UserError(
            f"Nothing says how many classes {spec} has: name the folder of a run, or pass the network itself in Python."
        )
    return count, names


def class_names_of(spec: NetworkSpec) -> tuple[str, ...]:
    """Return the names of a network's classes, in the order of its logits; empty if they are not known.

    Args:
        spec: The network. A saved run has stored its names; pretrained weights have those of their data.

    Raises:
        UserError: If there are no such weights.
    """
    if spec.uses_pretrained and spec.kind != "smp":
        return hub.pretrained_class_names(spec.kind, spec.name, spec.options)
    # Weights that are named decide, even if the architecture is a saved run's.
    place = spec.target if spec.weights is None and spec.kind == "run" else spec.weights
    metadata = None if place is None else metadata_beside(place)
    return () if metadata is None else tuple(metadata.class_names or ())
