"""Regression: every sample has one number or several, and a network returns as many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.criterion import Density
from tutelage.data.offers import Offer
from tutelage.data.targets import numbers
from tutelage.data.task import Detail, Meter, Metric, Task
from tutelage.errors import UserError
from tutelage.features.adapting import in_one_type
from tutelage.losses import Reduction, check_shapes, wide


class SquaredError:
    """The squared error of numbers `[batch, value]`, averaged over samples and values."""

    def loss(self, answer: Tensor, targets: Any) -> Tensor:
        """Return the mean squared error.

        Args:
            answer: `[batch, value]`.
            targets: The same shape.

        Raises:
            UserError: If the shapes differ, because they would be broadcast.
        """
        # PyTorch would only warn, and broadcast `[batch]` against `[batch, 1]` to all pairs of samples.
        if answer.shape != targets.shape:
            raise UserError(
                f"The network returns shape {list(answer.shape)}, and the targets have shape {list(targets.shape)}: "
                "both need one column for each number."
            )
        return F.mse_loss(wide(answer), targets.to(wide(answer).dtype))

    def divergence(
        self,
        student: Tensor,
        teacher: Tensor,
        temperature: float = 1.0,
        *,
        t_squared: bool = True,
        reduction: Reduction = "batchmean",
    ) -> Tensor:
        """Return the mean squared difference of two networks' numbers; the temperature has no effect.

        Raises:
            ValueError: If the shapes differ.
        """
        check_shapes(student, teacher)
        return F.mse_loss(*in_one_type(student, teacher.detach()))

    def mean(self, answers: Tensor) -> Tensor:
        """Return the mean of the members' numbers.

        Args:
            answers: `[member, batch, value]`.
        """
        return wide(answers).mean(0)


class Regression(Task):
    """Numbers to predict: squared error, absolute error, explained variance."""

    name = "regression"
    title = "regression"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "mae": Metric(title="mean absolute error", short="MAE", higher_is_better=False, significant=True),
            "mse": Metric(title="mean squared error", short="MSE", higher_is_better=False, significant=True),
            "r2": Metric(title="R²", short="R²", digits=3),
        }
    )
    primary = "mae"
    watched = ("mae", "mse")
    further: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "pearson": Metric(title="Pearson correlation", short="Pearson", digits=3),
            "spearman": Metric(title="Spearman correlation", short="Spearman", digits=3),
        }
    )
    judges = ("mae", "mse", "r2", *further)
    # Neither `classes` nor `labels`: a softmax of numbers means nothing.
    offers: ClassVar[frozenset[Offer]] = frozenset({"targets", "answers", "sample-answers", "images"})
    criterion = SquaredError()
    salt = b"regression"
    outputs = ("value", "values")

    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return numbers, float32 `[sample, value]`."""
        return numbers(values, where=where)

    def count_outputs(self, targets: Tensor) -> int:
        """Return how many numbers a sample has."""
        return targets.shape[1]

    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> RegressionMeter:
        """Return a fresh meter."""
        return RegressionMeter(correlations=[name for name in self.metrics if name in self.further])

    def decided(self, answer: Tensor) -> Tensor:
        """Return the answered numbers as they are."""
        return answer

    def answer_columns(self, answer: Tensor, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the numbers: a single one as `prediction`, several by their names."""
        heads = ["prediction"] if len(names) == 1 else [f"prediction of {name}" for name in names]
        return {head: answer[:, number].numpy() for number, head in enumerate(heads)}

    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Refuse a network that does not return one number for each target."""
        if shape != (samples, outputs):
            raise UserError(
                f"For {samples} samples the {who} returns shape {shape}, but {data} has {outputs} numbers per sample. "
                f"Give the {who} {outputs} outputs, such as a last layer with as many features."
            )


class RegressionMeter(Meter):
    """Mean absolute and squared error, and R² as the mean over the values, by torchmetrics in float64.

    Args:
        correlations: `pearson` and `spearman`, if they are measured; the numbers of all samples are then kept.
    """

    def __init__(self, *, correlations: Sequence[str] = ()) -> None:
        # Imported here, because torchmetrics is slow to import.
        from torchmetrics import MeanAbsoluteError, MeanSquaredError, R2Score

        # Without `sync_on_compute`, because only the first process may be computing: it would wait for the others.
        kinds = {"mae": MeanAbsoluteError, "mse": MeanSquaredError, "r2": R2Score}
        # Not `.double()`, which torchmetrics ignores.
        self._metrics = {name: kind(sync_on_compute=False).set_dtype(torch.float64) for name, kind in kinds.items()}
        self._samples = 0
        self._correlations = tuple(correlations)
        self._seen: list[Tensor] = []

    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Add numbers `[batch, value]` and targets of the same shape."""
        found, wanted = answer.double().cpu(), targets.double().cpu()
        for metric in self._metrics.values():
            metric.update(found, wanted)
        self._samples += len(targets)
        if self._correlations:
            self._seen.append(torch.stack([found, wanted]))

    def merge(self, later: RegressionMeter) -> None:
        """Add what another meter saw."""
        for name, metric in self._metrics.items():
            metric.merge_state(later._metrics[name])
        self._samples += later._samples
        self._seen += later._seen

    def compute(self) -> dict[str, float]:
        """Return the errors; and R² and the correlations, if there are two samples or more."""
        if not self._samples:
            return {}
        # R² divides by the variance of the targets, and a single one has none.
        names = ("mae", "mse") if self._samples == 1 else ("mae", "mse", "r2")
        found = {name: float(self._metrics[name].compute()) for name in names}
        if not self._correlations or self._samples == 1:
            return found
        seen = torch.cat(self._seen, dim=1)
        values = {name: correlation(*seen, ranks=name == "spearman") for name in self._correlations}
        return found | {name: value for name, value in values.items() if value is not None}


def correlation(answer: Tensor, targets: Tensor, *, ranks: bool = False) -> float | None:
    """Return the correlation of numbers with their targets, averaged over the values of a sample.

    Answers that are all the same say nothing of the targets, and count as 0.

    Args:
        answer: float64 `[sample, value]`.
        targets: The same shape.
        ranks: Whether to correlate the ranks (Spearman) instead of the numbers (Pearson); equal numbers share a rank.

    Returns:
        The mean; None if the targets of some value are all the same, because there is nothing to correlate with.
    """
    if ranks:
        # Imported here, because it is slow to import.
        from scipy.stats import rankdata

        answer, targets = (torch.from_numpy(rankdata(values.numpy(), axis=0)) for values in (answer, targets))
    # Not by `isclose`: means of equal numbers may round, so they are compared with one of themselves.
    if bool((targets == targets[:1]).all(0).any()):
        return None
    constant = (answer == answer[:1]).all(0)
    found, wanted = answer - answer.mean(0), targets - targets.mean(0)
    value = (found * wanted).sum(0) / (found.square().sum(0) * wanted.square().sum(0)).sqrt()
    return float(value.masked_fill(constant, 0.0).mean())


REGRESSION = Regression()
