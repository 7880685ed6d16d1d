"""Losses of tokens, computed some tokens at a time, so that nothing as large as all answers is made beside them.

An answer of a language model has a number for each token of its vocabulary, at each token of a text. For 16 texts of
512 tokens and a vocabulary of 50,000 that is 1.6 GB in float32, and a loss written with log_softmax makes several
tensors of that size. Here the forward pass makes none, and the backward pass makes one: the gradient itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from tutelage.losses import refuse_second_derivative, under_transform, wide

TILE = 1 << 22
"""Numbers of an answer that are looked at together: 16 MiB in float32."""


class RowLoss(Protocol):
    """A loss of single tokens, with its gradient written out."""

    def losses(self, student: Tensor, other: Tensor) -> Tensor:
        """Return the losses, `[row]`.

        Args:
            student: Logits `[row, class]`.
            other: What they are compared with: logits `[row, class]`, or class indices `[row]`.
        """

    def gradients(self, student: Tensor, other: Tensor) -> Tensor:
        """Return the gradient of each loss by the student's logits, a new tensor `[row, class]`.

        Args:
            student: Logits `[row, class]`.
            other: What they are compared with: logits `[row, class]`, or class indices `[row]`.
        """


def sum_over_tokens(loss: RowLoss, student: Tensor, other: Tensor, counted: Tensor, *, tile: int = TILE) -> Tensor:
    """Return the sum of a loss over the tokens that count, a scalar.

    There is no second derivative. Under the transforms of `torch.func`, all tokens are one tile.

    Args:
        loss: The loss of a token.
        student: Logits `[batch, class, token]`.
        other: What they are compared with: logits of the same shape, or class indices `[batch, token]`. No gradient
            flows into it.
        counted: Which tokens count, `[batch, token]`.
        tile: How many numbers of the student's answer are looked at together.
    """
    flat, beside, kept = _rows(student), _rows(other.detach()), counted.flatten()
    if under_transform():
        return loss.losses(wide(flat), _wide(beside)).where(kept, 0.0).sum()
    found: Tensor = _Tiled.apply(flat, beside, kept, loss, max(1, tile // flat.shape[1]))
    return found


class _Tiled(torch.autograd.Function):
    """The sum of a loss over rows. The backward pass looks at each tile again, and fills one tensor."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, other: Tensor, kept: Tensor, loss: RowLoss, tile: int) -> Tensor:
        ctx.save_for_backward(student, other, kept)
        ctx.loss, ctx.tile = loss, tile
        total = torch.zeros((), dtype=wide(student[:0]).dtype, device=student.device)
        for part in _tiles(len(student), tile):
            # Not multiplied by the mask: what does not count may be infinite, and 0 times infinity is NaN.
            total += loss.losses(wide(student[part]), _wide(other[part])).where(kept[part], 0.0).sum()
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        refuse_second_derivative()
        student, other, kept = ctx.saved_tensors
        gradient = torch.empty_like(student, memory_format=torch.contiguous_format)
        for part in _tiles(len(student), ctx.tile):
            found = ctx.loss.gradients(wide(student[part]), _wide(other[part]))
            gradient[part] = found.mul_(upstream).masked_fill_(~kept[part][:, None], 0.0)
        return gradient, None, None, None, None


def _tiles(rows: int, tile: int) -> Iterator[slice]:
    for start in range(0, rows, tile):
        yield slice(start, start + tile)


def _rows(values: Tensor) -> Tensor:
    """Return answers `[batch, class, token]`, or indices `[batch, token]`, with one row for each token."""
    # Networks answer with the classes last, so this is a view of their answer.
    return values.flatten() if values.ndim == 2 else values.movedim(1, -1).flatten(0, 1)


def _wide(values: Tensor) -> Tensor:
    return wide(values) if values.is_floating_point() else values
