"""What a method's predictions score once it is trained: every prediction, on validation, test and foreign data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from tutelage.core.method import Method
from tutelage.data.batch import Density
from tutelage.data.dataset import Data
from tutelage.evaluation.metrics import reliability
from tutelage.evaluation.scores import EVALUATION_BATCH, collect, judge, score
from tutelage.evaluation.uncertainty import histograms, uncertainty_of
from tutelage.models.modes import evaluating

Predictions = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What the predictions of a method score.

    Attributes:
        scores: By split and metric, `test_accuracy`; those of other predictions than the deployed one end in `/name`.
        reliability: Of the deployed prediction: confidence, accuracy and count per bin.
        uncertainty: Of the deployed prediction on test and foreign data: a histogram by kind; empty where neither
            foreign data nor a Dirichlet distribution gives it a meaning.
    """

    scores: dict[str, float]
    reliability: dict[str, list[float]] = field(default_factory=dict)
    uncertainty: dict[str, dict[str, list[float]]] = field(default_factory=dict)


def score_method(method: Method, data: Data) -> Scored:
    """Score every prediction of a method on the data's splits, in float32.

    Args:
        method: The method, with the weights to score.
        data: The data; the test split decides what the deployed prediction's pictures show, else the validation split.
    """
    found: dict[str, float] = {}
    pictures: dict[str, list[float]] = {}
    spread: dict[str, dict[str, list[float]]] = {}
    foreign = None if data.foreign is None else _predictions(method, data, "foreign")[0]
    for split in ("validation", "test"):
        if getattr(data, split) is None:
            continue
        logits, targets = _predictions(method, data, split)
        for name, key in _keys(logits).items():
            found |= {metric + key: value for metric, value in score(logits[name], targets).named(split).items()}
        pictures = _reliability(next(iter(logits.values())), targets)
        if split == "test" and (foreign is not None or method.density == "dirichlet"):
            found |= _uncertainties(logits, targets, foreign, method.density)
            spread = _histograms(logits, foreign, method.density)
    return Scored(scores=found, reliability=pictures, uncertainty=spread)


def _predictions(method: Method, data: Data, split: str) -> tuple[Predictions, Tensor]:
    device = next(method.parameters()).device
    loader = data.loader(split, train=False, batch_size=EVALUATION_BATCH, device=device)
    with evaluating(method):
        return collect(method, loader)


def _keys(predictions: Predictions) -> dict[str, str]:
    """Return what a prediction's metrics end in: nothing for the deployed one, its name for the others."""
    return {name: f"/{name}" if position else "" for position, name in enumerate(predictions)}


def _uncertainties(
    logits: Predictions, targets: Tensor, foreign: Predictions | None, density: Density
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, key in _keys(logits).items():
        others = None if foreign is None else foreign[name]
        judged = judge(logits[name], targets, others, density=density).uncertainties()
        found |= {metric + key: value for metric, value in judged.items()}
    return found


def _histograms(
    logits: Predictions, foreign: Predictions | None, density: Density
) -> dict[str, dict[str, list[float]]]:
    deployed = next(iter(logits))
    others = None if foreign is None else uncertainty_of(foreign[deployed], density=density)
    return histograms(uncertainty_of(logits[deployed], density=density), others)


def _reliability(logits: Tensor, targets: Tensor) -> dict[str, list[float]]:
    confidence, right, count = reliability(logits, targets)
    return {"confidence": confidence.tolist(), "accuracy": right.tolist(), "count": count.tolist()}
