"""Knowledge Review: each stage of the student, joined with all deeper ones, predicts a stage of the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, Compared, LayerPair, Seen, pair, reading
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.adapting import adapting
from tutelage.features.maps import resize
from tutelage.features.padding import places, through, without_padding
from tutelage.features.products import mean_square
from tutelage.losses import wide
from tutelage.methods.dkd import rising
from tutelage.methods.rkd import embeddings, pooled

KNOWLEDGE_REVIEW = Paper(
    key="chen2021distilling",
    title="Distilling Knowledge via Knowledge Review",
    authors="Chen, Pengguang and Liu, Shu and Zhao, Hengshuang and Jia, Jiaya",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2021,
    arxiv="2104.09044",
)

# Sides of the coarser maps that are compared beside the whole one.
_SIDES = (4, 2, 1)


@register(
    "reviewkd",
    papers=[KNOWLEDGE_REVIEW],
    losses=["hierarchical_context_loss"],
    reads=(),
    uses={"targets"},
    family="features",
)
class ReviewKD(Method):
    r"""Knowledge Review: each stage of the student, joined with all deeper ones, predicts a stage of the teacher.

    $$ L = H(q, p) + \beta \, w(e) \sum_{l=1}^{n} \mathrm{HCL}\left(O_l(R_l), F^t_l\right), \qquad
       R_l = g_l \odot C_l(F^s_l) + g'_l \odot R_{l+1}, \quad
       (g_l, g'_l) = \sigma\left(G_l([C_l(F^s_l); R_{l+1}])\right) $$

    $$ \mathrm{HCL}(a, b) = \frac{\|a - b\|^2 + \sum_{i=1}^{3} 2^{-i} \, \|\mathrm{pool}_{s_i}(a - b)\|^2}
       {1 + \sum_{i=1}^{3} 2^{-i}}, \qquad s = (4, 2, 1), \quad \text{each norm a mean over all elements} $$

    The levels are the stages, and as the deepest one the pooled features, a map of one place. $C$ is a 1x1 convolution
    with a batch norm, $G$ a 1x1 convolution to two maps, $O$ a 3x3 convolution with a batch norm. $R_{l+1}$ is
    brought to the size of the student's map and $R_l$ to that of the teacher's, by the nearest place; the deepest level
    has no $R_{l+1}$. Maps may have any sizes. Of the coarser maps only those that are smaller than the whole count, and
    $2^{-i}$ counts these alone. All of $C$, $G$, $O$ is trained with the student and thrown away.
    Without labels the first term is left out: the student learns features, and its classifier stays as it is.

    The published $\beta$, and test accuracy in per cent from the authors' code and the tables of a later paper (ITRD):

    | teacher and student | $\beta$ | accuracy |
    |---|---|---|
    | CIFAR-100: wrn_40_2 and wrn_16_2, wrn_40_1 | 5 | 76.12, 75.09 |
    | resnet56 and resnet20 | 0.6 | 71.89 |
    | resnet110 and resnet32 | 1 | 73.89 |
    | resnet32x4 and resnet8x4 | 5 | 75.63 |
    | vgg13 and vgg8, MobileNetV2; ResNet50 and MobileNetV2 | not in the code | 74.85, 70.37; 69.89 |
    | resnet32x4 and ShuffleNetV1, ShuffleNetV2 | 5, 8 | 77.45, 77.78 |
    | wrn_40_2 and ShuffleNetV1 | 5 | 77.14 |
    | ImageNet: ResNet34 and ResNet18 | 1 | 71.61 |
    | ImageNet: ResNet50 and MobileNetV1, with `mid_channels=256` | 8 | 72.56 |

    They belong to the recipe of the preset, which is not the standard one of the literature: batches of 128, Nesterov,
    learning rate 0.1 (0.02 for MobileNetV2 and ShuffleNets) and the best test epoch. On ImageNet: no warm-up
    (`ramp_epochs=1`), batch 256, learning rate 0.1, weight decay 1e-4, 100 epochs, a tenth after every 30.

    Args:
        student: The network to train.
        teacher: A teacher with a network inside, or one whose layers were recorded.
        example: Inputs for one forward pass.
        layers: `auto` pairs the ends of the stages; or pairs by name, `student:teacher`, joined by `+`, from the first
            layer to the last. The pooled features are always added.
        beta: $\beta$, zero or more.
        mid_channels: Channels of all $R$, at most; fewer if the student's deepest level has fewer.
        ramp_epochs: Epochs $E$ over which the weight rises, $w(e) = \min(e / E, 1)$ in epoch $e = 1, 2, ...$; 1 is no
            warm-up. By default the published 20 of 240, and in a shorter run the same share, batch by batch.

    Raises:
        UserError: If `beta` is negative, `mid_channels` or `ramp_epochs` is below 1, the teacher has no network, or a
            layer does not exist.

    Paper: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021.

    Differences: Layers are read as the pairing finds them, in most networks after the activation; on CIFAR the authors
        read the teacher's before it, on ImageNet both. Their warm-up begins at zero, a 20th later. Their maps are
        square, and a coarser one counts if it is lower than the whole; here it also counts if it is narrower, and no
        side grows. With padding, places are cut from each sample's own length. The default of `beta` is the commonest
        of the published. A batch with one value a channel takes a batch norm's running statistics.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        layers: str = AUTO,
        beta: float = 5.0,
        mid_channels: int = 512,
        ramp_epochs: int | None = None,
    ) -> None:
        _check(beta, mid_channels, ramp_epochs)
        super().__init__({"review": rising(beta, ramp_epochs)})
        seen = Seen.of(student, teacher, example)
        found = pair(student, teacher, layers, seen, logits=False)
        # Both are read again, with the embeddings as one more pair.
        network = found.student.release()
        found.teacher.release()
        pairs = [*found.pairs, embeddings(network, found.teacher, seen)]
        self.student, self.teacher, self.pairs = reading(network, found.teacher, pairs, seen, logits=False)
        self.review = adapting(Review(self.pairs, mid_channels=mid_channels), student)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce` and the sum of the levels' losses as `review`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        *stages, deepest = self.pairs
        # The deepest level: the pooled features as maps of one place.
        ours, theirs = (features[:, :, None, None] for features in pooled(deepest, student, teacher))
        levels = [*(one.compared(student, teacher) for one in stages), Compared(ours, theirs, None)]
        return {**batch.supervised(student.logits), "review": self.review(levels)}


class Review(nn.Module):
    """The fusions of all levels, and how far what they predict is from the teacher.

    Args:
        pairs: The pairs of layers, from the first to the deepest.
        mid_channels: Channels of the maps that are handed from level to level, at most.
    """

    def __init__(self, pairs: Sequence[LayerPair], *, mid_channels: int) -> None:
        super().__init__()
        # The same width at all levels, so that what one leaves can be joined to the next.
        middle = min(mid_channels, pairs[-1].student.channels)
        self.fusions = nn.ModuleList(
            Fusion(one.student.channels, middle, one.teacher.channels, joins=one is not pairs[-1]) for one in pairs
        )

    def forward(self, levels: Sequence[Compared]) -> Tensor:
        """Return the sum of the levels' losses, a scalar.

        Args:
            levels: The maps of each pair, from the first to the deepest.
        """
        # From the deepest level on: each joins what the deeper one left.
        deeper, terms = None, []
        for fusion, (student, teacher, mask) in zip(reversed(self.fusions), reversed(levels), strict=True):
            predicted, deeper = fusion(student, deeper, (teacher.shape[2], teacher.shape[3]), mask)
            terms.append(hierarchical_context_loss(predicted, teacher, mask))
        return torch.stack(terms).sum()


class Fusion(nn.Module):
    """Joins a stage of the student with what the deeper ones left, and predicts the teacher's map.

    Args:
        channels: Channels of the student's map.
        middle: Channels of the maps that are handed from level to level.
        teacher_channels: Channels of the teacher's map.
        joins: Whether there is a deeper level.
    """

    def __init__(self, channels: int, middle: int, teacher_channels: int, *, joins: bool) -> None:
        super().__init__()
        self.squeeze, self.squeeze_norm = nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.gate = nn.Conv2d(2 * middle, 2, 1) if joins else None
        self.predict = nn.Conv2d(middle, teacher_channels, 3, padding=1, bias=False)
        self.predict_norm = nn.BatchNorm2d(teacher_channels)
        for convolution in (self.squeeze, self.predict):
            # As in the authors' code.
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(
        self, maps: Tensor, deeper: Tensor | None, size: tuple[int, int], mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the prediction `[batch, teacher_channel, height, width]`, and the joined map for the next level.

        Args:
            maps: The student's map, `[batch, channel, height, width]`.
            deeper: The joined map of the deeper level, `[batch, middle, height, width]`, with sizes of its own.
            size: Height and width of the teacher's map.
            mask: Places of both maps that are not padding, `[batch, 1, height, width]`.
        """
        joined = _normalized(self.squeeze_norm, self.squeeze(maps), mask)
        if self.gate is not None and deeper is not None:
            joined = join(joined, _nearest(deeper, (maps.shape[2], maps.shape[3])), self.gate)
        # R_l of the equation is at the size of the teacher's map, and so is what the next level gets.
        joined = _nearest(joined, size)
        return _normalized(self.predict_norm, self.predict(without_padding(joined, mask)), mask), joined


def join(maps: Tensor, deeper: Tensor, gate: nn.Module) -> Tensor:
    r"""Return $g \odot x + g' \odot r$, in which both gates are read from both maps, `[batch, channel, height, width]`.

    Args:
        maps: $x$, `[batch, channel, height, width]`.
        deeper: $r$, the same shape.
        gate: From both, one behind the other, to the two maps whose sigmoids are $g$ and $g'$.
    """
    own, handed = gate(torch.cat([maps, deeper], 1)).sigmoid().split(1, 1)
    joined: Tensor = own * maps + handed * deeper
    return joined


def hierarchical_context_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the mean squared error of two maps and of their coarser versions, as a weighted mean, a scalar.

    The whole map weighs 1. Those pooled to 4, 2 and 1 places a side weigh half of the one before, as far as they are
    smaller than the whole; a side that is shorter already stays as it is.

    Args:
        student: `[batch, channel, height, width]`.
        teacher: The same shape; no gradient flows into it.
        mask: Tokens that are not padding, `[batch, 1, 1, token]`. Each sample is then taken at its own length.

    Paper: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021.
    """
    # Pooling is linear, so the pooled difference is the difference of what is pooled.
    error = wide(student) - wide(teacher.detach())
    if mask is not None:
        return _of_sequences(error, mask)
    height, width = error.shape[2:]
    total, weight, weights = mean_square(error, (0, 1, 2, 3)), 1.0, 1.0
    for side in _SIDES:
        # A map that is already as coarse would be counted twice.
        if side < max(height, width):
            weight /= 2
            coarse = resize(error, (min(side, height), min(side, width)))
            total, weights = total + weight * mean_square(coarse, (0, 1, 2, 3)), weights + weight
    return total / weights


def _of_sequences(error: Tensor, mask: Tensor) -> Tensor:
    """Return the loss of the differences of padded sequences, each cut at its own length; the mean over the batch."""
    error, mask = without_padding(error, mask).flatten(2), mask.flatten(1)
    # The position of each token among those that are not padding.
    lengths, position = places(mask)[:, None], mask.cumsum(1) - 1
    total, weight = error.square().mean(1).sum(1, keepdim=True) / lengths, torch.ones_like(lengths, dtype=error.dtype)
    weights = weight
    for side in _SIDES:
        number = torch.arange(side, device=mask.device)
        # The windows of adaptive pooling, [batch, window, token]: they overlap where lengths cannot be divided.
        first, end = number * lengths // side, -(-(number + 1) * lengths // side)
        inside = mask[:, None] & (position[:, None] >= first[:, :, None]) & (position[:, None] < end[:, :, None])
        shares = inside / (end - first)[:, :, None]
        coarse = torch.einsum("bct,bwt->bcw", error, shares.to(error.dtype))
        counts = lengths > side
        weight = torch.where(counts, weight / 2, weight)
        total = total + torch.where(counts, weight * coarse.square().mean((1, 2))[:, None], 0.0)
        weights = weights + torch.where(counts, weight, 0.0)
    return (total / weights).mean()


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if tuple(maps.shape[2:]) == size else F.interpolate(maps, size, mode="nearest")


def _normalized(norm: nn.BatchNorm2d, maps: Tensor, mask: Tensor | None) -> Tensor:
    """Return normalised maps; by the running statistics if one value a channel has no spread of its own."""
    if norm.training and maps.numel() == maps.shape[1]:
        # A single value has no variance, and `nn.BatchNorm2d` would refuse it.
        return F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return through(norm, maps, mask)


def _check(beta: float, mid_channels: int, ramp_epochs: int | None) -> None:
    if not beta >= 0:
        raise UserError(f"beta={beta} must be zero or more: a negative one drives the maps apart.")
    if mid_channels < 1:
        raise UserError(f"mid_channels={mid_channels} must be 1 or more: the channels of the joined maps.")
    if ramp_epochs is not None and ramp_epochs < 1:
        raise UserError(f"ramp_epochs={ramp_epochs} must be 1 or more; with 1 there is no warm-up.")
