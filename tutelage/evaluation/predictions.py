"""Scores of a trained method: every prediction, on every measured split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tutelage.core.method import Method
from tutelage.data.dataset import Data
from tutelage.evaluation.scores import measure, measuring_loader, predictor, taught_by
from tutelage.models.modes import evaluating


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of a method's predictions.

    Attributes:
        scores: Scores by split and metric, such as `test_accuracy`. Names of predictions other than the deployed one
            have `/name` at the end.
        pictures: Data for the report's pictures of the deployed prediction, by the picture's name.
    """

    scores: dict[str, float]
    pictures: dict[str, Any] = field(default_factory=dict)


def score_method(method: Method, data: Data) -> Scored:
    """Score every prediction of a method on the data's splits, in float32.

    Args:
        method: The method, with the weights to score.
        data: The data. The pictures show the last measured split: the test split if there is one.
    """
    scores: dict[str, float] = {}
    pictures: dict[str, Any] = {}
    device = next(method.parameters()).device
    for split in data.measured:
        loaders = {
            name: measuring_loader(data, name, device)
            # Foreign samples are set against the test split alone, so they are measured once.
            for name in ([split, "foreign"] if split == "test" and data.foreign is not None else [split])
        }
        with evaluating(method):
            meters = measure(
                predictor(method, data),
                loaders[split],
                lambda: data.task.meter(density=method.density),
                foreign=loaders.get("foreign"),
                teacher=taught_by(method, data),
            )
        for position, (name, meter) in enumerate(meters.items()):
            # The first prediction is the deployed one, whose scores have the plain names.
            key = f"/{name}" if position else ""
            scores |= {f"{split}_{metric}{key}": value for metric, value in meter.compute().items()}
            scores |= {f"foreign_{metric}{key}": value for metric, value in meter.compute_foreign().items()}
        pictures = next(iter(meters.values())).pictures() if meters else {}
    return Scored(scores=scores, pictures=pictures)
