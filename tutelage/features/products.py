"""Products and squares of features, in float32 or wider, which keep no copy of them for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.losses import under_transform, wide


def gram(features: Tensor) -> Tensor:
    r"""Return the inner products of a batch's samples, $F F^\top$, `[batch, batch]`, also under autocast in float32.

    Args:
        features: `[batch, ...]`; each sample is flattened.
    """
    if under_transform():
        rows = wide(features).flatten(1)
        with torch.autocast(rows.device.type, enabled=False):
            return rows @ rows.mT
    # An inner product ignores the order of elements, and in this order a sample is a row in memory: no copy is made.
    is_channels_last = features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last)
    rows = (features.permute(0, 2, 3, 1) if is_channels_last else features).flatten(1)
    found: Tensor = _Gram.apply(rows)
    return found


class _Gram(torch.autograd.Function):
    """Products of all pairs of rows. It keeps no float32 copy, and its backward pass takes one product, not two."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        with torch.autocast(rows.device.type, enabled=False):
            raw = wide(rows)
            return raw @ raw.T

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        with torch.autocast(rows.device.type, enabled=False):
            # For $G = F F^T$ the gradient is $(U + U^T) F$: each row is in the product on both sides.
            return ((upstream + upstream.T) @ wide(rows)).to(rows.dtype)


def mean_square(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the mean of the squares over some dimensions.

    Args:
        values: Any tensor.
        dims: The dimensions to average over, in rising order; they are removed.
    """
    if under_transform():
        return wide(values).square().mean(dims)
    found: Tensor = _MeanSquare.apply(values, dims)
    return found


class _MeanSquare(torch.autograd.Function):
    """Keeps only the values themselves; its backward pass makes one tensor of their size.

    For values in half precision, autograd would keep a float32 copy and make three such tensors.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, dims: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(values)
        ctx.dims = dims
        return wide(values).square().mean(dims)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        # The gradient of a mean of n squares is 2 v / n. Each entry of `upstream` stands for n values.
        upstream = upstream * (2 * upstream.numel() / max(1, values.numel()))
        for dim in ctx.dims:
            upstream = upstream.unsqueeze(dim)
        return (values * upstream).to(values.dtype), None


def unit_rows(rows: Tensor, *, shortest: float = 0.0) -> Tensor:
    """Return rows of length one; a row of zeros stays zeros and has no gradient.

    Args:
        rows: `[row, column]`.
        shortest: Rows below this length count as zeros. The gradient of a direction grows as one over the length, and
            so short a row may be nothing but rounding errors.
    """
    raw = wide(rows)
    # The square of any shorter length underflows to zero.
    shortest = max(shortest, torch.finfo(raw.dtype).tiny ** 0.5)
    is_zero = torch.linalg.vector_norm(raw.detach(), dim=1, keepdim=True) < shortest
    return F.normalize(raw.masked_fill(is_zero, 0.0), dim=1, eps=shortest)
