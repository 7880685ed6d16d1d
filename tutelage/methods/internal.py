"""Distillation from internal representations: attention and the state of the first token, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, LayerPair, Seen
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.features.attention import ATTENTION
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.padding import places
from tutelage.features.products import unit_rows
from tutelage.losses import wide
from tutelage.methods.kd import KD, check_soft_term
from tutelage.methods.parts.blocks import check_first_token, paired_blocks, places_of, start_as_teacher
from tutelage.methods.parts.trunk import Trunk, thaw
from tutelage.training.run import Run
from tutelage.training.state import Stop

INTERNAL = Paper(
    key="aguilar2020internal",
    title="Knowledge Distillation from Internal Representations",
    authors="Aguilar, Gustavo and Ling, Yuan and Zhang, Yu and Yao, Benjamin and Fan, Xing and Guo, Chenlei",
    venue="AAAI Conference on Artificial Intelligence",
    year=2020,
    arxiv="1910.03723",
)

Stages = Literal["all", "progressive", "stacked"]
Start = Literal["teacher", "own"]


def attention_divergence(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return how far the student's attention is from the teacher's, the mean over heads, then over the batch.

    $$ \frac{1}{L} \sum_{i=1}^{L} \mathrm{KL}(A^t_i \,\|\, A^s_i) $$

    Args:
        student: Logarithms of attention probabilities, `[batch, head, query, key]`.
        teacher: The teacher's, of the same shape; no gradient flows into them.
        mask: Tokens that are not padding, `[batch, 1, 1, token]`; $L$ is then their number in each text.

    Raises:
        ValueError: If the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"Attention of the shapes {tuple(student.shape)} and {tuple(teacher.shape)} differs.")
    student, teacher = wide(student), wide(teacher.detach())
    probabilities = teacher.exp()
    # A key that the teacher never looks at costs nothing, though its logarithm may be infinite in both.
    terms = torch.where(probabilities > 0, probabilities * (teacher - student), 0.0)
    if mask is None:
        return terms.sum(3).mean()
    rows = terms.masked_fill(~mask, 0.0).sum(3).masked_fill(~mask[:, 0], 0.0)
    return (rows.sum(2) / places(mask)[:, None]).mean()


def state_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Return $1 - \cos(h^s, h^t)$, the mean over the batch. A state of zeros has a distance of 1, and no gradient.

    Args:
        student: States, `[batch, number]`.
        teacher: The teacher's, of the same shape; no gradient flows into them.
    """
    return 1 - (unit_rows(student) * unit_rows(teacher.detach())).sum(1).mean()


