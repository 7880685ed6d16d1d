"""Contrastive representation distillation: the student's embedding finds the teacher's among many others."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tutelage.core.method import Method, Progress, Update
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.data.label_noise import training_labels
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.adapting import adapting, taken_by
from tutelage.features.anatomy import EMBEDDING
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import wide
from tutelage.methods.parts.labels import all_labelled
from tutelage.methods.parts.memory_bank import (
    ContrastRows,
    MemoryBank,
    check_memory,
    memory_note,
    unit,
    without_positions,
)
from tutelage.system.console import Reporter

TIAN = Paper(
    key="tian2020contrastive",
    title="Contrastive Representation Distillation",
    authors="Tian, Yonglong and Krishnan, Dilip and Isola, Phillip",
    venue="International Conference on Learning Representations",
    year=2020,
    arxiv="1910.10699",
)

# From the authors' code. It is added to K/n as a Python float, where it is not lost to rounding.
EPS = 1e-7


@register(
    "crd",
    papers=[TIAN],
    losses=["contrastive_loss"],
    reads={"targets", "sample-labels"},
    reads_if={"alpha": {"answers"}},
    family="relations",
    exceptions={
        "parts-of-a-batch-add-up": "the negatives of a part are drawn anew",
        "training-lowers-the-loss": "it rises while the banks fill with embeddings that are still alike",
    },
)
class CRD(Method):
    r"""Contrastive representation distillation: the student's embedding finds the teacher's among those of others.

    $$ L = H(q, p) + \beta (L_s + L_t) + \alpha T^2 \, \mathrm{KL}(p^t_T \,\|\, p^s_T) $$

    $$ L_s = -\frac{1}{B} \sum_{b=1}^B \Big[ \log \frac{P_{b0}}{P_{b0} + c}
    + \sum_{k=1}^K \log \frac{K/n}{P_{bk} + c} \Big], \quad
    P_{bk} = \frac{1}{Z_s} \exp \frac{v^s_b \cdot m^t_k}{\tau}, \quad c = \frac{K}{n} + 10^{-7} $$

    $v^s_b$ is the student's embedding, brought to `embedding_dim` numbers by a linear layer and to length one. It is
    compared with what the teacher's bank remembers of the same sample ($k = 0$) and of $K$ samples of other classes;
    $L_t$ is the same the other way round. A bank holds one embedding for each of the $n$ training samples. After each
    step those of the batch become $\mu m + (1 - \mu) v$, at length one. $Z$ is $n$ times the mean exponential on the
    first batch, and stays.

    The two banks take $8 n$ `embedding_dim` bytes, 51 MB for CIFAR-100 and 1.3 GB for ImageNet, and as much again for a
    copy as of the best epoch. Both are in the checkpoint, never in the network that ships. `tutelage doctor` counts the
    banks among parameters and buffers, without the copy.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside: its classifier's input is read.
        data: The data; the labels of all training samples say which ones are negatives.
        example: Inputs for one forward pass.
        batch_size: Samples in a batch, which decides the memory of the comparison.
        reporter: Receives a note on the memory that this takes, before it is taken.
        embedding_dim: Length of the compared embeddings.
        negatives: Number $K$ of negatives for each sample.
        temperature: $\tau$ of the comparison, above zero.
        bank_momentum: $\mu$, the share that a bank keeps of what it remembers, from 0 to below 1.
        weight: $\beta$. The weight of the cross-entropy is 1.
        alpha: $\alpha$, weight of a soft term as in `kd`; 1 for the CRD+KD of the paper.
        kd_temperature: $T$ of the soft term.

    Raises:
        UserError: If a number is out of its range, the training samples cannot be told apart (a DataLoader), they are
            of one class, or the banks exceed the machine's memory.

    Paper: Tian, Krishnan, Isola, Contrastive Representation Distillation, ICLR 2020.

    Differences: The loss is that of the authors' code. Negatives are drawn on the device and with replacement, however
        many there are; the authors' code draws them beside the data, and repeats one only where there are too few. The
        scores come from a product with the whole bank wherever that takes less memory than gathering what was drawn.
        Everything but the networks is computed in float32 and log-space, where the authors' exponentials overflow in
        half precision. Several processes keep one bank.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        data: Data,
        example: Tensor,
        batch_size: int = 64,
        reporter: Reporter | None = None,
        *,
        embedding_dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        bank_momentum: float = 0.5,
        weight: float = 0.8,
        alpha: float = 0.0,
        kd_temperature: float = 4.0,
    ) -> None:
        _check(embedding_dim=embedding_dim, negatives=negatives, temperature=temperature, kd_temperature=kd_temperature)
        if not 0 <= bank_momentum < 1:
            raise UserError(f"bank_momentum={bank_momentum} must be from 0 to below 1: at 1 the banks learn nothing.")
        if not (weight >= 0 and alpha >= 0):
            raise UserError(f"weight={weight} and alpha={alpha} must be zero or more.")
        # Without a weight there is no soft term at all, so the teacher may be one without logits.
        super().__init__({"crd": weight} | ({"kd": alpha} if alpha else {}))
        self.student = FeatureExtractor(student, [EMBEDDING], example=example)
        self.teacher = teacher.reading([EMBEDDING], example=example, logits=alpha > 0)
        self.kd_temperature = kd_temperature
        targets = _targets(data)
        # Before the banks are made: a machine that runs out of memory would end the process without a word.
        check_memory(len(targets), embedding_dim)
        if reporter is not None:
            reporter.note(memory_note(len(targets), embedding_dim, batch_size, negatives))
        self.rows = ContrastRows(targets, data.num_classes, negatives)
        self.student_embedding = Embedding(self.student.shapes[EMBEDDING], embedding_dim)
        self.teacher_embedding = Embedding(self.teacher.shapes[EMBEDDING], embedding_dim)
        self.student_bank = MemoryBank(len(targets), embedding_dim, temperature=temperature, momentum=bank_momentum)
        self.teacher_bank = MemoryBank(len(targets), embedding_dim, temperature=temperature, momentum=bank_momentum)
        # Comparisons are computed in float32 or wider, whatever type of numbers the networks have.
        for part in (self.student_embedding, self.teacher_embedding, self.student_bank, self.teacher_bank):
            adapting(part, student, wide=True)

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield the losses as `ce`, `crd` and, if it has a weight, `kd`; then put the batch into the banks."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        ours = self.student_embedding(student.features[EMBEDDING])
        theirs = self.teacher_embedding(teacher.features[EMBEDDING])
        # One draw of negatives serves both directions, as in the authors' code.
        rows = self.rows(batch)
        # L_s: the student's embedding against what the teacher's bank remembers; then L_t, the other way round.
        contrast = contrastive_loss(self.teacher_bank(ours, rows), self.rows.samples)
        contrast = contrast + contrastive_loss(self.student_bank(theirs, rows), self.rows.samples)
        losses = {"ce": batch.loss(student.logits), "crd": contrast}
        if "kd" in self.weights:
            losses["kd"] = batch.criterion.divergence(student.logits, teacher.logits, self.kd_temperature)
        yield Update(losses)
        # Updated after the step, because the backward pass needs the banks unchanged.
        self.student_bank.remember(rows[:, 0], ours)
        self.teacher_bank.remember(rows[:, 0], theirs)


