"""SemCKD: each layer of the student chooses, sample by sample, which of the teacher's layers it learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, Compared, LayerPair, Seen, pair, reading
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.adapting import adapting, taken_by
from tutelage.features.anatomy import Tap, stages
from tutelage.features.maps import pool_to_smaller
from tutelage.features.padding import mean_over_places, through, without_padding
from tutelage.features.products import gram, unit_rows
from tutelage.losses import wide

SEMCKD = Paper(
    key="chen2021cross",
    title="Cross-Layer Distillation with Semantic Calibration",
    authors="Chen, Defang and Mei, Jian-Ping and Zhang, Yuan and Wang, Can and Wang, Zhe and Feng, Yan and Chen, Chun",
    venue="AAAI Conference on Artificial Intelligence",
    year=2021,
)

CalibrationReduction = Literal["code", "paper"]
# Smaller batches give queries of one number, which are always +1 or -1 and so cannot learn.
_SMALLEST_BATCH = 8


@register(
    "semckd",
    papers=[SEMCKD],
    losses=["calibrated_loss"],
    reads=(),
    uses={"targets"},
    reads_if={"alpha": {"answers"}},
    family="features",
    exceptions={"parts-of-a-batch-add-up": "a sample's attention depends on the others"},
)
class SemCKD(Method):
    r"""SemCKD: every layer of the student matches a mixture of all of the teacher's layers, weighted by attention.

    $$ L = H(q, p) + \alpha T^2 \, \mathrm{KL}(p^t_T \,\|\, p^s_T)
    + \frac{\beta}{B S} \sum_{b,i,j} a_{bij} \, \frac{\|R_{ij}(F^s_i)_b - (F^t_j)_b\|^2}{c_j h w}, \qquad
    a_{bij} = \mathrm{softmax}_j \left( q_{bi}^\top k_{bj} \right) $$

    An MLP makes the query $q_{bi}$, of length one, from row $b$ of the Gram matrix of the student's layer $i$. Another
    makes the key $k_{bj}$ from that of the teacher's layer $j$. Energies are cosines, so the attention can never be
    one-hot: of three layers, each weighs between 0.063 and 0.787. $R_{ij}$ brings a map of the student to the teacher's
    width. All regressors together may outweigh the student several times (10.2 million parameters for resnet32x4 to
    resnet8x4); they are thrown away.

    Without labels the first term is left out. With `alpha=0` only layers of the teacher are read, so that it may be one
    without a classifier.

    Args:
        student: The network to train.
        teacher: The network that teaches.
        example: Inputs for one forward pass, from which layers and shapes are known.
        batch_size: Samples in a batch, which is the width of the MLPs.
        layers: `auto` is every stage of the student with every stage of the teacher. By name, as
            `student_layer:teacher_layer+...`, every named layer of the one is compared with every one of the other.
        beta: $\beta$, weight of the matching.
        alpha: $\alpha$, weight of the soft term.
        temperature: $T$ of the soft term.
        reduction: `code` takes the mean over the student's $S$ layers, as the authors' code does, to which their
            $\beta$ belongs; `paper` takes the sum.

    Raises:
        UserError: If the temperature is not above zero, the batch is too small to attend by, the teacher gives only
            logits, or a layer does not exist.

    Paper: Chen et al., Cross-Layer Distillation with Semantic Calibration, AAAI 2021.

    Differences: A batch smaller than `batch_size` (the last of an epoch, or the share of one of several processes) is
        taken as one whose other samples are orthogonal to all: zeros fill the rows of its Gram matrix. The authors'
        code leaves such a batch out. Heights and widths are pooled to the smaller one separately. The paper sums
        everything over the batch; here everything is its mean, so `paper` differs from `code` by the factor $S$ alone.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        batch_size: int,
        *,
        layers: str = AUTO,
        beta: float = 400.0,
        alpha: float = 1.0,
        temperature: float = 4.0,
        reduction: CalibrationReduction = "code",
    ) -> None:
        if not temperature > 0:
            raise UserError(f"temperature={temperature} must be above zero.")
        super().__init__({"kd": alpha, "semckd": beta})
        seen = Seen.of(student, teacher, example)
        ours, theirs = compared(student, teacher, layers, seen)
        pairs = [LayerPair(one, other) for one in ours for other in theirs]
        # Without a soft term no logits are asked for, so the teacher may lack a classifier.
        self.student, self.teacher, self.pairs = reading(student, teacher, pairs, seen, logits=alpha != 0)
        self.calibration = SemanticCalibration(ours, theirs, batch_size, reduction=reduction)
        # Queries and keys read Gram matrices, which are widened; regressors read the maps as they are.
        adapting(self.calibration.queries, student, wide=True)
        adapting(self.calibration.keys, student, wide=True)
        adapting(self.calibration.regressors, student)
        self.ours, self.theirs, self.temperature = tuple(ours), tuple(theirs), temperature

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, the soft term as `kd` and the matching as `semckd`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        # The attention reads whole maps, each for itself; distances are taken where both maps have places.
        ours = [without_padding(tap.map(student), tap.mask(student)) for tap in self.ours]
        theirs = [without_padding(tap.map(teacher), tap.mask(teacher)) for tap in self.theirs]
        found = [pair.compared(student, teacher) for pair in self.pairs]
        losses = batch.supervised(student.logits)
        if self.weights["kd"]:
            losses["kd"] = batch.criterion.divergence(student.logits, teacher.logits, self.temperature)
        return losses | {"semckd": self.calibration(ours, theirs, found)}