def first_token(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Return the states of the first token of each text, `[batch, channel]`.

    Args:
        maps: `[batch, channel, 1, token]`.
        mask: Tokens that are not padding, `[batch, 1, 1, token]`; None without padding.
    """
    if mask is None:
        return maps[:, :, 0, 0]
    # The first that is no padding: some tokenizers pad in front.
    first = mask.flatten(1).int().argmax(1)
    return maps[torch.arange(len(maps), device=maps.device), :, 0, first]


def layer_losses(pairs: Sequence[LayerPair], student: Output, teacher: Output) -> dict[str, Tensor]:
    """Return the sums over pairs of blocks of `attention_divergence` and of `state_distance`."""
    attention, cosine = [], []
    for pair in pairs:
        ours, theirs, mask = pair.compared(student, teacher)
        rows = student.features[pair.student.layer + ATTENTION], teacher.features[pair.teacher.layer + ATTENTION]
        attention.append(attention_divergence(*rows, mask))
        cosine.append(state_distance(first_token(ours, mask), first_token(theirs, mask)))
    return {"attention": torch.stack(attention).sum(), "cosine": torch.stack(cosine).sum()}


class InternalLayers(Method):
    r"""A stage of internal distillation: some blocks learn the teacher's attention and states, and nothing else.

    $$ L = \sum_{l} w_A \, \mathrm{KL}_l + w_h \, \mathrm{COS}_l $$

    Args:
        student: The network to train; what lies after the last of the blocks stays frozen.
        teacher: The trained teacher.
        example: Inputs for one forward pass.
        pairs: The blocks that learn, and those that they learn from.
        attention_weight: $w_A$.
        cosine_weight: $w_h$.
    """

    student: Trunk

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        pairs: Sequence[LayerPair],
        attention_weight: float = 1.0,
        cosine_weight: float = 1.0,
    ) -> None:
        super().__init__({"attention": attention_weight, "cosine": cosine_weight})
        seen = Seen.of(student, teacher, example)
        self.pairs = tuple(pairs)
        self.student = Trunk(student, places_of([p.student.layer for p in pairs]), example=seen.student)
        theirs = places_of([p.teacher.layer for p in pairs])
        self.teacher = teacher.reading(theirs, example=seen.teacher, logits=False)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the sums over the blocks as `attention` and `cosine`."""
        return layer_losses(self.pairs, self.student(batch.inputs), self.teacher(batch))


class InternalDistillation(Method):
    r"""Internal distillation of all layers at once: blocks and classifier learn together.

    $$ L = (1 - \alpha) H(q, p) + \alpha T^2 \, \mathrm{KL}(p^t_T \,\|\, p^s_T)
       + \sum_l w_A \, \mathrm{KL}_l + w_h \, \mathrm{COS}_l $$

    Args:
        student: The network to train.
        teacher: The trained teacher.
        example: Inputs for one forward pass.
        pairs: The blocks that learn, and those that they learn from.
        attention_weight: $w_A$.
        cosine_weight: $w_h$.
        temperature: $T$.
        alpha: $\alpha$.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        pairs: Sequence[LayerPair],
        attention_weight: float = 1.0,
        cosine_weight: float = 1.0,
        temperature: float = 1.0,
        alpha: float = 1.0,
    ) -> None:
        super().__init__({"ce": 1 - alpha, "kd": alpha, "attention": attention_weight, "cosine": cosine_weight})
        seen = Seen.of(student, teacher, example)
        self.pairs, self.temperature = tuple(pairs), temperature
        ours, theirs = [p.student.layer for p in pairs], [p.teacher.layer for p in pairs]
        self.student = FeatureExtractor(student, places_of(ours), example=seen.student)
        self.teacher = teacher.reading(places_of(theirs), example=seen.teacher)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the losses of the classifier as `ce` and `kd`, and those of the blocks as `attention` and `cosine`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        soft = batch.criterion.divergence(student.logits, teacher.logits, self.temperature)
        return {**batch.supervised(student.logits), "kd": soft, **layer_losses(self.pairs, student, teacher)}


def active_layers(stages: Stages, layers: int) -> list[tuple[int, ...]]:
    """Return the layers whose losses each stage before the classifier's has, counted from 1.

    Args:
        stages: `progressive` has one layer a stage, `stacked` adds one to those before, `all` has no such stages.
        layers: How many layers learn.
    """
    match stages:
        case "progressive":
            return [(layer,) for layer in range(1, layers + 1)]
        case "stacked":
            return [tuple(range(1, layer + 1)) for layer in range(1, layers + 1)]
        case "all":
            return []


@register(
    "internal",
    papers=[INTERNAL],
    losses=["attention_divergence", "state_distance", "kd_loss"],
    reads={"answers", "sample-answers", "tokens"},
    uses={"targets"},
    family="features",
)
def internal(
    run: Run,
    student: nn.Module,
    teacher: Teacher,
    data: Data,
    example: Any,
    *,
    stages: Stages = "stacked",
    layers: str = AUTO,
    start: Start = "teacher",
    attention_weight: float = 1.0,
    cosine_weight: float = 1.0,
    temperature: float = 1.0,
    alpha: float = 1.0,
    stage_epochs: int = 1,
    stage_loss: float = 0.0,
) -> nn.Module:
    r"""Internal representations: a BERT with fewer layers learns the teacher's attention and states, layer by layer.

    $$ L_l = \frac{1}{L} \sum_{i=1}^{L} \mathrm{KL}(A^t_{l,i} \,\|\, A^s_{l,i}) + 1 - \cos(h^t_l, h^s_l), \qquad
       L_\mathrm{top} = (1 - \alpha) H(q, p) + \alpha T^2 \, \mathrm{KL}(p^t_T \,\|\, p^s_T) $$

    $A_{l,i}$ is how token $i$ of the $L$ attends to the others in a block, in each head; the mean is taken over the
    heads. $h_l$ is what the block makes of the first token, [CLS]. Padding counts neither as a token that attends nor
    as one that is attended to. Student and teacher need blocks of one width and as many heads.

    - `stages=all`: all $L_l$ and $L_\mathrm{top}$ at once, in one training.
    - `stages=progressive` (the paper's PID): the first block learns alone, then the second alone, and so on; then
      $L_\mathrm{top}$ alone.
    - `stages=stacked` (SID): each stage adds the next block to those before; then $L_\mathrm{top}$ alone.

    The attention is read before its dropout, in any network that computes it by a softmax or by torch's
    `scaled_dot_product_attention`: BERT, RoBERTa, DistilBERT, DeBERTa and most others of `transformers`, and networks
    of your own. What is read is computed beside the network's own attention, which stays as it is, fused or not; only
    the blocks that are compared pay for it, and these networks are not compiled. Attention of other kernels, such as
    FlashAttention, cannot be read, and is refused.

    Args:
        run: The run whose stages these are.
        student: The network to train.
        teacher: The trained teacher, a network.
        data: The data.
        example: Inputs for one forward pass.
        stages: `stacked`, `progressive` or `all`.
        layers: Which blocks learn from which: `auto`, every second one of a teacher with twice as many; or pairs by
            name, `student_block:teacher_block`, joined by `+`.
        start: `teacher` gives the student's blocks the weights of those that they learn from, and the embeddings and
            the classifier of the teacher; a student with as many blocks keeps its own. `own` leaves the student as it
            is.
        attention_weight: Factor on the divergence of the attention; 0 leaves it out.
        cosine_weight: Factor on the distance of the states; 0 leaves it out.
        temperature: $T$.
        alpha: $\alpha$, from 0 to 1; at 1 the student learns from the teacher's answers alone.
        stage_epochs: Epochs of each stage of the layers, on top of the run's, which are those of the last stage.
        stage_loss: A stage of the layers ends early after an epoch in which the mean of its losses, without the
            factors, is no larger; at 0 it does not.

    Raises:
        UserError: If the weights are negative or both zero, a network's attention cannot be read, two blocks differ in
            width or heads, a block does not exist, or the first token of the student sees no other token.

    Paper: Aguilar et al., Knowledge Distillation from Internal Representations, AAAI 2020.

    Differences: There is no code of the authors. The paper gives no weights, no temperature and no rule for the end of
        a stage that we know of: all weights and $T$ are 1, a stage has a fixed number of epochs, and may end at a
        threshold of the loss. Each stage has an optimizer and a course of the learning rate of its own. Whether lower
        blocks are frozen in the stages of PID is not stated either: here they learn through the block above. What lies
        above the blocks of a stage is frozen in it. Beside its blocks, the student also starts with the teacher's
        embeddings, pooling and classifier. The paper writes a cross-entropy with the teacher's probabilities; the KL
        divergence has the same gradient and is zero where student and teacher agree.
    """
    _check(attention_weight, cosine_weight, alpha, temperature, stage_epochs, stage_loss)
    pairs = paired_blocks(student, teacher, layers, example)
    if cosine_weight:
        check_first_token(student, example)
    if start == "teacher":
        start_as_teacher(student, teacher.inner_network(), pairs, example)
    weights = {"attention_weight": attention_weight, "cosine_weight": cosine_weight}
    if stages == "all":
        top = {"temperature": temperature, "alpha": alpha}
        return run.fit("distill", InternalDistillation(student, teacher, example, pairs=pairs, **weights, **top), data)
    stop = Stop(at_loss=stage_loss or None)
    for number, active in enumerate(active_layers(stages, len(pairs)), 1):
        layer = InternalLayers(student, teacher, example, pairs=[pairs[one - 1] for one in active], **weights)
        # The last weights: the classifier is not trained yet, so a validation score says nothing about the blocks.
        fitted = run.fit(f"layer-{number}", layer, data, epochs=stage_epochs, stop=stop, keep="last")
        layer.teacher.release()
        student = thaw(fitted, layer.student.waiting)
    return run.fit("classify", KD(student, teacher, temperature=temperature, alpha=alpha), data)


def _check(
    attention_weight: float, cosine_weight: float, alpha: float, temperature: float, epochs: int, loss: float
) -> None:
    check_soft_term(alpha, temperature)
    if not min(attention_weight, cosine_weight) >= 0 or not max(attention_weight, cosine_weight) > 0:
        raise UserError(
            f"attention_weight={attention_weight} and cosine_weight={cosine_weight} must be zero or more, and one of "
            "them above zero: without both, choose kd."
        )
    if epochs < 1:
        raise UserError(f"stage_epochs={epochs} must be 1 or more: without stages for the layers, choose stages=all.")
    if not loss >= 0:
        raise UserError(f"stage_loss={loss} must be zero or more.")
