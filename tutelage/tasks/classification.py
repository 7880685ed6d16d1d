"""Classification: every sample has one class, and a network returns a score for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.criterion import CROSS_ENTROPY, Density
from tutelage.data.offers import EVERYTHING
from tutelage.data.targets import class_indices, labelled
from tutelage.data.task import Detail, Meter, Metric, Task
from tutelage.errors import UserError
from tutelage.evaluation.class_scores import OF_CLASSES, counts_of, score_of
from tutelage.evaluation.metrics import calibration_error, reliability_of, sums_by_class
from tutelage.evaluation.uncertainty import auroc, histograms, rejection_ratio, uncertainty_of
from tutelage.losses import UNLABELLED

SIMILARITY_TEMPERATURE = 4.0
_KINDS = ("total", "data", "knowledge")


class Classification(Task):
    """One class per sample: cross-entropy, accuracy, calibration, and the quality of the uncertainty."""

    name = "classification"
    title = "classification"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "accuracy": Metric(title="accuracy", short="acc.", unit="share", digits=2),
            "nll": Metric(title="NLL", short="NLL", unit="nats", higher_is_better=False, digits=3),
            "ece": Metric(title="ECE", short="ECE", unit="share", higher_is_better=False, digits=2),
            **{
                f"{kind}_uncertainty": Metric(title=f"{kind} uncertainty", unit="nats", higher_is_better=False)
                for kind in _KINDS
            },
            "prr": Metric(title="prediction rejection ratio", unit="share", digits=1),
            **{
                f"auroc_{kind}": Metric(title=f"AUROC by {kind} uncertainty", unit="share", digits=1) for kind in _KINDS
            },
        }
    )
    primary = "accuracy"
    watched = ("accuracy", "nll")
    further: ClassVar[Mapping[str, Metric]] = OF_CLASSES
    judges = ("accuracy", "nll", *OF_CLASSES)
    offers = EVERYTHING
    criterion = CROSS_ENTROPY
    # Runs of before there were tasks are known without.
    salt = b""

    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return class indices, int64 `[sample]`, -1 where a sample has no label."""
        return class_indices(values, where=where)

    def count_outputs(self, targets: Tensor) -> int:
        """Return the number of classes: one more than the highest index."""
        return int(targets.max()) + 1

    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> ClassificationMeter:
        """Return a fresh meter."""
        return ClassificationMeter(density=density, detail=detail, further=[n for n in self.metrics if n in OF_CLASSES])

    def check_metric(self, name: str, outputs: int) -> None:
        """Refuse the F1 of one class where there are more than two."""
        if name == "f1" and outputs != 2:
            raise UserError(
                f"f1 is that of the second of two classes, and there are {outputs}: choose macro-f1, the mean over all "
                "classes."
            )

    def answer_columns(self, answer: Tensor, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the likeliest class by name, and the probability of each class."""
        probabilities = answer.double().softmax(1).float()
        likeliest = np.asarray(names, dtype=object)[answer.argmax(1).numpy()]
        return {"prediction": likeliest} | {f"p_{name}": probabilities[:, n].numpy() for n, name in enumerate(names)}

    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Refuse a network that does not return one score per class."""
        if outputs == 0:
            raise UserError(
                f"{data} has no labels, so its classes cannot be counted. To learn from a teacher alone, choose the "
                "task unlabelled (--task unlabelled, or task='unlabelled')."
            )
        if shape != (samples, outputs):
            raise UserError(
                f"For {samples} samples the {who} returns shape {shape}, but {data} has {outputs} classes. Give the "
                f"{who} a classifier of {outputs} classes, in the order of the data's labels."
            )


@dataclass
class _Seen:
    """A few numbers for each sample that was seen, batch by batch."""

    right: list[Tensor] = field(default_factory=list)
    likelihood: list[Tensor] = field(default_factory=list)
    confidence: list[Tensor] = field(default_factory=list)
    uncertainty: dict[str, list[Tensor]] = field(default_factory=dict)
    # The class of each sample, and the one that was answered, `[2, sample]`; and how many classes there are.
    classes: list[Tensor] = field(default_factory=list)
    count: int = 0

    def note_uncertainty(self, kinds: Mapping[str, Tensor]) -> None:
        """Add the uncertainty of a batch, by kind."""
        for kind, values in kinds.items():
            self.uncertainty.setdefault(kind, []).append(values.cpu())

    def extend(self, later: _Seen) -> None:
        """Take in what was seen elsewhere, after what was seen here."""
        self.right += later.right
        self.likelihood += later.likelihood
        self.confidence += later.confidence
        self.classes += later.classes
        self.count = max(self.count, later.count)
        for kind, values in later.uncertainty.items():
            self.uncertainty.setdefault(kind, []).extend(values)


class ClassificationMeter(Meter):
    """Measures classification in float64. It keeps a few numbers of each sample, never the logits.

    Not torchmetrics: it sums in float32, does not support Dirichlet distributions, and reported results must stay the
    same.

    Args:
        density: How one network's logits are read, see `Density`.
        detail: How much to measure. `scores` adds calibration, `teacher` how similar the classes are, and `full`
            reports the uncertainty even if there is nothing to compare it with.
        further: Names of metrics in `OF_CLASSES` to measure as well.
    """

    def __init__(
        self, *, density: Density = "categorical", detail: Detail = "scores", further: Sequence[str] = ()
    ) -> None:
        self._density, self._detail, self._further = density, detail, tuple(further)
        self._own, self._foreign = _Seen(), _Seen()
        self._similarity: tuple[Tensor, Tensor] | None = None

    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Add the logits `[batch, class]` of a batch, its class indices `[batch]`, and an ensemble's logits."""
        known = labelled(targets)
        # On the CPU, because not every device has float64.
        raw, labels = answer.float().cpu()[known], targets.cpu()[known]
        if not len(labels):
            return
        _check(raw, labels)
        logits = raw.double()
        predicted = raw.argmax(dim=1)
        self._own.right.append(predicted == labels)
        if self._further:
            self._own.classes.append(torch.stack([labels, predicted]))
            self._own.count = raw.shape[1]
        self._own.likelihood.append(logits.log_softmax(1).gather(1, labels[:, None])[:, 0])
        if self._detail == "watched":
            return
        self._own.confidence.append(logits.softmax(dim=1).amax(dim=1))
        # Where an ensemble answers, its uncertainty is how far its members differ, which their mean no longer shows.
        inner = raw if members is None else members.float().cpu()[:, known]
        self._own.note_uncertainty(uncertainty_of(inner, density=self._density).known())
        if self._detail == "teacher":
            self._note_similarity(sums_by_class(raw, labels, temperature=SIMILARITY_TEMPERATURE))

    def update_foreign(self, answer: Tensor, members: Tensor | None = None) -> None:
        """Add the logits of a batch of samples of another dataset."""
        raw = answer if members is None else members
        self._foreign.note_uncertainty(uncertainty_of(raw.float().cpu(), density=self._density).known())

    def merge(self, later: ClassificationMeter) -> None:
        """Add what another meter saw. In the order of the samples, the result is that of one meter to the bit."""
        self._own.extend(later._own)
        self._foreign.extend(later._foreign)
        if later._similarity is not None:
            self._note_similarity(later._similarity)

    def _note_similarity(self, sums: tuple[Tensor, Tensor]) -> None:
        """Add sums of answers by class, and the number of samples of each class."""
        before = self._similarity
        self._similarity = sums if before is None else (before[0] + sums[0], before[1] + sums[1])

    def compute(self) -> dict[str, float]:
        """Return accuracy, NLL and ECE, the mean uncertainty by kind, and how well the total one finds errors."""
        if not self._own.right:
            return {}
        right, likelihood = torch.cat(self._own.right), torch.cat(self._own.likelihood)[:, None]
        found = {
            "accuracy": float(right.double().mean()),
            # Summed as torch sums the loss of all samples at once.
            "nll": float(F.nll_loss(likelihood, torch.zeros(len(likelihood), dtype=torch.int64))),
        }
        if self._further:
            counts = counts_of(*torch.cat(self._own.classes, dim=1), classes=self._own.count)
            found |= {name: score_of(name, counts) for name in self._further}
        if self._detail == "watched":
            return found
        return found | {"ece": calibration_error(torch.cat(self._own.confidence), right)} | self._uncertainties(right)

    def _uncertainties(self, right: Tensor) -> dict[str, float]:
        """Return the mean uncertainty by kind and how well the total finds errors, if there is something to compare."""
        kinds = _joined(self._own.uncertainty)
        if not (self._foreign.uncertainty or len(kinds) > 1 or self._detail == "full"):
            return {}
        rejection = rejection_ratio(kinds["total"], ~right)
        found = {f"{kind}_uncertainty": float(values.mean()) for kind, values in kinds.items()}
        # Without an error, or without a right answer, there is no ratio.
        return found if rejection is None else found | {"prr": rejection}

    def compute_foreign(self) -> dict[str, float]:
        """Return how well each kind of uncertainty detects foreign samples."""
        own, foreign = _joined(self._own.uncertainty), _joined(self._foreign.uncertainty)
        return {f"auroc_{kind}": auroc(values, own[kind]) for kind, values in foreign.items()}

    def pictures(self) -> dict[str, Any]:
        """Return reliability, histograms of uncertainty if there is something to compare, and class similarity."""
        if not self._own.right:
            return {}
        confidence, right, count = reliability_of(torch.cat(self._own.confidence), torch.cat(self._own.right))
        found: dict[str, Any] = {
            "reliability": {"confidence": confidence.tolist(), "accuracy": right.tolist(), "count": count.tolist()}
        }
        kinds, foreign = _joined(self._own.uncertainty), _joined(self._foreign.uncertainty)
        if foreign or len(kinds) > 1:
            found["uncertainty"] = histograms(kinds, foreign)
        if self._similarity is not None:
            sums, counts = self._similarity
            # A class without samples gets a row of zeros.
            found["class_similarity"] = (sums / counts.clamp(min=1)[:, None]).tolist()
        return found


def _joined(kinds: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {kind: torch.cat(values) for kind, values in kinds.items()}


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise UserError(
            f"Logits {list(logits.shape)} and labels {list(labels.shape)} do not match: give [sample, class] and "
            "[sample]."
        )
    if int(labels.min()) < UNLABELLED or int(labels.max()) >= logits.shape[1]:
        raise UserError(
            f"Labels go from {int(labels.min())} to {int(labels.max())}, but the logits have {logits.shape[1]} "
            "classes: number the classes from 0."
        )


CLASSIFICATION = Classification()