class SemanticCalibration(nn.Module):
    """The parts that are trained with the student: the MLPs for queries and keys, and the regressors.

    Args:
        student: The student's layers.
        teacher: The teacher's layers.
        batch_size: Samples in the largest batch.
        reduction: `code` takes the mean over the student's layers; `paper` takes the sum.

    Raises:
        UserError: If the batch is too small.
    """

    def __init__(
        self,
        student: Sequence[Tap],
        teacher: Sequence[Tap],
        batch_size: int,
        *,
        reduction: CalibrationReduction = "code",
    ) -> None:
        super().__init__()
        if batch_size < _SMALLEST_BATCH:
            raise UserError(
                f"batch_size={batch_size} is too small for SemCKD, whose attention reads how the samples of a batch "
                f"resemble each other: take {_SMALLEST_BATCH} or more."
            )
        self.batch_size, self.reduction = batch_size, reduction
        self.queries = nn.ModuleList(similarity_mlp(batch_size) for _ in student)
        self.keys = nn.ModuleList(similarity_mlp(batch_size) for _ in teacher)
        self.regressors = nn.ModuleList(
            nn.ModuleList(regressor(one.channels, other.channels) for other in teacher) for one in student
        )

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], pairs: Sequence[Compared] | None = None
    ) -> Tensor:
        """Return the loss of the maps of all layers, each `[batch, channel, height, width]`.

        Args:
            student: Maps of the student's layers, with zeros for padding. The attention is computed from them.
            teacher: Maps of the teacher's layers, with zeros for padding.
            pairs: Each map of the student with each map of the teacher, and the places where they are compared. By
                default they have no padding.
        """
        # Row by row: all of the teacher's layers for each layer of the student.
        found = pairs or [Compared(ours, theirs, None) for ours in student for theirs in teacher]
        distances = [
            [self._distance(row, number, found[row * len(teacher) + number]) for number in range(len(teacher))]
            for row in range(len(student))
        ]
        # d of the equation: `[batch, student layer, teacher layer]`.
        stacked = torch.stack([torch.stack(row, 1) for row in distances], 1)
        return calibrated_loss(self.attention(student, teacher), stacked, reduction=self.reduction)

    def attention(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return how much each layer of the student learns from each of the teacher's, by sample.

        Args:
            student: Maps of the student's layers, each `[batch, channel, height, width]`.
            teacher: Maps of the teacher's layers.

        Returns:
            `[batch, student layer, teacher layer]`, whose last dimension sums to one.
        """
        with torch.autocast(student[0].device.type, enabled=False):
            queries = self._embedded(self.queries, student)
            keys = self._embedded(self.keys, teacher)
            # Over the teacher's layers, so that each layer of the student divides its attention among them.
            return torch.einsum("bsd,btd->bst", queries, keys).softmax(2)

    def _embedded(self, mlps: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
        rows = [unit_rows(mlp(taken_by(mlp, self._padded(gram(each))))) for mlp, each in zip(mlps, maps)]
        return torch.stack(rows, 1)

    def _padded(self, similarities: Tensor) -> Tensor:
        missing = self.batch_size - len(similarities)
        if missing < 0:
            raise UserError(
                f"SemCKD was built for batches of {self.batch_size} and got {len(similarities)} samples: use "
                f"batch_size={len(similarities)}, or batches of at most {self.batch_size}."
            )
        # The missing samples count as orthogonal to all others.
        return F.pad(similarities, (0, missing))

    def _distance(self, row: int, number: int, pair: Compared) -> Tensor:
        # Before the regressor, as in the authors' code: its convolution of 3 x 3 then works at the compared size.
        ours, theirs = pool_to_smaller(pair.student, pair.teacher)
        regressors = self.regressors[row]
        assert isinstance(regressors, nn.ModuleList)
        squares = (wide(through(regressors[number], ours, pair.mask)) - wide(theirs)).square()
        return squares.mean((1, 2, 3)) if pair.mask is None else mean_over_places(squares, pair.mask).mean(1)


def calibrated_loss(attention: Tensor, distances: Tensor, *, reduction: CalibrationReduction = "code") -> Tensor:
    r"""Return $\frac{1}{B S} \sum_{b,i,j} a_{bij} d_{bij}$.

    Args:
        attention: $a$, `[batch, student layer, teacher layer]`.
        distances: $d$, the mean squared distances, `[batch, student layer, teacher layer]`.
        reduction: `code` is the equation; `paper` does not divide by the number of student layers $S$.
    """
    weighted = (wide(attention) * wide(distances)).sum(2)
    return weighted.mean() if reduction == "code" else weighted.sum(1).mean()


def similarity_mlp(batch_size: int) -> nn.Sequential:
    """Return the MLP that makes a query or a key from each row of a Gram matrix `[batch, batch]`."""
    # The widths of the authors' code: a half and a quarter of the batch.
    hidden = batch_size // 2
    return nn.Sequential(nn.Linear(batch_size, hidden), nn.ReLU(), nn.Linear(hidden, batch_size // 4))


def regressor(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """Return the network that brings a map of the student to the teacher's channels."""
    hidden = 2 * teacher_channels
    return nn.Sequential(
        nn.Conv2d(student_channels, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, teacher_channels, 1, bias=False),
    )


def compared(student: nn.Module, teacher: Teacher, layers: str, seen: Seen) -> tuple[Sequence[Tap], Sequence[Tap]]:
    """Return the layers of the student, and those of the teacher that each of them is compared with.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside, or one whose layers were recorded.
        layers: `auto` is every stage of both; otherwise pairs by name, `student_layer:teacher_layer`, joined by `+`.
        seen: The traces of both on an example.

    Raises:
        UserError: If the teacher has no network to read, or a layer does not exist.
    """
    if layers == AUTO:
        return stages(student, seen.student), teacher.stages(seen.teacher)
    named = pair(student, teacher, layers, seen)
    named.student.release()
    named.teacher.release()
    # A layer that is named in several pairs is compared once.
    ours, theirs = (dict.fromkeys(taps) for taps in zip(*((p.student, p.teacher) for p in named.pairs)))
    return list(ours), list(theirs)
