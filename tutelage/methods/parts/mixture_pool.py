"""The pool of mixtures that a black box may be asked about: pairs of images, a grid of shares, and who is unsure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.data.images import as_inputs
from tutelage.losses import wide
from tutelage.models.answers import answer
from tutelage.models.modes import evaluating

SHARES: tuple[float, ...] = tuple(percent / 100 for percent in range(30, 71, 4))
"""The shares $\\lambda$ of the first image: 0.30, 0.34 and so on to 0.70."""

# Mixtures that the student answers at once.
_AT_ONCE = 1024


@dataclass(frozen=True)
class Mixtures:
    """Pairs of images with their shares.

    Attributes:
        pairs: The numbers of the pairs, `[mixture]`.
        shares: The places of their shares in `SHARES`, `[mixture]`.
    """

    pairs: Tensor
    shares: Tensor

    def images(self, images: Tensor) -> Tensor:
        """Return the mixtures themselves, in the type of the images.

        Args:
            images: The images that are mixed, `[image, channel, height, width]`.
        """
        first, second = members(self.pairs, len(images))
        grid = torch.tensor(SHARES, device=self.shares.device)
        return mixed(images[first], images[second], grid[self.shares])


def pool_size(images: int) -> int:
    r"""Return the number of pairs, $N \lfloor (N - 1) / 2 \rfloor$.

    With an even number of images, each image lacks one partner: the one at the distance $N / 2$.

    Args:
        images: The number of images, $N$.
    """
    return images * ((images - 1) // 2)


def members(pairs: Tensor, images: int) -> tuple[Tensor, Tensor]:
    r"""Return the images of pairs: $i$, and $i$ shifted by $1$ to $\lfloor (N - 1) / 2 \rfloor$, modulo $N$.

    Args:
        pairs: Numbers of pairs, from 0, `[pair]`.
        images: The number of images, $N$.
    """
    first = pairs % images
    return first, (first + pairs // images + 1) % images


def mixed(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    r"""Return $\lambda x_i + (1 - \lambda) x_j$, rounded where the images have 8 bits.

    Args:
        one: $x_i$, `[mixture, channel, height, width]`.
        other: $x_j$, of the same shape.
        share: $\lambda$, `[mixture]`.
    """
    found = torch.lerp(other.float(), one.float(), share.float().view(-1, 1, 1, 1))
    # Rounded and not cut: white stays 255.
    return found if one.is_floating_point() else found.round_().to(one.dtype)


def confidence(logits: Tensor) -> Tensor:
    r"""Return $\max_c p_c$ of answers, `[sample]`.

    Args:
        logits: `[sample, class]`.
    """
    return F.log_softmax(wide(logits), dim=1).amax(1).exp()


@torch.no_grad()
def least_confident(
    network: nn.Module,
    images: Tensor,
    pairs: Tensor,
    count: int,
    *,
    advance: Callable[[int], None] = lambda pairs: None,
) -> Mixtures:
    r"""Return the mixtures that a network is least sure of, the least sure first, at most one of a pair.

    A pair counts by its least sure mixture, $\min_\lambda \max_c p_c$. It costs eleven forward passes.

    Args:
        network: The network.
        images: The images that are mixed, `[image, channel, height, width]`, on the network's device.
        pairs: Numbers of the pairs to choose from, `[pair]`.
        count: How many mixtures to return; fewer if there are fewer pairs.
        advance: Called with the number of pairs that were scored.
    """
    grid = torch.tensor(SHARES, device=images.device)
    # Only a score and a share are kept for a pair, so that memory holds one part of the mixtures at a time.
    scores, shares = torch.empty(len(pairs)), torch.empty(len(pairs), dtype=torch.int8)
    with evaluating(network):
        for start in range(0, len(pairs), _AT_ONCE // len(SHARES)):
            part = pairs[start : start + _AT_ONCE // len(SHARES)].to(images.device)
            first, second = members(part, len(images))
            # Each image is read once for its eleven mixtures.
            one, other = (images[each].repeat_interleave(len(SHARES), dim=0) for each in (first, second))
            asked = as_inputs(mixed(one, other, grid.repeat(len(part))))
            sure = confidence(answer(network, asked)).view(len(part), len(SHARES))
            lowest = sure.min(dim=1)
            place = slice(start, start + len(part))
            scores[place], shares[place] = lowest.values.float().cpu(), lowest.indices.to("cpu", torch.int8)
            advance(len(part))
    # Stable, so that equal scores are chosen in the same order everywhere.
    chosen = scores.argsort(stable=True)[:count]
    return Mixtures(pairs[chosen], shares[chosen].long())


def drawn(size: int, count: int, taken: Tensor, generator: torch.Generator) -> Tensor:
    """Return numbers of pairs that are not taken, drawn at random, each once, `[pair]`.

    Args:
        size: The size of the pool.
        count: How many; fewer if fewer are left.
        taken: The numbers of the pairs that are taken, `[pair]`.
        generator: What they are drawn with.
    """
    if count * 4 >= size - len(taken):
        left = free(size, taken)
        return left[torch.randperm(len(left), generator=generator)[:count]]
    # From a far larger pool, which need not be in memory: numbers are drawn until enough of them are new.
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:
        some = torch.cat([found, torch.randint(size, (2 * count,), generator=generator)])
        unique, where = torch.unique(some, return_inverse=True)
        # In the order in which they were drawn: sorted, the first ones would be small numbers.
        first = torch.full((len(unique),), len(some)).scatter_reduce(0, where, torch.arange(len(some)), "amin")
        found = some[first.sort().values]
        found = found[~torch.isin(found, taken)]
    return found[:count]


def free(size: int, taken: Tensor) -> Tensor:
    """Return the numbers of all pairs that are not taken, `[pair]`."""
    is_free = torch.ones(size, dtype=torch.bool)
    is_free[taken] = False
    return is_free.nonzero().flatten()