def contrastive_loss(log_probability: Tensor, samples: int) -> Tensor:
    r"""Return $-\log \frac{P_0}{P_0 + c} - \sum_k \log \frac{K/n}{P_k + c}$, the mean over the batch.

    Args:
        log_probability: $\log P$, `[batch, 1 + negative]`, the positive first.
        samples: Number $n$ of samples that negatives are drawn from.
    """
    negatives = log_probability.shape[1] - 1
    # K / n of the equation.
    noise = negatives / samples
    # P / (P + c) is the sigmoid of log P - log c.
    odds = log_probability - math.log(noise + EPS)
    # log(1 - sigmoid) as a softplus, which needs no extra copy. Beyond 40 it is a straight line, even in float64.
    positive, negative = F.logsigmoid(odds[:, 0]), F.softplus(odds[:, 1:], threshold=40).sum(1)
    # A negative's term has K/n where a sigmoid would have c = K/n + EPS; the difference is this constant.
    return negatives * math.log1p(EPS / noise) - (positive - negative).mean()


class Embedding(nn.Module):
    """A linear layer from a classifier's input to embeddings of length one.

    Args:
        shape: Shape of the input, batch first. All other dimensions are flattened to one vector.
        dim: Length of the embeddings' vectors.
    """

    def __init__(self, shape: torch.Size, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(shape[1:].numel(), dim)

    def forward(self, features: Tensor) -> Tensor:
        """Return embeddings `[batch, dim]` in float32."""
        # Autocast would compute the layer in half precision.
        with torch.autocast(device_type=features.device.type, enabled=False):
            return unit(self.linear(taken_by(self, wide(features).flatten(1))))


def _targets(data: Data) -> Tensor:
    if isinstance(data.train, DataLoader):
        raise without_positions()
    return all_labelled(training_labels(data), "crd")


def _check(**above_zero: float) -> None:
    for name, value in above_zero.items():
        if not value > 0:
            raise UserError(f"{name}={value} must be above zero.")
