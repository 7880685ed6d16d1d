"""QuEST: k-means learns a codebook of words, and the student predicts the words near the teacher's features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, Paired, pair
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.maps import pool_to_smaller
from tutelage.features.padding import places
from tutelage.features.products import unit_rows
from tutelage.losses import check_temperature, divergences, wide
from tutelage.methods.parts.codebook import Clustering, compared_size, first_vectors, learn_words
from tutelage.system import digests
from tutelage.training.run import Run

QUEST = Paper(
    key="jain2020quest",
    title="QuEST: Quantized Embedding Space for Transferring Knowledge",
    authors="Jain, Himalaya and Gidaris, Spyros and Komodakis, Nikos and P{\\'e}rez, Patrick and Cord, Matthieu",
    venue="European Conference on Computer Vision",
    year=2020,
    arxiv="1912.01540",
)

PlaceReduction = Literal["code", "paper"]
# A shorter feature in half precision is only rounding errors, and the gradient of its direction overflows.
_FAINT = torch.finfo(torch.float16).tiny


@register("quest", papers=[QUEST], losses=["word_logits", "quest_loss"], reads=(), uses={"targets"}, family="features")
def quest(
    run: Run,
    student: nn.Module,
    teacher: Teacher,
    data: Data,
    example: Any,
    *,
    clusters: int = 4096,
    iterations: int = 20,
    max_vectors: int | None = None,
    temperature: float = 0.2,
    cosine_scale: float = 3.0,
    weight: float = 1.0,
    layers: str = AUTO,
    reduction: PlaceReduction = "code",
) -> nn.Module:
    r"""QuEST: the student predicts the teacher's visual words, place by place.

    $$ L = H(q, p) + \lambda \, \mathrm{KL}(p^t \,\|\, p^s), \qquad
    p^t = \mathrm{softmax}_k \left( -\|f^t - v_k\|^2 / \tau \right), \qquad
    p^s = \mathrm{softmax}_k \left( \gamma \cos(W_k, f^s) \right) $$

    First, k-means over the teacher's features $f^t$ at all places of all training images, without augmentation, finds
    the words $v_k$, once in a run. They stay as they are; $W$ and $\gamma$ are trained with the student and thrown
    away. Where two maps differ in size, the larger is pooled to the smaller, before the words are learned.
    Without labels the first term is left out: the student learns features, and its classifier stays as it is.

    Args:
        run: The run whose stages these are.
        student: The network to train.
        teacher: The network that teaches.
        data: The data.
        example: Inputs for one forward pass, from which layers and shapes are known.
        clusters: Number of words; no more than there are vectors.
        iterations: Iterations of k-means.
        max_vectors: How many of the teacher's vectors to learn the words from, drawn at random; all by default, which
            takes 4 bytes of memory for each number in them.
        temperature: $\tau$. The authors' code calls $1/\tau$ so.
        cosine_scale: $\gamma$ before training.
        weight: $\lambda$.
        layers: `auto` is the end of the last stage; or pairs by name, `student_layer:teacher_layer`, joined by `+`.
            Each pair has its own words.
        reduction: `code` takes the mean over the places, as the authors' code does; `paper` takes the sum.

    Raises:
        UserError: If a number is out of its range, the teacher gives only logits, or a layer does not exist.

    Paper: Jain et al., QuEST: Quantized Embedding Space for Transferring Knowledge, ECCV 2020.

    Differences: The paper sums over places. The authors have one $\tau$ for each layer; here all pairs share one. A
        word to which no vector is nearest in the end is left out. The map that is read is the end of the last stage,
        where the authors choose by network. A feature of the student shorter than 6e-5 has no direction: all words are
        equally likely there, without a gradient. k-means runs on two threads, which keeps it repeatable.
    """
    if not temperature > 0:
        raise UserError(f"temperature={temperature} must be above zero.")
    clustering = Clustering(clusters=clusters, iterations=iterations, max_vectors=max_vectors)
    network = teacher.inner_network()
    paired = pair(student, teacher, layers, example, take="last", logits=False)
    # Learned once in a run, and anew if anything changes that the words depend on.
    codebooks = run.stage(
        "codebook",
        lambda: [learn_words(run, paired.teacher, each, data, clustering) for each in paired.pairs],
        rehearse=lambda: [first_vectors(run, paired.teacher, each, data, clustering) for each in paired.pairs],
        # Buffers too: those that are not persistent are in no state dict, and change the features.
        weights=digests.of_tensors(network.state_dict() | dict(network.named_buffers())),
        data=data.fingerprint,
        # The words belong to pooled maps, so the size is part of what they are.
        layers=[f"{each.teacher.layer} at {compared_size(each)}" for each in paired.pairs],
        **asdict(clustering),
    )
    method = Quest(
        paired, codebooks, temperature=temperature, cosine_scale=cosine_scale, weight=weight, reduction=reduction
    )
    return run.fit("distill", method, data)


class Quest(Method):
    """The second stage of QuEST, in which the words are known.

    Args:
        paired: Student and teacher, which read the compared layers.
        codebooks: Words for each pair, `[word, channel of the teacher]`.
        temperature: Divides the teacher's squared distances to the words.
        cosine_scale: Factor on the student's cosines before training.
        weight: Weight of the divergence.
        reduction: `code` takes the mean over the places, `paper` the sum.
    """

    def __init__(
        self,
        paired: Paired,
        codebooks: Sequence[Tensor],
        *,
        temperature: float = 0.2,
        cosine_scale: float = 3.0,
        weight: float = 1.0,
        reduction: PlaceReduction = "code",
    ) -> None:
        super().__init__({"quest": weight})
        self.student, self.teacher, self.pairs = paired
        self.temperature, self.reduction = temperature, reduction
        self.predictors = nn.ModuleList(
            WordPredictor(each.student.channels, codebook, cosine_scale=cosine_scale)
            for each, codebook in zip(self.pairs, codebooks, strict=True)
        )
        # Words are predicted from widened features.
        adapting(self.predictors, self.student, wide=True)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, and the divergence of the predicted words, over all pairs, as `quest`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        terms = []
        for predictor, each in zip(self.predictors, self.pairs):
            ours, theirs, mask = each.compared(student, teacher)
            # With the same pooling as for the vectors that the words were learned from.
            ours, theirs = pool_to_smaller(ours, theirs)
            assert isinstance(predictor, WordPredictor)
            target = word_logits(theirs, predictor.codebook, self.temperature)
            terms.append(quest_loss(predictor(ours), target, reduction=self.reduction, mask=mask))
        return {**batch.supervised(student.logits), "quest": torch.stack(terms).sum()}


class WordPredictor(nn.Module):
    r"""The student's prediction for each place: $\gamma \cos(W_k, f)$ for each word, with learned $\gamma$ and $W$.

    Args:
        channels: Channels of the student's map.
        codebook: The words, `[word, channel of the teacher]`; kept beside the prediction, and never trained.
        cosine_scale: $\gamma$ before training.
    """

    codebook: Tensor

    def __init__(self, channels: int, codebook: Tensor, *, cosine_scale: float = 3.0) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook)
        self.weight = nn.Parameter(torch.randn(len(codebook), channels) * math.sqrt(2 / channels))
        self.cosine_scale = nn.Parameter(torch.tensor(cosine_scale))

    def forward(self, maps: Tensor) -> Tensor:
        """Return logits `[batch, height, width, word]` for maps `[batch, channel, height, width]`."""
        with torch.autocast(maps.device.type, enabled=False):
            directions = unit_rows(wide(maps), shortest=_FAINT).movedim(1, 3)
            # Scaling before the product is cheaper: the product has many more numbers.
            return (self.cosine_scale * directions) @ unit_rows(self.weight).T


def word_logits(maps: Tensor, codebook: Tensor, temperature: float = 0.2) -> Tensor:
    r"""Return $-\|f - v_k\|^2 / \tau$ at each place, up to a constant that the softmax cancels.

    Args:
        maps: The teacher's, `[batch, channel, height, width]`.
        codebook: The words, `[word, channel]`.
        temperature: $\tau$.

    Returns:
        `[batch, height, width, word]`, in float32 or wider.
    """
    check_temperature(temperature)
    with torch.autocast(maps.device.type, enabled=False):
        # -|f - v|^2 = 2 f.v - |v|^2 - |f|^2, and the last term is the same for all words. Subtracting the words' mean
        # makes both vectors short, so that rounding loses less.
        middle = wide(codebook).mean(0)
        places = wide(maps.detach()).movedim(1, 3) - middle
        # The codebook has the student's type, and the maps have the teacher's, which may be wider.
        words = (wide(codebook) - middle).to(places.dtype)
        return F.linear(places * (2 / temperature), words, words.square().sum(1) / -temperature)


def quest_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    reduction: PlaceReduction = "code",
    mask: Tensor | None = None,
) -> Tensor:
    r"""Return $\mathrm{KL}(p^t \,\|\, p^s)$ over the words, the mean over the batch.

    Args:
        student_logits: `[batch, height, width, word]`.
        teacher_logits: `[batch, height, width, word]`; no gradient flows into them.
        reduction: `code` takes the mean over the places, `paper` the sum.
        mask: Places that are not padding, `[batch, 1, height, width]`; the mean is taken within each sample first.
    """
    found = divergences(student_logits, teacher_logits, dim=3)
    if mask is not None:
        totals = found.masked_fill(~mask[:, 0], 0).sum((1, 2))
        return (totals / places(mask) if reduction == "code" else totals).mean()
    # The paper sums over the places, which makes the loss that much larger.
    count = student_logits.shape[1] * student_logits.shape[2] if reduction == "code" else 1
    return found.sum() / (len(student_logits) * count)
