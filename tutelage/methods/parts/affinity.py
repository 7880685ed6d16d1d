"""How places of a map are alike: nodes of a map, cosines between them, and how far two networks' are apart."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.losses import wide

Pooling = Literal["average", "max"]
# Up to so many nodes, the table of all pairs is made: it is as small as a map, and most exact.
_TABLE = 1024


def nodes_of(maps: Tensor, patch: tuple[int, int], pooling: Pooling) -> Tensor:
    """Return the nodes of a map, `[batch, channel, node]`: each is a patch; patches at the edge may be smaller.

    Args:
        maps: `[batch, channel, height, width]`.
        patch: Height and width of a patch in places.
        pooling: How the places of a patch become one.
    """
    raw = wide(maps)
    if pooling == "max":
        return F.max_pool2d(raw, patch, patch, ceil_mode=True).flatten(2)
    # Not counted beyond the edge, so that smaller patches are means too.
    return F.avg_pool2d(raw, patch, patch, ceil_mode=True, count_include_pad=False).flatten(2)


def pairwise_loss(
    student: Tensor, teacher: Tensor, *, detach_norm: bool = False, most_in_table: int = _TABLE
) -> Tensor:
    r"""Return $\frac{1}{R^2} \sum_{i,j} (a^s_{ij} - a^t_{ij})^2$, the mean over the batch; $a_{ij}$ is the cosine.

    With many nodes the table of pairs is never made: $\|S^\top S - T^\top T\|^2 = \|S S^\top\|^2 + \|T T^\top\|^2 -
    2 \|S T^\top\|^2$ takes products of channels alone, in float64 because large numbers cancel.

    Args:
        student: Nodes `[batch, channel, node]`.
        teacher: Nodes `[batch, channel, node]`, with its own channels; no gradient flows into it.
        detach_norm: Whether lengths are constants for the gradient, to which 1e-8 is added, as in the authors' code.
        most_in_table: Up to how many nodes the table of pairs is made.

    Raises:
        ValueError: If the nodes are not the same.
    """
    if student.shape[2] != teacher.shape[2]:
        raise ValueError(f"The student has {student.shape[2]} nodes and the teacher {teacher.shape[2]}.")
    count = student.shape[2]
    ours, theirs = _unit(student, detach_norm), _unit(teacher.detach(), detach_norm)
    if count <= max(most_in_table, min(student.shape[1], teacher.shape[1])):
        with torch.autocast(ours.device.type, enabled=False):
            gap = ours.mT @ ours - theirs.mT @ theirs
        return gap.square().mean()
    # Accelerators without float64 take float32.
    kind = torch.float32 if ours.device.type == "mps" else torch.float64
    ours, theirs = ours.to(kind), theirs.to(kind)
    with torch.autocast(ours.device.type, enabled=False):
        squares = _squares(ours, ours) + _squares(theirs, theirs) - 2 * _squares(ours, theirs)
    return (squares.clamp(min=0) / count**2).mean().to(wide(student).dtype)


def pairwise_bytes(samples: int, nodes: int, channels: tuple[int, int], *, most_in_table: int = _TABLE) -> int:
    """Return the memory that `pairwise_loss` takes at once beside its nodes, in bytes.

    Args:
        samples: Samples of a batch.
        nodes: Nodes of a map.
        channels: Channels of the student's nodes and of the teacher's.
        most_in_table: As of `pairwise_loss`.
    """
    ours, theirs = channels
    if nodes <= max(most_in_table, min(channels)):
        # Both tables of pairs and their difference, in float32.
        return samples * 3 * nodes**2 * 4
    # Both nodes and the products of their channels, in float64.
    return samples * ((ours + theirs) * nodes + ours**2 + theirs**2 + ours * theirs) * 8


def _unit(nodes: Tensor, detach_norm: bool) -> Tensor:
    """Return nodes of length one; one of nearly no length becomes zeros, without a gradient."""
    raw = wide(nodes)
    length = torch.linalg.vector_norm(raw.detach(), dim=1, keepdim=True)
    # Shorter ones hold rounding errors, as of black images; and the gradient of a direction grows as 1 over the length.
    shortest = torch.finfo(raw.dtype).eps ** 0.5
    raw = raw.masked_fill(length < shortest, 0.0)
    if detach_norm:
        scaled: Tensor = raw / (length + 1e-8).clamp(min=shortest)
        return scaled
    return F.normalize(raw, dim=1, eps=shortest)


def _squares(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared Frobenius norm of the products of channels, `[batch]`."""
    return (one @ other.mT).square().sum((1, 2))
