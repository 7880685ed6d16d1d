"""What networks score on a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.anatomy import logits_of
from tutelage.data.dataset import Data
from tutelage.data.loader import Loader
from tutelage.data.metrics import accuracy, expected_calibration_error, nll
from tutelage.modes import evaluating

EVALUATION_BATCH = 256

Predict = Callable[[Any], Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of predictions on labelled samples, each a fraction or in nats.

    Attributes:
        accuracy: Share of samples whose label has the largest logit.
        nll: Mean negative log-likelihood, in nats.
        ece: Expected calibration error over 15 bins.
    """

    accuracy: float
    nll: float
    ece: float

    def named(self, prefix: str) -> dict[str, float]:
        """Return the scores as `{prefix}_accuracy` and so on."""
        return {f"{prefix}_{name}": value for name, value in asdict(self).items()}


def score(logits: Tensor, targets: Tensor) -> Scores:
    """Return the scores of logits `[sample, class]` against labels `[sample]`."""
    return Scores(
        accuracy=accuracy(logits, targets), nll=nll(logits, targets), ece=expected_calibration_error(logits, targets)
    )


@torch.no_grad()
def collect(
    predict: Predict, loader: Loader, *, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the logits of every prediction over one pass of a loader, and the labels, on the CPU in float32.

    Args:
        predict: From inputs to named logits.
        loader: The data, in a fixed order.
        autocast: Makes the context in which to predict.

    Raises:
        UserError: If the data carry no labels.
    """
    logits: dict[str, list[Tensor]] = {}
    targets: list[Tensor] = []
    for batch in loader.epoch(0):
        targets.append(batch.labels.cpu())
        with autocast():
            predictions = predict(batch.inputs)
        for name, prediction in predictions.items():
            logits.setdefault(name, []).append(prediction.float().cpu())
    return {name: torch.cat(parts) for name, parts in logits.items()}, torch.cat(targets)


def predictions_of(network: nn.Module, loader: Loader) -> tuple[Tensor, Tensor]:
    """Return a network's logits `[sample, class]` over a loader in float32, and the labels."""
    with evaluating(network):
        logits, targets = collect(lambda inputs: {"network": logits_of(network(inputs))}, loader)
    return logits["network"], targets


def predictions_on(network: nn.Module, data: Data, split: str, *, device: str) -> tuple[Tensor, Tensor]:
    """Return a network's logits on a split of the data, and the labels; the network ends on the CPU.

    Args:
        network: The network.
        data: The data.
        split: `train`, `validation` or `test`.
        device: Where to compute.
    """
    network.to(device)
    try:
        return predictions_of(network, data.loader(split, train=False, batch_size=EVALUATION_BATCH, device=device))
    finally:
        network.to("cpu")


def validation_metrics(
    method: nn.Module, loader: Loader, *, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> dict[str, float]:
    """Return what an epoch's history says of the validation data: the deployed prediction, and the others' accuracy.

    Args:
        method: From inputs to named logits, the deployed ones first.
        loader: The validation data.
        autocast: Makes the context in which to predict.
    """
    with evaluating(method):
        logits, targets = collect(method, loader, autocast=autocast)
    scores = {name: score(prediction, targets) for name, prediction in logits.items()}
    deployed, *others = scores
    return {
        "validation_accuracy": scores[deployed].accuracy,
        "validation_nll": scores[deployed].nll,
        **{f"validation_accuracy/{name}": scores[name].accuracy for name in others},
    }
