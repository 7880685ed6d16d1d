"""Novel class discovery: some classes have labels, the samples of others do not, and a network answers over both."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from tutelage.data.criterion import CROSS_ENTROPY, Density
from tutelage.data.offers import Offer
from tutelage.data.targets import class_indices
from tutelage.data.task import Detail, Meter, Metric, Task
from tutelage.errors import UserError
from tutelage.evaluation.clustering import agreement, matched, right_of
from tutelage.losses import UNLABELLED


class Discovery(Task):
    """Known classes are learned from labels, and novel ones found among unlabelled samples (label -1).

    The outputs of a network are the known classes, in the order of the data, and then one cluster for each novel class.
    Labels of novel classes are only used to measure, and only in test splits. The epoch is not chosen: no label that
    training may see tells how good the clusters are, so the weights of the last epoch are kept.

    Args:
        known: How many classes are known; 0 before the data are there.
        novel: How many are novel.
        hidden: The names of the novel classes, if the data have them.
        is_measured: Whether test samples of novel classes have labels to measure by. Without them, rows are compared by
            the accuracy on known classes.
    """

    name = "discovery"
    title = "novel class discovery"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "accuracy": Metric(title="accuracy over all classes", short="all acc.", unit="share", digits=2),
            "known_accuracy": Metric(title="accuracy on known classes", short="known", unit="share", digits=2),
            "novel_accuracy": Metric(
                title="clustering accuracy on novel classes", short="novel", unit="share", digits=2
            ),
            "nmi": Metric(title="NMI of novel classes", short="NMI", digits=3),
            "ari": Metric(title="ARI of novel classes", short="ARI", digits=3),
        }
    )
    primary = "accuracy"
    # In an epoch, the accuracy over all classes has no value: training may not see what it is measured by.
    watched = ("accuracy", "known_accuracy")
    judges = ("accuracy", "known_accuracy")
    novel: int = 0
    hidden: tuple[str, ...] = ()
    is_measured: bool = True
    offers: ClassVar[frozenset[Offer]] = frozenset({"targets", "images", "novel"})
    criterion = CROSS_ENTROPY
    salt = b"discovery"

    def __init__(
        self, known: int = 0, novel: int = 0, hidden: tuple[str, ...] = (), *, is_measured: bool = True
    ) -> None:
        self.known, self.novel, self.hidden, self.is_measured = known, novel, hidden, is_measured
        if not is_measured:
            self.primary = "known_accuracy"

    def beside(self, known: int, novel: int, hidden: tuple[str, ...], *, is_measured: bool) -> Discovery:
        """Return the task for data of which some classes are known, and others novel."""
        return Discovery(known, novel, hidden, is_measured=is_measured)

    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return class indices, int64 `[sample]`, -1 where a sample has no label."""
        return class_indices(values, where=where)

    def count_outputs(self, targets: Tensor) -> int:
        """Return the number of classes that have labels: one more than the highest index."""
        return int(targets.max()) + 1

    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> DiscoveryMeter:
        """Return a fresh meter."""
        return DiscoveryMeter(self.known, self.novel, detail=detail)

    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Refuse a network that does not return one score per known class and per novel one."""
        if not self.known:
            raise UserError(
                f"It is not said which classes of {data} are novel: name them or give their number (--novel 5, or "
                "novel=5 in Python)."
            )
        if shape != (samples, outputs):
            raise UserError(
                f"For {samples} samples the {who} returns shape {shape}, but {data} has {self.known} known classes and "
                f"{self.novel} novel ones, {outputs} in all: give the {who} as many outputs, the known classes first."
            )

    def describe(self) -> dict[str, Any]:
        """Return the facts about it that a comparison stores for the report, as plain values."""
        return super().describe() | {"known": self.known, "novel": self.novel, "hidden": list(self.hidden)}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it with what it knows of the data."""
        if not self.known:
            return super().__reduce__()
        return _restored, (self.known, self.novel, self.hidden, self.is_measured)


class DiscoveryMeter(Meter):
    """Counts the samples of each class by what is answered; all metrics follow from these counts.

    - `known_accuracy`: known samples whose highest score among the known classes is that of their class.
    - `novel_accuracy`: novel samples whose highest score among the novel outputs is that of the cluster that is matched
      to their class, by the Hungarian method over the samples that are measured. NMI and ARI are of the same clusters.
    - `accuracy`: all samples by the highest score of all, so nobody says whether a sample is novel. A known class is
      answered by its own output alone; the novel outputs are matched to the novel classes.

    Args:
        known: How many classes are known.
        novel: How many are novel.
        detail: How much to measure. `watched` is the accuracy on known classes alone.
    """

    def __init__(self, known: int, novel: int, *, detail: Detail = "scores") -> None:
        self._known, self._detail = known, detail
        self._right, self._seen = 0, 0
        self._all = torch.zeros(known + novel, known + novel, dtype=torch.int64)
        self._novel = torch.zeros(novel, novel, dtype=torch.int64)

    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Add the scores `[batch, output]` of a batch, and its class indices `[batch]`, -1 where there is no label."""
        labels = targets.cpu()
        has_label = labels != UNLABELLED
        scores, labels = answer.float().cpu()[has_label], labels[has_label]
        known = labels < self._known
        self._right += int((scores[known, : self._known].argmax(1) == labels[known]).sum())
        self._seen += int(known.sum())
        # A network of the known classes alone, such as a snapshot, says nothing of novel ones.
        if self._detail == "watched" or scores.shape[1] <= self._known or not len(labels):
            return
        self._all += _counted(labels, scores.argmax(1), len(self._all))
        clusters = scores[~known, self._known :].argmax(1)
        self._novel += _counted(labels[~known] - self._known, clusters, len(self._novel))

    def merge(self, later: DiscoveryMeter) -> None:
        """Add what another meter saw."""
        self._right, self._seen = self._right + later._right, self._seen + later._seen
        self._all, self._novel = self._all + later._all, self._novel + later._novel

    def compute(self) -> dict[str, float]:
        """Return the metrics of the classes that were seen; all classes together only where both kinds were."""
        found = {"known_accuracy": self._right / self._seen} if self._seen else {}
        counts = self._novel.numpy()
        if self._detail == "watched" or not counts.sum():
            return found
        if self._seen:
            everything = self._all.numpy()
            right = int(everything.diagonal()[: self._known].sum())
            right += right_of(everything[self._known :, self._known :])
            found = {"accuracy": right / int(everything.sum())} | found
        return found | {"novel_accuracy": right_of(counts) / int(counts.sum()), **agreement(counts)}

    def pictures(self) -> dict[str, Any]:
        """Return the samples of each novel class in each cluster, the matched ones on the diagonal."""
        counts = self._novel.numpy()
        return {"clusters": counts[:, matched(counts)].tolist()} if counts.sum() else {}


def _counted(labels: Tensor, answers: Tensor, size: int) -> Tensor:
    return torch.bincount(labels * size + answers, minlength=size * size).view(size, size)


def _restored(known: int, novel: int, hidden: tuple[str, ...], is_measured: bool) -> Discovery:
    return Discovery(known, novel, hidden, is_measured=is_measured)


DISCOVERY = Discovery()
