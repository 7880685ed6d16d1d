"""What networks score on a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.batch import Density
from tutelage.data.dataset import Data
from tutelage.data.loader import Loader
from tutelage.errors import UserError
from tutelage.evaluation.metrics import accuracy, expected_calibration_error, nll
from tutelage.evaluation.uncertainty import auroc, rejection_ratio, uncertainty_of
from tutelage.losses import log_mean_probability
from tutelage.models.answers import logits_of
from tutelage.models.ensemble import Ensemble
from tutelage.models.modes import evaluating

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


@dataclass(frozen=True, kw_only=True)
class Evaluation(Scores):
    """Scores of one network or an ensemble, and how well it knows what it does not know.

    Attributes:
        uncertainty: Mean over the samples by kind, in nats: `total`, and `data` and `knowledge` of an ensemble or of a
            network that predicts a Dirichlet distribution.
        rejection: Prediction rejection ratio of the total uncertainty; None where no answer or every answer is wrong.
        foreign_auroc: Area under the ROC curve of telling foreign samples, by the kind of uncertainty.
    """

    uncertainty: Mapping[str, float] = field(default_factory=dict)
    rejection: float | None = None
    foreign_auroc: Mapping[str, float] = field(default_factory=dict)

    def uncertainties(self) -> dict[str, float]:
        """Return what it says of uncertainty as a report's metrics: `test_total_uncertainty` and so on."""
        found = {f"test_{kind}_uncertainty": value for kind, value in self.uncertainty.items()}
        found |= {} if self.rejection is None else {"test_prr": self.rejection}
        return found | {f"foreign_auroc_{kind}": value for kind, value in self.foreign_auroc.items()}


def judge(
    logits: Tensor, targets: Tensor, foreign: Tensor | None = None, *, density: Density = "categorical"
) -> Evaluation:
    """Return the scores of a network's or an ensemble's logits, and of their uncertainty.

    Args:
        logits: `[sample, class]`, or `[member, sample, class]` of an ensemble.
        targets: `[sample]`.
        foreign: Logits on samples from elsewhere, of the same form.
        density: What the logits of one network are.
    """
    prediction = log_mean_probability(logits) if logits.ndim == 3 else logits
    own = uncertainty_of(logits, density=density)
    others = {} if foreign is None else uncertainty_of(foreign, density=density).known()
    return Evaluation(
        **asdict(score(prediction, targets)),
        uncertainty={kind: float(values.mean()) for kind, values in own.known().items()},
        rejection=rejection_ratio(own.total, prediction.argmax(1) != targets),
        foreign_auroc={kind: auroc(values, own.known()[kind]) for kind, values in others.items()},
    )


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


def members_on(network: nn.Module, data: Data, split: str, *, device: str) -> tuple[Tensor, Tensor]:
    """Return the logits of an ensemble's members `[member, sample, class]` on a split, and the labels.

    Args:
        network: An `Ensemble`; any other network is the only member.
        data: The data.
        split: As for `predictions_on`, or `foreign`.
        device: Where to compute.

    Raises:
        UserError: If they differ in their classes.
    """
    networks = network.networks if isinstance(network, Ensemble) else [network]
    found = [predictions_on(member, data, split, device=device) for member in networks]
    classes = [logits.shape[1] for logits, _ in found]
    if len(set(classes)) > 1:
        raise UserError(f"The members of an ensemble must agree on the classes; they answer with {classes}.")
    return torch.stack([logits for logits, _ in found]), found[0][1]


def judge_on(
    network: nn.Module, data: Data, split: str, *, device: str, density: Density = "categorical"
) -> Evaluation:
    """Return what a network or an `Ensemble` scores on a split of the data, beside the foreign ones if there are any.

    Args:
        network: The network; it ends on the CPU.
        data: The data.
        split: `train`, `validation` or `test`.
        device: Where to compute.
        density: What the logits of one network are.
    """
    logits, targets = members_on(network, data, split, device=device)
    foreign = None if data.foreign is None else members_on(network, data, "foreign", device=device)[0]
    return judge(logits, targets, foreign, density=density)


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
